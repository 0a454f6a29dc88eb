"""The endpoints of webhooks: where events are delivered, and up to which cursor they have become deliveries.

They are no part of the fold: a rebuild neither changes them nor delivers anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, case, delete, func, select, true, update

from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import JobState
from jobtape.schemas.job_types.job_type import WEBHOOK_QUEUE
from jobtape.schemas.webhooks.delivery import WEBHOOK, WEBHOOK_LABEL, BodyKind
from jobtape.view import checkpoint, tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

OLD_SECRET: Final = 86_400.0
"""Seconds for which the old secret signs too after a new one was made."""
DISABLE_AFTER: Final = 5 * 86_400.0
"""Seconds of failures only after which an endpoint is disabled."""
MOST_BEHIND: Final = 10_000
"""Events up to which those that an endpoint has before it are counted."""

_table = tables.webhooks
_c = tables.webhooks.c


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint. ``secrets``: encrypted, the newest first; more than one for a day after a rotation."""

    id: str
    url: str
    description: str
    filter: EventFilter
    body: BodyKind
    secrets: tuple[bytes, ...]
    cursor: int
    replay_to: int
    revision: int
    enabled: bool
    disabled_because: str | None
    failing_since: datetime | None
    last_error: str | None
    created_at: datetime

    @property
    def state(self) -> Literal["active", "failing", "disabled"]:
        """Failing: the latest attempt that has ended failed."""
        if not self.enabled:
            return "disabled"
        return "active" if self.failing_since is None else "failing"


@dataclass(frozen=True, slots=True)
class WebhookLag:
    """``seconds``: the age of the first event that is no delivery yet, 0 without one; None for a disabled endpoint."""

    webhook: Webhook
    seconds: float | None


