"""API keys: what each may do, and the hash by which it is recognised.

They are no part of the fold, so a rebuild does not change them. A key is 256 random bits, so nobody can guess it from
its hash, and one SHA-256 is enough: slow hashes are for passwords that people choose, and would cost each request.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import func, select, update

from jobtape.schemas.access import Scope
from jobtape.view import tables
from jobtape.view.rows import storable
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

MOST_KEYS: Final = 10_000

_table = tables.api_keys
_c = tables.api_keys.c


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without itself. ``types``: the job types that it is limited to; none means all. ``rate``: requests in a
    second, None for any number. ``used_at``: when it was used last, to a minute.
    """

    id: str
    name: str
    hash: bytes
    old_hash: bytes | None
    old_until: datetime | None
    scopes: frozenset[Scope]
    types: frozenset[str]
    rate: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Return whether requests with it are answered: only while it is active."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class ApiKeys(StorePart):
    """Reads and writes API keys."""

    def all(self) -> list[ApiKey]:
        """Return all keys, the oldest first, also those that have expired or were revoked."""
        with self.database.reading() as connection:
            return [_key(row) for row in connection.execute(select(_table).order_by(_c.created_at, _c.id)).all()]

    def create(
        self,
        key_id: str,
        name: str,
        key_hash: bytes,
        scopes: Collection[Scope],
        types: Collection[str],
        rate: float | None,
        expires_at: datetime | None,
    ) -> bool:
        """Write a new key. Returns False, and writes nothing, when there are ``MOST_KEYS``."""
        row = {
            "id": key_id,
            "name": storable(name),
            "hash": key_hash,
            "scopes": json.dumps(sorted(scopes)),
            "types": json.dumps(sorted(types)),
            "rate": rate,
            "expires_at": None if expires_at is None else expires_at.timestamp(),
        }
        with self.database.writing() as connection:
            if connection.execute(select(func.count()).select_from(_table)).scalar_one() >= MOST_KEYS:
                return False
            connection.execute(_table.insert().values(created_at=NOW, **row))
            return True

    def rotate(self, key_id: str, key_hash: bytes, overlap: float) -> bool:
        """Give a key that is not revoked a new hash. The old one is valid for ``overlap`` seconds more.

        Returns False when there is no such key.
        """
        changed = update(_table).where(_c.id == key_id, _c.revoked_at.is_(None))
        with self.database.writing() as connection:
            values = {"hash": key_hash, "old_hash": _c.hash, "old_until": NOW + overlap}
            return connection.execute(changed.values(**values)).rowcount == 1

    def revoke(self, key_id: str) -> bool:
        """Let no more requests with a key be answered. Returns False when there is no such key."""
        values = {"revoked_at": func.coalesce(_c.revoked_at, NOW)}
        with self.database.writing() as connection:
            return connection.execute(update(_table).where(_c.id == key_id).values(**values)).rowcount == 1

    def note_used(self, used: Mapping[str, float]) -> None:
        """Note when keys were used, by id, in seconds since 1970. A later time that is known already stays."""
        with self.database.writing() as connection:
            for key_id, at in sorted(used.items()):
                known = update(_table).where(_c.id == key_id, func.coalesce(_c.used_at, 0.0) < at)
                connection.execute(known.values(used_at=at))


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        hash=bytes(row.hash),
        old_hash=None if row.old_hash is None else bytes(row.old_hash),
        old_until=_time(row.old_until),
        scopes=frozenset(map(Scope, json.loads(row.scopes))),
        types=frozenset(json.loads(row.types)),
        rate=row.rate,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        expires_at=_time(row.expires_at),
        revoked_at=_time(row.revoked_at),
        used_at=_time(row.used_at),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
