"""Runs past jobs again in the shade: today's handlers on the payloads of then, and what comes out is only compared.

Nothing is published and nothing written but how far the run has come. The handlers run in this process, one after the
other; ``ctx.shadow`` says which it is. A job is marked before its handler runs. Whatever ended the process then, the
job is run again when the run is taken up. One that was marked TRIES times ends the process itself, and counts as
different.
One for which the slice's time was too short is run again at the beginning of the next, where it has all of its own.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Failure, Outcome, failure, timed_out
from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.schemas import plainjson
from jobtape.schemas.context import Context
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.view.store import JobQuery, Store

log = logging.getLogger(__name__)

PAGE: Final = 100
TRIES: Final = 2
NAMED: Final = 10_000
"""Jobs that are named as different; more are only counted."""
SHOWN: Final = 20
MAX_RESULT: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Shadow:
    """The jobs of ``query`` (``limit``: how many at most), all of final states. ``name`` is this run's own. A handler
    has ``longest`` seconds at most, whatever its time-out.
    """

    name: str
    query: JobQuery
    longest: float


class ShadowRun:
    """Goes on where an earlier process was, also when that was the end. ``state``: what there is to report."""

    def __init__(self, store: Store, job_types: Mapping[str, JobTypeSpec], shadow: Shadow, part: TaskSlice) -> None:
        self._store = store
        self._job_types = job_types
        self._shadow = shadow
        self._part = part
        fresh: dict[str, Any] = {"before": shadow.query.before, "doing": None, "tries": 0, "jobs": 0, "same": 0}
        fresh |= {"unknown": 0, "different": [], "more": 0, "shown": [], "done": False}
        self.state = store.tasks.begin(shadow.name, fresh)

    def run(self) -> dict[str, Any]:
        """All that is left; the state at the end. Raises ViewUnavailable, Interrupted, TakenOver."""
        before = self.state["jobs"]
        while not self.state["done"] and (room := self._shadow.query.limit - self.state["jobs"]) > 0:
            query = replace(self._shadow.query, before=self.state["before"], limit=min(PAGE, room))
            jobs = self._store.list_jobs(query)
            end = len(jobs) < query.limit
            for n, job in enumerate(jobs, 1):
                self._one(job)
                # How many there are is only known at the last page; they are no more than the limit.
                left = len(jobs) - n if end else self._shadow.query.limit - self.state["jobs"]
                self._part.tell(1, max(0, left), before)
                self._part.check()
            if end:
                break
        if not self.state["done"]:
            self._move(done=True)
        return self.state

    def _one(self, job: Job) -> None:
        job_type = self._job_types.get(job.type)
        if job_type is None:
            self._move(before=job.id, jobs=self.state["jobs"] + 1, unknown=self.state["unknown"] + 1)
            return
        tries = self.state["tries"] + 1 if self.state["doing"] == job.id else 1
        if tries > TRIES:
            self._note(job, failure("crashed", "Crashed", "the handler ended its process, or did not come back"))
            return
        self._move(doing=job.id, tries=tries)
        whole = min(job_type.timeout, self._shadow.longest)
        # The first of a slice has all of its time, so that the run goes on.
        seconds = whole if self._part.done == 0 else min(whole, max(0.0, self._part.room()))
        outcome = run_in_shadow(job_type, job, seconds)
        if outcome is None and seconds < whole:
            self._move(doing=None, tries=0)
            raise Interrupted(f"the time for {job.id} was too short: it is run again in the next attempt")
        self._note(job, outcome or timed_out(job_type, seconds))

    def _note(self, job: Job, now: Outcome) -> None:
        state = self.state
        if _same(job, now):
            self._move(before=job.id, doing=None, jobs=state["jobs"] + 1, same=state["same"] + 1)
            return
        named = len(state["different"]) < NAMED
        shown = [_delivered(job, now)] if len(state["shown"]) < SHOWN else []
        self._move(
            before=job.id,
            doing=None,
            jobs=state["jobs"] + 1,
            different=[*state["different"], job.id] if named else state["different"],
            more=state["more"] + (not named),
            shown=[*state["shown"], *shown],
        )

    def _move(self, **changes: Any) -> None:
        after = {**self.state, **changes}
        if not self._store.tasks.move(self._shadow.name, self.state, after):
            raise TakenOver(f"another process works on the shadow run {self._shadow.name}: wait for it")
        self.state = after


def run_in_shadow(job_type: JobTypeSpec, job: Job, seconds: float) -> Outcome | None:
    """Run today's handler on the job's payload; return the unpublished outcome, or None if it does not end in time."""
    outcomes: list[Outcome] = []
    # A thread of its own: one that does not end is left behind.
    thread = threading.Thread(target=lambda: outcomes.append(_run(job_type, job)), name=f"shadow {job.id}", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcomes[0] if outcomes else None


def _run(job_type: JobTypeSpec, job: Job) -> Outcome:
    context = Context(
        job_id=job.id,
        job_type=job.type,
        run=job.run,
        attempt=job.attempt,
        log=logging.getLogger("jobtape.job"),
        report=lambda progress: None,
        shadow=True,
    )
    call = Call(job_type, job.payload or {}, job.payload_version, context, MAX_RESULT)
    if not job_type.is_async:
        return call.run()
    try:
        return asyncio.run(call.run_async())
    except BaseException as error:  # noqa: BLE001 - its own cancellation, or a SystemExit of a task that it started
        return call.failed(error)


def _same(job: Job, now: Outcome) -> bool:
    """Whether it ends as it did: with the same result, or with an error of the same type."""
    if isinstance(now, Failure):
        return job.state is JobState.FAILED and job.error is not None and job.error.type == now.error.type
    return job.state is JobState.SUCCEEDED and plainjson.dumps(job.result) == plainjson.dumps(now.result)


def _delivered(job: Job, now: Outcome) -> dict[str, Any]:
    then: Any = (
        job.result if job.state is JobState.SUCCEEDED else job.error and f"{job.error.type}: {job.error.message}"
    )
    after: Any = f"{now.error.type}: {now.error.message}" if isinstance(now, Failure) else now.result
    return {"job": job.id, "type": job.type, "then": plainjson.short(then), "now": plainjson.short(after)}
