"""Folds the whole history into a new generation of the view, and lets it replace the serving one.

The serving generation is read and written meanwhile; ``view.maintenance.rebuilds`` explains how. Only the folded
tables are built: no work is placed, and subscribers get no event again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from jobtape.consumer.folding import fold_messages
from jobtape.consumer.replays.by_job import fold_by_job, pause_after
from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.schemas.errors import JobtapeError, ViewUnavailable
from jobtape.view.maintenance.comparison import ViewComparison
from jobtape.view.maintenance.rebuilds import PAGE
from jobtape.view.sql.paging import PAGE_BYTES
from jobtape.view.store import Differences, RawMessage, RebuildState, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

SWITCH_TRIES: Final = 100
FIRST_SWITCH_PAUSE: Final = 0.2
LONGEST_SWITCH_PAUSE: Final = 5.0
SWITCH_PAUSE_GROWTH: Final = 1.5


class RebuildAbandoned(JobtapeError):
    """Another rebuild of the view has replaced this one. It is not tried again, or the two would replace each other."""


@dataclass(slots=True)
class Rebuilder:
    """The work of one process on a rebuild of ``store``.

    All methods raise ViewUnavailable, Interrupted when the slice is over, TakenOver when another process works on the
    same rebuild or has ended it, and RebuildAbandoned.
    """

    store: Store
    task_slice: TaskSlice

    async def from_stream(
        self, rebuild: RebuildState, messages: AsyncGenerator[Sequence[RawMessage], None]
    ) -> RebuildState:
        """Fold ``messages``, which lead up to the checkpoint of the serving view.

        A thread folds a page while the next one is read.
        """
        threads = DatabaseThreads("rebuild")
        folding: asyncio.Future[RebuildState] | None = None
        try:
            async with aclosing(messages):
                async for entries in messages:
                    rebuild = rebuild if folding is None else await folding
                    folding = threads.call(self._fold, rebuild, entries)
            return rebuild if folding is None else await folding
        finally:
            await threads.join()

    def from_archive(self, rebuild: RebuildState) -> RebuildState:
        """Fold the serving history after ``rebuild``, and remove the jobs that were pruned meanwhile."""
        rebuild = self._by_job(rebuild)
        while entries := self.store.rebuilds.archive(rebuild.cursor):
            rebuild = self._fold(rebuild, entries)
            if len(entries) < PAGE and sum(len(entry.body) for entry in entries) < PAGE_BYTES:
                break
        while self.store.rebuilds.remove_pruned(rebuild):
            self.task_slice.check()
        return rebuild

    def differences(self, rebuild: RebuildState, examples: int) -> Differences:
        """Compare the jobs of both generations, without those with events since, with at most ``examples`` examples."""
        self.task_slice.report(0.95, "comparing")
        comparison = ViewComparison(self.store.rebuilds.database, rebuild, examples)
        try:
            while comparison.step():
                self.task_slice.check()
        except Interrupted:
            comparison.save()
            raise
        # The tables of another rebuild have the same names, so they may have been compared.
        if self.store.rebuilds.state() != rebuild:
            raise self._lost(rebuild)
        return comparison.found

    def switch(self, rebuild: RebuildState) -> RebuildState:
        """Let the new generation replace the serving one, however fast that grows."""
        self.task_slice.report(0.98, "switching")
        pause = FIRST_SWITCH_PAUSE
        for _ in range(SWITCH_TRIES):
            rebuild = self.from_archive(rebuild)
            switched = self._try_to_switch(rebuild)
            if switched is not None:
                self._clean_up()
                return switched
            self.task_slice.check()
            if self.store.rebuilds.state() != rebuild:
                raise self._lost(rebuild)
            time.sleep(pause)
            pause = min(LONGEST_SWITCH_PAUSE, pause * SWITCH_PAUSE_GROWTH)
        raise ViewUnavailable(
            "the switch did not succeed in many tries, because the database is busy or new events come too fast; "
            "run the rebuild again, and it continues"
        )

    def abandon(self, rebuild: RebuildState) -> None:
        """Remove the new generation."""
        self.store.rebuilds.abandon(rebuild)
        self._clean_up()

    def _try_to_switch(self, rebuild: RebuildState) -> RebuildState | None:
        try:
            return self.store.rebuilds.switch(rebuild, fold_messages)
        except ViewUnavailable as error:
            # Another connection held a lock for too long; or the switch was committed, and only the answer was lost.
            log.info("it is not known whether the switch happened: %s", error)
            return rebuild if self.store.rebuilds.has_switched(rebuild) else None

    def _clean_up(self) -> None:
        try:
            self.store.rebuilds.clean_up()
        except ViewUnavailable as error:
            log.warning("unused tables stay until the next rebuild removes them: %s", error)

    def _by_job(self, rebuild: RebuildState) -> RebuildState:
        """Finish the part of ``rebuild`` that is folded job by job."""
        while rebuild.by_job is not None and rebuild.by_job.job_id == "":
            entries = self.store.rebuilds.unreadable_archive(rebuild.by_job)
            if not entries:
                break
            batch = fold_messages(entries, lambda ids: {})
            if batch.history:
                # This version can read what an earlier one could not. It is known now of which jobs these events are,
                # so fold everything in the order of the tape.
                self.store.rebuilds.abandon(rebuild)
                return self.store.rebuilds.begin(rebuild.key)
            rebuild = self._moved(
                rebuild,
                self.store.rebuilds.commit_by_job(rebuild, batch, replace(rebuild.by_job, event=entries[-1].cursor)),
            )
        if rebuild.by_job is None:
            return rebuild
        return self._moved(rebuild, fold_by_job(self.store, rebuild, self.task_slice))

    def _moved(self, before: RebuildState, after: RebuildState | None) -> RebuildState:
        if after is None:
            raise self._lost(before)
        return after

    def _fold(self, rebuild: RebuildState, entries: Sequence[RawMessage]) -> RebuildState:
        batch = fold_messages(entries, partial(self.store.rebuilds.known, rebuild), self.store.retention.gone)
        started = time.monotonic()
        moved = self._moved(rebuild, self.store.rebuilds.commit(rebuild, batch, entries[-1].cursor))
        time.sleep(pause_after(self.store, time.monotonic() - started))
        self.task_slice.add(len(entries), self.store.rebuilds.remaining(moved.cursor))
        self.task_slice.check()
        return moved

    def _lost(self, rebuild: RebuildState) -> JobtapeError:
        now = self.store.rebuilds.state()
        if now is not None and now.key != rebuild.key:
            return RebuildAbandoned(
                "another rebuild of this view has started: see `jobtape list --type jobtape.rebuild`"
            )
        return TakenOver("another process works on this rebuild: see `jobtape list --type jobtape.rebuild`")