class Webhooks(StorePart):
    """Reads and writes endpoints."""

    def all(self) -> list[Webhook]:
        """Return all endpoints, the oldest first."""
        return self._read(true())

    def enabled(self) -> list[Webhook]:
        """Return the endpoints that get events."""
        return self._read(_c.enabled)

    def read(self, webhook_id: str) -> Webhook | None:
        """Return one endpoint, or None."""
        return next(iter(self._read(_c.id == webhook_id)), None)

    def waiting_deliveries(self) -> list[tuple[str, str]]:
        """Return the ids of deliveries that wait or run, each with that of its endpoint; none that will be retried."""
        job, label = tables.jobs.c, tables.job_labels.c
        waiting = (
            select(job.id, label.value)
            .join(tables.job_labels, (label.job_id == job.id) & (label.name == WEBHOOK_LABEL))
            .where(tables.OPEN_ON[self.database.dialect], job.queue == WEBHOOK_QUEUE, job.type == WEBHOOK)
            .where(job.state != JobState.RETRYING.value, ~job.imported)
        )
        with self.database.reading() as connection:
            return [(row.id, row.value) for row in connection.execute(waiting).all()]

    def behind(self, cursor: int) -> int:
        """Return the number of accepted events after the cursor, at most ``MOST_BEHIND``."""
        event = tables.history.c
        later = select(event.cursor).where(event.cursor > cursor, event.accepted).limit(MOST_BEHIND)
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(later.subquery())).scalar_one()

    def lags(self, now: datetime) -> list[WebhookLag]:
        """Return how late each endpoint is at ``now``, the oldest endpoint first."""
        found: list[WebhookLag] = []
        # Most endpoints are at the same cursor.
        seconds: dict[int, float] = {}
        event = tables.history.c
        for webhook in self.all():
            if webhook.enabled and webhook.cursor not in seconds:
                later = select(event.time).where(event.cursor > webhook.cursor, event.accepted)
                with self.database.reading() as connection:
                    first = connection.execute(later.order_by(event.cursor).limit(1)).scalar()
                seconds[webhook.cursor] = 0.0 if first is None else max(0.0, (now - first).total_seconds())
            found.append(WebhookLag(webhook, seconds[webhook.cursor] if webhook.enabled else None))
        return found

    def create(
        self,
        webhook_id: str,
        url: str,
        description: str,
        wanted: EventFilter,
        body: BodyKind,
        secret: bytes,
        cursor: int,
    ) -> None:
        """Write a new endpoint, which gets the events after ``cursor``. ``secret``: encrypted."""
        row = {
            "id": webhook_id,
            "url": url,
            "description": storable(description),
            "filter": wanted.model_dump_json(),
            "body": body,
            "secret": secret,
            "cursor": cursor,
        }
        with self.database.writing() as connection:
            connection.execute(_table.insert().values(created_at=NOW, **row))

    def change(self, webhook_id: str, values: Mapping[str, Any]) -> bool:
        """Change columns of an endpoint; return False when there is none. ``filter`` is an EventFilter."""
        given = dict(values)
        if isinstance(wanted := given.get("filter"), EventFilter):
            given["filter"] = wanted.model_dump_json()
        return self._change(webhook_id, given)

    def enable(self, webhook_id: str, cursor: int) -> bool:
        """Let an endpoint get the events after ``cursor``, unless it is enabled; return False when there is none."""
        values = {
            "cursor": case((_c.enabled, _c.cursor), else_=cursor),
            "enabled": True,
            "disabled_because": None,
            "failing_since": case((_c.enabled, _c.failing_since), else_=None),
        }
        return self._change(webhook_id, values)

    def disable(self, webhook_id: str, because: str) -> bool:
        """Let an endpoint get no more events; return False when there is none."""
        return self._change(webhook_id, {"enabled": False, "disabled_because": because})

    def rotate(self, webhook_id: str, secret: bytes) -> bool:
        """Give an endpoint a new secret. The old one also signs for ``OLD_SECRET`` seconds."""
        return self._change(webhook_id, {"secret": secret, "old_secret": _c.secret, "old_until": NOW + OLD_SECRET})

    def replace_secrets(self, webhook_id: str, known: Sequence[bytes], changed: Sequence[bytes]) -> bool:
        """Write secrets that were encrypted again, if ``known`` are those of the endpoint. Returns whether."""
        old, new_old = (known[1], changed[1]) if len(known) > 1 else (None, None)
        statement = update(_table).where(_c.id == webhook_id, _c.secret == known[0])
        if old is not None:
            statement = statement.where(_c.old_secret == old)
        with self.database.writing() as connection:
            return connection.execute(statement.values(secret=changed[0], old_secret=new_old)).rowcount == 1

    def replay(self, webhook_id: str, cursor: int, replay_to: int) -> bool:
        """Go back to ``cursor``, and make deliveries again that have failed, up to ``replay_to``.

        Never goes forward. Returns False when there is no such endpoint, or it is disabled.
        """
        statement = (
            update(_table)
            .where(_c.id == webhook_id, _c.enabled)
            .values(
                cursor=case((_c.cursor > cursor, cursor), else_=_c.cursor),
                replay_to=bulk.greater(_c.replay_to, replay_to),
                revision=_c.revision + 1,
            )
        )
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount == 1

    def delete(self, webhook_id: str) -> bool:
        """Remove an endpoint; return False when there is none."""
        with self.database.writing() as connection:
            return connection.execute(delete(_table).where(_c.id == webhook_id)).rowcount == 1

    def move(self, owner: str, moved: Mapping[str, tuple[int, int]]) -> bool:
        """Move endpoints forward: by id, the revision that is known and the cursor. Others stay where they are.

        Returns False, and writes nothing, when ``owner`` is not the active projector.
        """
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            for webhook_id, (revision, cursor) in moved.items():
                known = update(_table).where(_c.id == webhook_id, _c.revision == revision, _c.cursor < cursor)
                connection.execute(known.values(cursor=cursor))
            return True

    def note_success(self, webhook_id: str) -> None:
        """Note that a delivery has succeeded."""
        with self.database.writing() as connection:
            healed = update(_table).where(_c.id == webhook_id).values(failing_since=None, last_error=None)
            connection.execute(healed)

    def note_failure(self, webhook_id: str, error: str) -> bool:
        """Note that an attempt has failed, and disable an endpoint that has failed for ``DISABLE_AFTER`` seconds.

        Returns whether that was done.
        """
        since = func.coalesce(_c.failing_since, NOW)
        failed = update(_table).where(_c.id == webhook_id).values(failing_since=since, last_error=storable(error))
        too_long = (_c.id == webhook_id) & _c.enabled & (_c.failing_since < NOW - DISABLE_AFTER)
        because = "every attempt of the last five days failed"
        with self.database.writing() as connection:
            connection.execute(failed)
            disabled = update(_table).where(too_long).values(enabled=False, disabled_because=because)
            return connection.execute(disabled).rowcount == 1

    def _change(self, webhook_id: str, values: Mapping[str, Any]) -> bool:
        statement = update(_table).where(_c.id == webhook_id).values(**values, revision=_c.revision + 1)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount == 1

    def _read(self, condition: ColumnElement[bool]) -> list[Webhook]:
        signs = ((_c.old_until > NOW) & _c.old_secret.is_not(None)).label("old_signs")
        with self.database.reading() as connection:
            rows = connection.execute(select(_table, signs).where(condition).order_by(_c.id)).all()
        return [_webhook(row) for row in rows]


def _webhook(row: Any) -> Webhook:
    secrets = [row.secret, row.old_secret] if row.old_signs else [row.secret]
    return Webhook(
        id=row.id,
        url=row.url,
        description=row.description,
        filter=EventFilter.model_validate_json(row.filter),
        body=row.body,
        secrets=tuple(bytes(secret) for secret in secrets),
        cursor=row.cursor,
        replay_to=row.replay_to,
        revision=row.revision,
        enabled=row.enabled,
        disabled_because=row.disabled_because,
        failing_since=None if row.failing_since is None else datetime.fromtimestamp(row.failing_since, UTC),
        last_error=row.last_error,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
    )
