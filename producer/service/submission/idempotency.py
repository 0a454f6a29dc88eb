"""Makes one job for one idempotency key, wherever and however often it is submitted.

Theory of operation. First a row is written that names the job of the key, then the event is published, then the row is
marked. The row is written in one transaction that only one process can win, with a lease by the database's clock:

- **The process that wrote it** publishes, and marks the row after the confirm. Without a confirm the outcome is
  unknown: the row stays open, and the client's repeat resolves it.
- **A repeat** that finds the row marked returns the job as it is now. When the row is open, it waits. When the row's
  lease has expired, because that process died or gave up, it takes the row over: it waits for a barrier, so that the
  view has everything that was on the tape. If the job is in the view, only the mark was missing. If not, it publishes
  the same event under the same id.

An event that still comes late, from a process that was frozen or a buffer, has the same event id, and the fold counts
it once. So there is one job, although its work may be executed more than once.

The row has no payload. A repeat brings the payload, and the digest shows that it is the same. With the row's id and
time it makes the same event again.
"""

import asyncio
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeGuard
from uuid import uuid4

from jobtape.producer.service.barrier import SharedBarrier
from jobtape.producer.service.errors import (
    IdempotencyInFlight,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    JobGone,
    TooBusy,
)
from jobtape.producer.service.ids import new_job_id
from jobtape.producer.service.submission.limits import Limits
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, QueueFull
from jobtape.schemas.events import submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, Order
from jobtape.schemas.job_types.secrets import installed_cipher
from jobtape.schemas.submission import IDEMPOTENCY_KEY, Submission
from jobtape.view.store import Claim, KeyedSubmission, KeyState, Store

HEADER: Final = "Idempotency-Key"
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_FORM: Final = "a key is 1 to 255 visible ASCII characters without spaces, a UUID for instance"


def checked_key(text: str) -> str:
    """Return ``text``. Raises IdempotencyKeyInvalid when it is no idempotency key."""
    if not IDEMPOTENCY_KEY.fullmatch(text):
        raise IdempotencyKeyInvalid(f"this is not an idempotency key: {_FORM}")
    return text


def key_in_header(values: Sequence[str]) -> str | None:
    """Return the key in the ``Idempotency-Key`` headers, None without one. Raises IdempotencyKeyInvalid."""
    if not values:
        return None
    if len(values) > 1:
        raise IdempotencyKeyInvalid(f"there are {len(values)} headers {HEADER}: send one")
    value = values[0].strip(" \t")
    if not value.startswith('"'):
        return checked_key(value)
    if (quoted := _QUOTED.fullmatch(value)) is None:
        raise IdempotencyKeyInvalid(f"the header {HEADER} begins with a quote and is not one quoted string: {_FORM}")
    return checked_key(re.sub(r"\\(.)", r"\1", quoted[1]))


def digest_of(submission: Submission) -> str:
    """Return the SHA-256 of the submission as canonical JSON: sorted names, no spaces, times in UTC, null for absent.

    With JOBTAPE_SECRET_KEYS, an HMAC with the first key. So the order of names and the white space of a body do not
    matter. 1 and 1.0 differ. The payload must have been
    checked. Takes milliseconds for a large payload.
    """
    values = submission.model_dump(mode="json", exclude={"idempotency_key"})
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
    # Nobody with the database can find a secret in the submission by trying.
    return hashlib.sha256(text).hexdigest() if (cipher := installed_cipher()) is None else cipher.digest(text)


log = logging.getLogger(__name__)

SubmitOrder = Callable[[Order, str, datetime], Awaitable[Job]]

WAIT: Final = 5.0
"""Seconds for which a repeat waits for the submission in progress."""
MAX_WAITING: Final = 200
FIRST_POLL, LONGEST_POLL = 0.01, 0.25
THREADS: Final = 4
CALL_TIMEOUT: Final = 6.0
"""Seconds; a little more than the store's own limit, whose error says what is wrong."""
PRUNE_STEP: Final = 1000
PRUNE_EVERY, PRUNE_AGAIN = 60.0, 1.0
"""Seconds until the next step, and after a step that removed ``PRUNE_STEP`` keys."""


