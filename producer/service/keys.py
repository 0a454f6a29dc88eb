"""Checks API keys without a read of the database for each request, and creates, rotates and revokes them.

Theory of operation. Each API process has all keys in memory, by their hashes. A request that finds them older than
``REREAD`` has them read again in the background; one that finds them older than ``STALE`` waits for that. So a key that
was revoked elsewhere is refused ``STALE`` seconds later. A key that is not known yet is read at once, at most once a
second. While the database does not answer, the keys that were read last count for ``OUTAGE`` seconds more, so
submissions go on without it.
"""

import asyncio
import hashlib
import logging
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from uuid_utils import uuid7

from jobtape.broker.tasks import cancel_and_wait
from jobtape.producer.service.errors import (
    KeyInvalid,
    KeyMissing,
    KeyRefused,
    TooBusy,
    TooManyRequests,
)
from jobtape.producer.service.shared import Shared
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.access import Caller, Scope
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX
from jobtape.view.records.api_keys import MOST_KEYS, ApiKey
from jobtape.view.store import Store

PREFIX: Final = "jobtape_"
"""What all keys of the database begin with, so that programs that search for secrets find them."""
REREAD, STALE, OUTAGE = 2.0, 4.0, 300.0
"""Seconds; see the theory of operation."""
UNKNOWN: Final = 1.0
"""Seconds after a read in which another unknown key is not looked for again."""
NOTED: Final = 60.0
"""Seconds between two notes of when a key was used."""
OVERLAP: Final = 86_400.0
"""Seconds for which the old key is valid too after a rotation, unless the caller says otherwise."""

log = logging.getLogger(__name__)


