"""Placements of work as the history has them: those that followed from work that the broker dropped.

They are rare, and neither read has an index of its own: the one reads single jobs' events, the other the newest events.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, select

from jobtape.schemas.events import Dropped, Requeued, decode
from jobtape.schemas.job import Job
from jobtape.view import outbox, tables

RECENT: Final = 2000
"""Events that are looked through for recent drops."""

_entry = tables.history.c


def dropped_of(connection: Connection, jobs: Collection[Job]) -> Mapping[str, int]:
    """How many placements of each job's present run followed from work that the broker dropped, by id."""
    runs = {job.id: job.run for job in jobs}
    rows = select(_entry.event).where(_entry.job_id.in_(runs), _entry.name == Requeued.name)
    numbers: dict[str, set[int]] = {}
    for text in connection.execute(rows).scalars():
        event = decode(text.encode())
        if isinstance(event, Requeued) and event.data.dropped is not None and event.data.run == runs[event.subject]:
            numbers.setdefault(event.subject, set()).add(event.data.n)
    return {job_id: len(found) for job_id, found in numbers.items()}


def recent_drops(connection: Connection) -> Mapping[tuple[str, Dropped], int]:
    """How often work was dropped, by queue and reason, among the newest events and what waits to be placed again."""
    newest = select(_entry.name, _entry.event).order_by(_entry.cursor.desc()).limit(RECENT)
    texts = [text for name, text in connection.execute(newest).all() if name == Requeued.name]
    texts += outbox.newest_events(connection, RECENT)
    events = (decode(text.encode()) for text in texts)
    found = {
        event.id: (event.data.order.queue, event.data.dropped)
        for event in events
        if isinstance(event, Requeued) and event.data.dropped is not None
    }
    return Counter(found.values())
