"""Folds everything that was ever on the tape into a new generation of the view, and lets that serve.

The old generation serves and grows meanwhile; ``view.rebuilds`` has the theory. What follows from events (effects) is
not done again, and subscribers do not get them again: only the folded tables are built.
"""

import logging
import time
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from jobtape.consumer.folding import fold_archived
from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.schemas.errors import JobtapeError, ViewUnavailable
from jobtape.view.comparison import ViewComparison
from jobtape.view.rebuilds import PAGE
from jobtape.view.sql.paging import PAGE_BYTES
from jobtape.view.store import Archived, Differences, Rebuild, Store

log = logging.getLogger(__name__)

MOST_PAUSE: Final = 0.05
SWITCH_TRIES: Final = 100
SWITCH_PAUSE: Final = 0.2
SWITCH_LONGEST: Final = 5.0
SWITCH_GROWTH: Final = 1.5


class RebuildAbandoned(JobtapeError):
    """Another rebuild of the view was begun. Begun again, the two would give up each other for ever."""


@dataclass(slots=True)
class ViewRebuild:
    """One process's part in a rebuild of ``store``. All raise ViewUnavailable, Interrupted when the slice is over,
    TakenOver when another process is at the same rebuild, or has ended it, and GivenUp.
    """

    store: Store
    part: TaskSlice

    async def from_stream(self, rebuild: Rebuild, messages: AsyncIterable[Sequence[Archived]]) -> Rebuild:
        """Fold ``messages``, which lead up to where the serving view has come."""
        async for entries in messages:
            rebuild = self._fold(rebuild, entries)
        return rebuild

    def from_archive(self, rebuild: Rebuild) -> Rebuild:
        """Fold what the serving history has and this generation has not, up to its present end; without the jobs that
        were let go meanwhile.
        """
        while entries := self.store.rebuilds.archive(rebuild.cursor):
            rebuild = self._fold(rebuild, entries)
            if len(entries) < PAGE and sum(len(entry.body) for entry in entries) < PAGE_BYTES:
                break
        while self.store.rebuilds.remove_pruned(rebuild):
            self.part.check()
        return rebuild

    def differences(self, rebuild: Rebuild, examples: int) -> Differences:
        """Return what differs between the new generation and the serving one, for jobs at rest."""
        self.part.report(0.95, "comparing")
        comparing = ViewComparison(self.store.rebuilds.database, rebuild, examples)
        try:
            while comparing.step():
                self.part.check()
        except Interrupted:
            comparing.save()
            raise
        # Another one's tables have the same names: what was compared may be those.
        self._check_ours(rebuild)
        return comparing.found

    def switch(self, rebuild: Rebuild) -> Rebuild:
        """Let the new generation serve, however fast the old one grows."""
        self.part.report(0.98, "switching")
        pause = SWITCH_PAUSE
        for _ in range(SWITCH_TRIES):
            rebuild = self.from_archive(rebuild)
            done = self._try_to_switch(rebuild)
            if done is not None:
                self._clean_up()
                return done
            self.part.check()
            self._check_ours(rebuild)
            time.sleep(pause)
            pause = min(SWITCH_LONGEST, pause * SWITCH_GROWTH)
        raise ViewUnavailable(
            "the switch did not come about: the database is busy; the rebuild goes on when tried again"
        )

    def give_up(self, rebuild: Rebuild) -> None:
        """Remove what was made."""
        self.store.rebuilds.give_up(rebuild)
        self._clean_up()

    def _try_to_switch(self, rebuild: Rebuild) -> Rebuild | None:
        try:
            return self.store.rebuilds.switch(rebuild, fold_archived)
        except ViewUnavailable as error:
            # Somebody held a lock for too long; or it was committed, and only the answer is lost.
            log.info("the switch is in doubt: %s", error)
            return rebuild if self.store.rebuilds.has_switched(rebuild) else None

    def _clean_up(self) -> None:
        try:
            self.store.rebuilds.clean_up()
        except ViewUnavailable as error:
            log.warning("tables that serve no more are left for the next rebuild to remove: %s", error)

    def _fold(self, rebuild: Rebuild, entries: Sequence[Archived]) -> Rebuild:
        began = time.monotonic()
        batch = fold_archived(entries, partial(self.store.rebuilds.known, rebuild), self.store.retention.gone)
        moved = self.store.rebuilds.commit(rebuild, batch, entries[-1].cursor)
        if moved is None:
            raise self._lost(rebuild)
        self.part.tell(len(entries), self.store.rebuilds.remaining(moved.cursor))
        if self.store.dialect == "sqlite":
            # SQLite has one writer, and lets nobody wait in line: leave the projector its turn.
            time.sleep(min(MOST_PAUSE, time.monotonic() - began))
        self.part.check()
        return moved

    def _check_ours(self, rebuild: Rebuild) -> None:
        if self.store.rebuilds.state() != rebuild:
            raise self._lost(rebuild)

    def _lost(self, rebuild: Rebuild) -> JobtapeError:
        now = self.store.rebuilds.state()
        if now is not None and now.key != rebuild.key:
            return RebuildAbandoned("another rebuild of this view was begun: see `jobtape list --type jobtape.rebuild`")
        return TakenOver("another process is at this rebuild: see `jobtape list --type jobtape.rebuild`")
