"""Listeners that have read everything so far, and sleep until an event matches their filter.

Theory of operation. A thousand listeners whose filters match nothing must cost nothing while events come. So the
listeners do not check events: they are kept here in groups with one filter each, and each event is checked once for
each group. Filters for one job, which most are, are found by the event's job and not checked otherwise.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import ENDINGS
from jobtape.view.store import CommittedEvent

Woken = asyncio.Future[int | None]
"""Its result is the cursor up to which no event matched, or None when that is not known."""

_Key = tuple[frozenset[str], frozenset[str], str | None, frozenset[tuple[str, str]], str | None]


class _Group:
    """All sleepers with one filter."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.sleepers: set[Woken] = set()


class Waiters:
    """All sleepers of a process."""

    def __init__(self) -> None:
        self._general: dict[_Key, _Group] = {}
        self._by_job: dict[str, dict[_Key, _Group]] = {}

    @contextmanager
    def sleeping(self, selection: Selection) -> Iterator[Woken]:
        """Yield a future that is done when an event matches ``selection``, or when all are woken."""
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

    def wake_matching(self, entries: Sequence[CommittedEvent], received: int) -> None:
        """Wake the sleepers whose filter matches one of ``entries``. All had read up to the cursor ``received``."""
        for group in self._general.values():
            if any(entry.wanted_by(group.selection) for entry in entries):
                _wake(group, received)
        if self._by_job:
            for entry in entries:
                for group in self._by_job.get(entry.job_id, {}).values():
                    if entry.wanted_by(group.selection):
                        _wake(group, received)

    def wake_jobs(self, jobs: Mapping[str, bool]) -> None:
        """Wake the sleepers whose filter is for one of ``jobs``, by id whether the job has ended. Those that want only
        the events with which jobs end sleep on until then.
        """
        if self._by_job:
            for job, ended in jobs.items():
                for group in self._by_job.get(job, {}).values():
                    if ended or group.selection.events != ENDINGS:
                        _wake(group, None)

    def wake_all(self) -> None:
        """Wake all sleepers, so that each compares its position with the history."""
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