@dataclass(frozen=True, slots=True)
class KeyedOrder:
    """The order of a submission under a key. ``row``: what is stored of it if it is the first under the key."""

    row: KeyedSubmission
    order: Order
    delay: float | None

    @classmethod
    def of(cls, key: str, submission: Submission, order: Order, now: datetime) -> "KeyedOrder":
        """Make it of a submission and the ``order`` made of it at ``now``. Takes milliseconds for a large payload."""
        return cls(KeyedSubmission(key, digest_of(submission), new_job_id(), now), order, submission.delay)

    def order_at(self, moment: datetime) -> Order:
        """Return the order as it was at ``moment``, when the key was first used."""
        if not self.delay or moment == self.row.time:
            return self.order
        return self.order.model_copy(update={"run_at": moment + timedelta(seconds=self.delay)})


def has_submission(job: Job | None) -> TypeGuard[Job]:
    """Return whether the job's submission is folded, and not only an event that overtook it."""
    return job is not None and job.submitted_at is not None


def reused(key: str) -> IdempotencyKeyReused:
    return IdempotencyKeyReused(
        f"the idempotency key {key!r} belongs to another submission: repeat that one as it was, or take a new key"
    )


class Idempotency:
    """Submits orders under idempotency keys. ``submit_order(order, job id, time)`` publishes a job. ``source``: that of
    its events. A scope separates the keys of different callers. All calls raise ViewUnavailable without a database, and
    TooBusy when too many wait.
    """

    def __init__(
        self,
        store: Store,
        submit_order: SubmitOrder,
        barrier: SharedBarrier,
        reads: ViewCalls,
        limits: Limits,
        *,
        source: str,
    ) -> None:
        self._store = store
        self._submit_order = submit_order
        self._barrier = barrier
        self._reads = reads
        self._limits = limits
        self._source = source
        # Separate threads: on SQLite writes wait for the one writer, and reads must not wait with them.
        self._writes = ViewCalls("jobtape-keys", threads=THREADS, limit=CALL_TIMEOUT)
        self._waiting = 0
        self._pruning: asyncio.Task[None] | None = None
        self._prune_at = 0.0

    async def close(self) -> None:
        """Stop pruning, and end the threads."""
        if self._pruning is not None:
            await asyncio.wait({self._pruning})
        await self._writes.close()

    async def submit(self, scope: str, keyed: KeyedOrder) -> Job:
        """Publish the key's job, or return it as it is now when the key has one.

        Raises IdempotencyKeyReused when the key belongs to another submission, IdempotencyInFlight when a simultaneous
        one has no outcome in time, BrokerUnavailable and TapeMissing as every submission does, and ViewBehind when the
        view cannot show whether an earlier one was published.
        """
        deadline = time.monotonic() + WAIT
        owner = uuid4().hex
        while True:
            claim = (await self.claim(scope, owner, [keyed]))[keyed.row.key]
            match claim.state:
                case KeyState.NEW:
                    return await self._publish(owner, keyed, claim)
                case KeyState.TAKEN_OVER:
                    return await self._resolve(owner, keyed, claim)
                case KeyState.ACCEPTED:
                    return await self._current(keyed, claim)
                case KeyState.REUSED:
                    raise reused(keyed.row.key)
                case KeyState.IN_FLIGHT:
                    await self._wait(scope, keyed.row, claim, deadline)

    async def claim(self, scope: str, owner: str, submissions: Sequence[KeyedOrder]) -> dict[str, Claim]:
        """Claim the keys for ``owner`` in one transaction. Returns the claims by key."""
        rows = [each.row for each in submissions]
        found = await self._writes.call(self._store.keys.claim, scope, owner, rows, self._limits.key_lease)
        if self._pruning is None and time.monotonic() >= self._prune_at:
            self._pruning = asyncio.create_task(self._prune(), name="prune idempotency keys")
        return found

    async def settle(self, owner: str, **outcome: Sequence[str]) -> None:
        """Record the outcomes, see ``Store.keys.finish``. An error is only logged: what is on the tape is accepted, and
        a repeat resolves a row that stays open when its lease has expired.
        """
        if not any(outcome.values()):
            return
        try:
            await self._writes.call(partial(self._store.keys.finish, owner, **outcome))
        except JobtapeError as error:
            log.warning("idempotency keys stay open until their lease runs out: %s", error)

    async def on_the_tape(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return those of the jobs whose submission is on the tape now. Waits for the view; raises ViewBehind."""
        await self._barrier.wait()
        known = await self._reads.call(self._store.jobs, job_ids)
        return {job_id: job for job_id, job in known.items() if has_submission(job)}

    async def knows(self, job_id: str) -> bool:
        """Return whether the job was submitted under a key that is still kept."""
        return await self._reads.call(self._store.keys.accepted, job_id) is not None

    async def check_kept(self, job_id: str) -> None:
        """Raise JobGone for a job that ended long ago and is no longer kept."""
        if await self._is_gone(job_id):
            raise JobGone(f"the job {job_id} ended so long ago that it is not kept any more (JOBTAPE_JOB_RETENTION)")

    async def _is_gone(self, job_id: str) -> bool:
        return bool(await self._reads.call(self._store.retention.gone, [job_id]))

    async def _publish(self, owner: str, keyed: KeyedOrder, claim: Claim) -> Job:
        try:
            job = await self._submit_order(keyed.order_at(claim.time), claim.job_id, claim.time)
        except QueueFull:  # a repeat need not wait for the lease: nothing was published
            await self.settle(owner, released=[claim.job_id])
            raise
        except BrokerUnavailable:
            raise  # the outcome is unknown: the row stays open
        except JobtapeError:
            await self.settle(owner, released=[claim.job_id])
            raise
        await self.settle(owner, accepted=[claim.job_id])
        return job

    async def _resolve(self, owner: str, keyed: KeyedOrder, claim: Claim) -> Job:
        try:
            job = (await self.on_the_tape([claim.job_id])).get(claim.job_id)
            gone = job is None and await self._is_gone(claim.job_id)
        except JobtapeError:
            await self.settle(owner, released=[claim.job_id])
            raise
        if job is None and not gone:
            return await self._publish(owner, keyed, claim)
        await self.settle(owner, accepted=[claim.job_id])
        return await self._current(keyed, claim)

    async def _current(self, keyed: KeyedOrder, claim: Claim) -> Job:
        job = await self._reads.call(self._store.job, claim.job_id)
        if has_submission(job):
            return job
        await self.check_kept(claim.job_id)
        return evolve(None, submitted(claim.job_id, keyed.order_at(claim.time), source=self._source, time=claim.time))

    async def _wait(self, scope: str, row: KeyedSubmission, claim: Claim, deadline: float) -> None:
        """Return when the key is no longer in flight. Raises IdempotencyInFlight at the deadline."""
        if self._waiting >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} requests are waiting for a submission under their key: try again in a moment")
        self._waiting += 1
        pause = FIRST_POLL
        try:
            while (left := deadline - time.monotonic()) > 0:
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 1.5, LONGEST_POLL)
                now = await self._reads.call(self._store.keys.state, scope, row)
                if now is None or now.state is not KeyState.IN_FLIGHT:
                    return
        finally:
            self._waiting -= 1
        raise IdempotencyInFlight(
            f"the first submission under the idempotency key {row.key!r} has no outcome yet: repeat it in a few "
            f"seconds. Its job would be {claim.job_id}",
            retry_after=max(1, math.ceil(min(claim.lease_left, WAIT))),
        )

    async def _prune(self) -> None:
        pause = PRUNE_EVERY
        try:
            gone = await self._writes.call(self._store.keys.prune, self._limits.idempotency_retention, PRUNE_STEP)
            if gone == PRUNE_STEP:
                pause = PRUNE_AGAIN
        except JobtapeError as error:
            log.info("old idempotency keys are not removed for now: %s", error)
        finally:
            self._prune_at = time.monotonic() + pause
            self._pruning = None
