"""The events that the active projector has committed last, in memory, so that the relay need not read them again."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from jobtape.view.store import CommittedEvent, CommittedPage, FoldedBatch

MOST: Final = 5000
"""Events, and below the characters of their texts, above which they are dropped: the relay is far behind then, and
reads the view."""
MOST_TEXT: Final = 2**24


@dataclass(slots=True)
class RecentEvents:
    """The accepted events with one of ``names`` that were committed after the cursor ``after``, up to ``head``.

    ``after`` is None until a batch was added.
    """

    names: Collection[str]
    after: int | None = None
    head: int = 0
    _events: deque[CommittedEvent] = field(default_factory=deque)
    _text: int = 0

    def clear(self) -> None:
        """Forget everything: batches may be missed from now on."""
        self.after, self.head = None, 0
        self._events.clear()
        self._text = 0

    def add(self, batch: FoldedBatch, head: int) -> None:
        """Add the events of a batch that was committed, which ends at the cursor ``head``.

        Between two calls of ``clear`` every batch must be added. Of the first one only ``head`` counts.
        """
        self.head = head
        if self.after is None:
            self.after = head
            return
        jobs = {job.id: job for job in batch.jobs}
        for entry in batch.history:
            if entry.accepted and entry.name in self.names:
                job = jobs[entry.job_id]
                event = CommittedEvent(
                    entry.cursor,
                    entry.job_id,
                    entry.name,
                    entry.time,
                    entry.event,
                    entry.state,
                    job.type,
                    job.correlation_id,
                    job.reply_to,
                    job.labels or {},
                    job.traceparent,
                )
                self._events.append(event)
                self._text += len(entry.event)
        if len(self._events) > MOST or self._text > MOST_TEXT:
            self.clear()
            self.after = self.head = head

    def page(self, cursor: int, limit: int) -> CommittedPage | None:
        """Forget the events up to ``cursor``, and return the next ones; None when only the view has them."""
        if self.after is None or cursor < self.after:
            return None
        while self._events and self._events[0].cursor <= cursor:
            self._text -= len(self._events.popleft().event)
        self.after = cursor
        rows = [self._events[n] for n in range(min(limit, len(self._events)))]
        full = len(rows) < len(self._events)
        return CommittedPage(rows, rows[-1].cursor if full else max(cursor, self.head), full)
