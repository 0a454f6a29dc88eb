"""Listeners that have read everything so far, asleep until something comes that matches.

Theory of operation. A thousand listeners who want nothing of what happens must cost nothing while it happens. So it is
not they who look at each event: they are kept here in groups of one filter each, and an event is held against the
filter of each group, once. Filters for one job, as most are, are found by the event's job and not looked at otherwise.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from jobtape.producer.live.event_buffer import BufferedEvent
from jobtape.schemas.selection import Selection

Woken = asyncio.Future[int | None]
"""The cursor up to which nothing was wanted; None when that cannot be said."""

_Key = tuple[frozenset[str], frozenset[str], str | None, frozenset[tuple[str, str]], str | None]


class _Group:
    """All who sleep with one filter."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.sleepers: set[Woken] = set()


class Waiters:
    """The groups."""

    def __init__(self) -> None:
        self._general: dict[_Key, _Group] = {}
        self._by_job: dict[str, dict[_Key, _Group]] = {}

    @contextmanager
    def sleeping(self, selection: Selection) -> Iterator[Woken]:
        """What becomes done when an event comes that ``selection`` wants, or when everybody is woken."""
        key = _key(selection)
        groups = self._general if selection.job is None else self._by_job.setdefault(selection.job, {})
        group = groups.setdefault(key, _Group(selection))
        woken: Woken = asyncio.get_running_loop().create_future()
        group.sleepers.add(woken)
        try:
            yield woken
        finally:
            group.sleepers.discard(woken)
            if not group.sleepers and groups.get(key) is group:
                del groups[key]
                if selection.job is not None and not groups:
                    del self._by_job[selection.job]

    def tell(self, entries: Sequence[BufferedEvent], received: int) -> None:
        """Wake the waiters that one of ``entries`` matches; all had read up to the cursor ``received``."""
        for group in self._general.values():
            if any(entry.row.wanted_by(group.selection) for entry in entries):
                _wake(group, received)
        if self._by_job:
            for entry in entries:
                for group in self._by_job.get(entry.row.job_id, {}).values():
                    if entry.row.wanted_by(group.selection):
                        _wake(group, received)

    def wake_all(self) -> None:
        """Let everybody look for themselves."""
        for group in self._all():
            _wake(group, None)

    def _all(self) -> Iterable[_Group]:
        yield from self._general.values()
        for groups in self._by_job.values():
            yield from groups.values()


def _wake(group: _Group, received: int | None) -> None:
    for sleeper in group.sleepers:
        if not sleeper.done():
            sleeper.set_result(received)


def _key(selection: Selection) -> _Key:
    labels = frozenset(selection.labels.items())
    return selection.events, selection.types, selection.job, labels, selection.correlation_id