class KeyRing:
    """The API keys that one process knows."""

    def __init__(self, store: Store, reads: ViewCalls) -> None:
        self._store = store
        self._reads = reads
        self._known: dict[bytes, tuple[ApiKey, datetime | None]] = {}
        self._read_at = self._tried_at = -math.inf
        self._used: dict[str, float] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._reread = Shared(self._read, 0.0)
        self._rereading: asyncio.Task[None] | None = None
        self._open: defaultdict[bytes, set[asyncio.Future[None]]] = defaultdict(set)
        self._watch: asyncio.Task[None] | None = None

    async def caller(self, sent: bytes) -> Caller:
        """Return who sends a request with the key ``sent``. Raises KeyRefused, TooManyRequests, and ViewUnavailable
        when the keys are not known.
        """
        digest = hashlib.sha256(sent).digest()
        await self._refresh()
        if digest not in self._known and time.monotonic() - self._read_at > UNKNOWN:
            await self._reread()
        key = self._valid(digest)
        if key.rate is not None:
            self._buckets.setdefault(key.id, _Bucket(key.rate)).take(key)
        self._used[key.id] = time.time()
        return Caller(key.id, key.name, key.scopes, key.types)

    async def until_refused(self, sent: bytes) -> None:
        """Return when requests with the key ``sent`` are not answered any more: for streams that it has opened."""
        digest = hashlib.sha256(sent).digest()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[digest].add(ended)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_open(), name="API keys of streams")
        try:
            await ended
        finally:
            self._open[digest].discard(ended)
            if not self._open[digest]:
                del self._open[digest]

    async def all(self) -> list[ApiKey]:
        """Return all keys, the oldest first."""
        return await self._reads.call(self._store.api_keys.all)

    async def create(
        self,
        name: str,
        scopes: Collection[Scope],
        types: Collection[str],
        rate: float | None,
        expires_at: datetime | None,
    ) -> tuple[ApiKey, str]:
        """Create a key, and return it with its text, which nothing shows again. Raises KeyInvalid."""
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise KeyInvalid("expires_at", "it is in the past: give a later time")
        for each in types:
            if each.startswith(BUILTIN_PREFIX):
                raise KeyInvalid(
                    "types", f"{each} is built in, and acts on jobs of other types: name your own job types"
                )
        key_id = str(uuid7())
        text, digest = _new_key()
        keys = self._store.api_keys
        if not await self._reads.call(keys.create, key_id, name, digest, scopes, types, rate, expires_at):
            raise KeyInvalid("name", f"there are {MOST_KEYS:,} keys already, the revoked ones too: use one of them")
        return await self._changed(key_id), text

    async def rotate(self, key_id: str, overlap: float) -> tuple[ApiKey, str]:
        """Give a key a new text and return it. The old one is valid for ``overlap`` seconds more. Raises KeyMissing."""
        text, digest = _new_key()
        if not await self._reads.call(self._store.api_keys.rotate, key_id, digest, overlap):
            raise _missing(key_id)
        return await self._changed(key_id), text

    async def revoke(self, key_id: str) -> ApiKey:
        """Let no more requests with a key be answered, and return it. Raises KeyMissing."""
        if not await self._reads.call(self._store.api_keys.revoke, key_id):
            raise _missing(key_id)
        return await self._changed(key_id)

    async def close(self) -> None:
        """Stop reading keys."""
        for task in (self._watch, self._rereading):
            if task is not None:
                await cancel_and_wait(task)
        await self._reread.close()

    def _valid(self, digest: bytes) -> ApiKey:
        """Return the key with this hash. Raises KeyRefused."""
        key, until = self._known.get(digest, (None, None))
        now = datetime.now(UTC)
        if key is None or (until is not None and until <= now):
            raise KeyRefused("there is no such API key, or it was replaced by a newer one: ask who manages the keys")
        if (state := key.state(now)) != "active":
            what = "has expired" if state == "expired" else "was revoked"
            raise KeyRefused(f"the API key {key.name!r} {what}: ask who manages the keys for another one")
        return key

    async def _refresh(self) -> None:
        age = time.monotonic() - self._read_at
        if age > STALE:
            if time.monotonic() - self._tried_at < REREAD and age < OUTAGE:
                return  # the database did not answer a moment ago
            try:
                await self._reread()
            except (ViewUnavailable, TooBusy):
                if age > OUTAGE:
                    raise
        elif age > REREAD and (self._rereading is None or self._rereading.done()):
            self._rereading = asyncio.create_task(self._reread_quietly(), name="API keys")

    async def _reread_quietly(self) -> None:
        try:
            await self._reread()
        except (ViewUnavailable, TooBusy) as error:
            log.debug("the API keys could not be read: %s", error)

    async def _read(self) -> None:
        self._tried_at = began = time.monotonic()
        used, self._used = self._used, {}
        try:
            keys = await self._reads.call(self._read_rows, used)
        except (ViewUnavailable, TooBusy):
            self._used = used | self._used
            raise
        if began < self._read_at:
            return  # a later read was faster
        self._known = {key.hash: (key, None) for key in keys}
        self._known |= {key.old_hash: (key, key.old_until) for key in keys if key.old_hash is not None}
        self._buckets = {key.id: self._buckets[key.id] for key in keys if key.id in self._buckets}
        self._read_at = began

    def _read_rows(self, used: dict[str, float]) -> list[ApiKey]:
        keys = self._store.api_keys.all()
        last = {key.id: 0.0 if key.used_at is None else key.used_at.timestamp() for key in keys}
        if due := {key_id: at for key_id, at in used.items() if at - last.get(key_id, at) >= NOTED}:
            self._store.api_keys.note_used(due)
        return keys

    async def _changed(self, key_id: str) -> ApiKey:
        """Read the keys again, and return one."""
        await self._read()  # not the shared read, which may have begun before the change
        return next(key for key, _ in self._known.values() if key.id == key_id)

    async def _watch_open(self) -> None:
        while self._open:
            await asyncio.sleep(REREAD)
            await self._reread_quietly()
            for digest, waiting in list(self._open.items()):
                try:
                    self._valid(digest)
                except KeyRefused:
                    for each in waiting:
                        if not each.done():
                            each.set_result(None)


class _Bucket:
    """Counts the requests of a key in this process: ``rate`` in a second, and as many at once, at least one."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate)
        self._left = self._most
        self._at = time.monotonic()

    def take(self, key: ApiKey) -> None:
        """Count a request. Raises TooManyRequests."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            seconds = math.ceil((1.0 - self._left) / self._rate)
            raise TooManyRequests(
                f"the API key {key.name!r} may send {self._rate:g} requests in a second: try again in {seconds} s",
                retry_after=seconds,
            )
        self._left -= 1.0


def _new_key() -> tuple[str, bytes]:
    text = PREFIX + secrets.token_urlsafe(32)
    return text, hashlib.sha256(text.encode()).digest()


def _missing(key_id: str) -> KeyMissing:
    return KeyMissing(f"there is no API key {key_id} that is not revoked: `GET /keys` lists them")
