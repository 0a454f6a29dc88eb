"""Folds everything that was ever on the tape into a new generation of the view, and lets that serve.

The old generation serves and grows meanwhile; ``view.rebuilds`` has the theory. What follows from events (effects) is
not done again, and nobody is told of them again: only the folded tables are made anew.
"""

import time
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from jobtape.consumer.folding import fold_archived
from jobtape.schemas.errors import JobtapeError, ViewUnavailable
from jobtape.view.comparing import Comparing
from jobtape.view.rebuilds import PAGE
from jobtape.view.store import Archived, Differences, Rebuild, Store

Report = Callable[[float, str], None]
"""Takes a fraction from 0 to 1 and a few words."""

MOST_PAUSE: Final = 0.05
SWITCH_TRIES: Final = 100
SWITCH_PAUSE: Final = 0.2


class Interrupted(JobtapeError):
    """The time that was given is up; called again, it goes on where it is."""


class TakenOver(JobtapeError):
    """Another process rebuilds the same view."""


@dataclass(slots=True)
class Rebuilding:
    """One process's part in a rebuild of ``store``.

    ``until``: a time of ``time.monotonic``, at which Interrupted is raised.
    """

    store: Store
    report: Report
    until: float
    events: int = 0
    _began: float = field(default_factory=time.monotonic)

    async def from_stream(self, rebuild: Rebuild, messages: AsyncIterable[Sequence[Archived]]) -> Rebuild:
        """Fold ``messages``, which lead up to where the serving view has come."""
        async for entries in messages:
            rebuild = self._fold(rebuild, entries)
        return rebuild

    def from_archive(self, rebuild: Rebuild) -> Rebuild:
        """Fold what the serving history has and this generation has not, up to its present end."""
        while entries := self.store.rebuilds.archive(rebuild.cursor):
            rebuild = self._fold(rebuild, entries)
            if len(entries) < PAGE:
                break
        return rebuild

    def differences(self, rebuild: Rebuild, examples: int) -> Differences:
        """What the new generation tells differently from the serving one, of the jobs at rest."""
        self.report(0.95, "comparing")
        comparing = Comparing(self.store.rebuilds.database, rebuild, examples)
        while comparing.step():
            self._check_time()
        return comparing.found

    def switch(self, rebuild: Rebuild) -> Rebuild:
        """Let the new generation serve, however fast the old one grows."""
        self.report(0.98, "switching")
        for _ in range(SWITCH_TRIES):
            rebuild = self.from_archive(rebuild)
            with suppress(ViewUnavailable):  # somebody held a lock for too long
                done = self.store.rebuilds.switch(rebuild, fold_archived)
                if done is not None:
                    return done
            self._check_time()
            self._check_ours(rebuild)
            time.sleep(SWITCH_PAUSE)
        raise ViewUnavailable(
            "the switch did not come about: the database is busy; the rebuild goes on when tried again"
        )

    def _fold(self, rebuild: Rebuild, entries: Sequence[Archived]) -> Rebuild:
        began = time.monotonic()
        batch = fold_archived(entries, lambda ids: self.store.rebuilds.known(rebuild, ids))
        moved = self.store.rebuilds.commit(rebuild, batch, entries[-1].cursor)
        if moved is None:
            raise TakenOver("another process rebuilds this view: see `jobtape list --type jobtape.rebuild`")
        self.events += len(entries)
        self._tell(moved)
        if self.store.dialect == "sqlite":
            # SQLite has one writer, and lets nobody wait in line: leave the projector its turn.
            time.sleep(min(MOST_PAUSE, time.monotonic() - began))
        self._check_time()
        return moved

    def _tell(self, rebuild: Rebuild) -> None:
        took = max(1e-6, time.monotonic() - self._began)
        rate = self.events / took
        left = self.store.rebuilds.ahead(rebuild.cursor)
        fraction = 0.95 * self.events / (self.events + left)
        self.report(fraction, f"{self.events} events, {rate:.0f}/s, about {left / max(rate, 1e-6):.0f} s left")

    def _check_time(self) -> None:
        if time.monotonic() > self.until:
            raise Interrupted("the rebuild goes on in its next attempt")

    def _check_ours(self, rebuild: Rebuild) -> None:
        if self.store.rebuilds.state() != rebuild:
            raise TakenOver("another process rebuilds this view: see `jobtape list --type jobtape.rebuild`")
