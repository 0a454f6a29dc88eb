"""Redrives or cancels all jobs of a filter, a page at a time.

Theory of operation. A page's jobs, with their runs, are written to the state of the task before their events are
published. If the process dies, the next one publishes the same events for the same runs again: they have the same ids,
so the fold takes each once. When the view has folded them, it says what became of the jobs, which is counted, and the
next page begins. Jobs that are submitted meanwhile have higher ids than the first page, and are not in a later one.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from jobtape.broker.link import Link
from jobtape.broker.publisher import Publisher
from jobtape.consumer.replays.long_task import TakenOver, TaskSlice
from jobtape.schemas.events import Cancelled, Redriven
from jobtape.schemas.events.interventions import cancelled, redriven
from jobtape.schemas.job import Job, JobRun, JobState
from jobtape.schemas.topology import CANCEL_KEY, Topology
from jobtape.view.store import JobQuery, Store
from jobtape.view.threads import DatabaseThreads

PAGE: Final = 500
"""Jobs that are read at once."""
FIRST_POLL, LONGEST_POLL = 0.005, 0.25
"""Seconds between two checks whether the view has folded the events."""


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to each job. ``event`` makes the event of a run. ``done``: whether it took effect on the job."""

    event: Callable[..., Redriven | Cancelled]
    keys: tuple[str, ...]
    done: Callable[[Job, JobRun], bool]


REDRIVE: Final = Action(redriven, (), lambda job, before: job.run > before.run)
CANCEL: Final = Action(
    cancelled, (CANCEL_KEY,), lambda job, before: job.run == before.run and job.state is JobState.CANCELLED
)


@dataclass(frozen=True, slots=True)
class Bulk:
    """Which jobs to act on: those of ``query``, at most its ``limit``.

    ``name`` identifies this run of the built-in job. ``cause``: the id of the event that asks for it.
    """

    name: str
    action: Action
    query: JobQuery
    cause: str | None


async def run_bulk(url: str, topology: Topology, store: Store, bulk: Bulk, task_slice: TaskSlice) -> dict[str, Any]:
    """Act on all jobs that are left, and return the state with the counts.

    Raises BrokerUnavailable, TapeMissing, ViewUnavailable, Interrupted and TakenOver.
    """
    publisher = Publisher(Link(url, name=f"{topology.namespace} bulk {bulk.name}"), topology)
    publisher.link.start()
    threads = DatabaseThreads("bulk")
    try:
        return await BulkRun(publisher, store, bulk, task_slice, threads).run()
    finally:
        await publisher.close()
        await threads.join()


class BulkRun:
    """Continues where an earlier process has stopped, also if that was the end."""

    def __init__(
        self, publisher: Publisher, store: Store, bulk: Bulk, task_slice: TaskSlice, threads: DatabaseThreads
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._bulk = bulk
        self._slice = task_slice
        self._call = threads.call
        self._process = f"bulk-{uuid4().hex}"
        self._barriers = 0
        self._state: dict[str, Any] = {}

    async def run(self) -> dict[str, Any]:
        """See ``run_bulk``."""
        # What was on the tape when the job was submitted counts.
        await self._catch_up()
        await self._begin()
        earlier = self._state["scanned"]
        while not self._state["done"]:
            if not self._state["page"]:
                await self._choose()
            if self._state["page"]:
                await self._act()
            state = self._state
            self._slice.add(
                state["scanned"] - earlier - self._slice.done, max(0, state["total"] - state["scanned"]), earlier
            )
            self._slice.check()
        return self._state

    async def _begin(self) -> None:
        query = self._bulk.query
        fresh: dict[str, Any] = {
            "total": min(query.limit, await self._call(self._store.search.count, query)),
            "before": query.before,
        }
        fresh |= {"page": [], "scanned": 0, "matched": 0, "accepted": 0, "done": False}
        self._state = await self._call(self._store.tasks.begin, self._bulk.name, fresh)

    async def _choose(self) -> None:
        """Write the next page to the state."""
        room = self._bulk.query.limit - self._state["matched"]
        query = replace(self._bulk.query, before=self._state["before"], limit=min(PAGE, room))
        found = await self._call(self._store.search.runs, query)
        await self._save(
            page=[list(run) for run in found.jobs],
            before=found.before,
            scanned=self._state["scanned"] + found.scanned,
            matched=self._state["matched"] + len(found.jobs),
            done=not found.jobs and found.before is None,
        )

    async def _act(self) -> None:
        """Publish the events of the page, and count what became of its jobs."""
        runs = [JobRun(*values) for values in self._state["page"]]
        source, time = self._publisher.topology.source, datetime.now(UTC)
        events = [self._bulk.action.event(run, source=source, time=time, causation_id=self._bulk.cause) for run in runs]
        await asyncio.gather(*(self._publisher.publish(event, self._bulk.action.keys) for event in events))
        await self._catch_up()
        jobs: Mapping[str, Job] = await self._call(self._store.jobs, [run.id for run in runs])
        accepted = sum(run.id in jobs and self._bulk.action.done(jobs[run.id], run) for run in runs)
        end = self._state["before"] is None or self._state["matched"] >= self._bulk.query.limit
        await self._save(page=[], accepted=self._state["accepted"] + accepted, done=end)

    async def _catch_up(self) -> None:
        """Return when the view has folded everything that is on the tape. Raises Interrupted when the slice is over."""
        self._barriers += 1
        await self._publisher.publish_barrier(self._process, self._barriers)
        pause = FIRST_POLL
        while await self._call(self._store.passed_barrier, self._process) < self._barriers:
            self._slice.check()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)

    async def _save(self, **changes: Any) -> None:
        after = {**self._state, **changes}
        if not await self._call(self._store.tasks.move, self._bulk.name, self._state, after):
            raise TakenOver(f"another process works on {self._bulk.name}: wait for it")
        self._state = after
