"""Reads of flows: which ones have something to decide, and the jobs of their nodes."""

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import func, select, text

from jobtape.schemas import plainjson
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.flows.graph import NodeState
from jobtape.schemas.flows.references import NotFound, Reference
from jobtape.schemas.flows.state import FlowJob, FlowState
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.queueing.gates import FLOW_GROUP
from jobtape.view import tables
from jobtape.view.jobs.past import PastView
from jobtape.view.jobs.queries import some
from jobtape.view.sql.database import StorePart

RESULTS_BYTES: Final = 4 * 2**20
"""Bytes of JSON that a page of results has, except if a single one is larger."""
_OPEN = text(tables.OPEN)
_HELD = text(tables.HELD)
_job = tables.jobs.c


class Flows(StorePart):
    """Reads of flows and their jobs."""

    def unfinished(self) -> set[str]:
        """Return the ids of open flows and of jobs that wait for follow-ups, and of ended ones that have open jobs."""
        own = _job.gate_group == FLOW_GROUP
        flows = (
            select(_job.id)
            .where(tables.OPEN_ON[self.database.dialect], _job.queue == BUILTIN_QUEUE, own)
            .where(~_job.imported)
        )
        with self.database.reading() as connection:
            found = set(connection.scalars(flows))
            found |= set(connection.scalars(select(_job.id).where(_HELD, own)))  # jobs that have follow-ups
            found |= set(connection.scalars(select(_job.flow).where(_OPEN, _job.flow.is_not(None)).distinct()))
        return found

    def jobs(self, flow: str) -> list[FlowJob]:
        """Return the jobs of a flow."""
        columns = (_job.id, _job.node, _job.item, _job.state, _job.run, _job.run_at, _job.cursor, _job.imported)
        with self.database.reading() as connection:
            rows = connection.execute(select(*columns).where(_job.flow == flow)).all()
        return [FlowJob(row[0], row[1], row[2], JobState(row[3]), *row[4:]) for row in rows]

    def results(self, flow: str, node: str, most: int) -> list[tuple[int | None, JobState, Any]] | int:
        """Return item, state and result of each job of a node, in the order of the items.

        If the results have more than ``most`` bytes of JSON, return only their size.
        """
        own = (_job.flow == flow) & (_job.node == node)
        with self.database.reading() as connection:
            size = connection.execute(select(func.sum(func.length(_job.result))).where(own)).scalar() or 0
            if size > most:
                return int(size)
            rows = connection.execute(select(_job.item, _job.state, _job.result).where(own).order_by(_job.item)).all()
        return [
            (item, JobState(state), None if result is None else plainjson.loads(result.encode()))
            for item, state, result in rows
        ]

    def page_of_results(self, job_ids: Sequence[str], cursor: int) -> list[Job | None]:
        """Return the first of the jobs as they were at ``cursor``, None for one that is not kept: as many as have at
        most ``RESULTS_BYTES`` of results together, and at least one.
        """
        with self.database.reading() as connection:
            statement = select(_job.id, func.length(_job.result)).where(_job.id.in_(job_ids))
            sizes = {row[0]: row[1] or 0 for row in connection.execute(statement)}
        together = accumulate(sizes.get(job_id, 0) for job_id in job_ids)
        number = max(1, sum(size <= RESULTS_BYTES for size in together))
        jobs = self.jobs_then(job_ids[:number], cursor)
        return [jobs.get(job_id) for job_id in job_ids[:number]]

    def succeeded_then(self, flow: str, cursor: int, node: str | None = None) -> list[FlowJob]:
        """Return the jobs of a flow, or of one node, that had succeeded at ``cursor``."""
        found = PastView(self.database).flow_jobs(flow, cursor, node)
        return [job for job in found if job.state is JobState.SUCCEEDED]

    def jobs_then(self, job_ids: Collection[str], cursor: int) -> dict[str, Job]:
        """Return the jobs as they were at ``cursor``, by id, without those that are not kept."""
        with self.database.reading() as connection:
            found = {job_id: job for job_id, job in some(connection, job_ids).items() if job.cursor <= cursor}
        changed = [job_id for job_id in job_ids if job_id not in found]
        return found | PastView(self.database).jobs(changed, cursor)

    def count_items(self, flow: FlowState, cursor: int | None = None) -> None:
        """Set ``flow.items`` of the mapped nodes whose lists are known by now. ``cursor``: by then instead."""
        # In the order of the graph: whether a mapped node has ended follows from the number of its items.
        for name in flow.recorded.graph.order:
            reference = None if name in flow.recorded.signals else flow.recorded.nodes[name].items
            number = None if reference is None else self._number_of_items(flow, reference, cursor)
            # Without items it succeeds at once, but not before it can begin.
            if number or (number == 0 and name in flow.decide().ready):
                flow.items[name] = number

    def _number_of_items(self, flow: FlowState, reference: Reference, cursor: int | None) -> int | None:
        """Return the length of the list at ``reference``; None if there is none yet, or never one."""
        if reference.node is None:
            return _length_at(reference, flow.recorded.input)
        item: int | None = None
        if flow.recorded.nodes[reference.node].map is not None:
            if flow.job_of(reference.node, None) is not None or reference.node not in flow.items:
                return None
            if flow.states(ended=flow.job.final)[reference.node] not in (NodeState.SUCCEEDED, NodeState.FAILED):
                return None
            if not reference.path:
                return flow.items[reference.node]
            # All results together may be large. The path begins with the number of one.
            first, slash, rest = reference.path[1:].partition("/")
            if not (first.isascii() and first.isdigit()):
                return None
            item, reference = int(first), reference._replace(path=slash + rest)
        own = flow.job_of(reference.node or "", item)
        if own is None or own.state is not JobState.SUCCEEDED:
            return None
        then = self.jobs_then([own.id], MAX_CURSOR if cursor is None else cursor)
        return _length_at(reference, then[own.id].result) if own.id in then else None


def _length_at(reference: Reference, value: Any) -> int | None:
    """Return the length of the list at ``reference`` in ``value``; None if there is none."""
    try:
        items = reference.value_in(value)
    except NotFound:
        return None
    return len(items) if isinstance(items, list) else None


def result_of(found: Sequence[tuple[int | None, JobState, Any]], *, mapped: bool) -> Any:
    """Return the result of a node of which there is one, from what ``Flows.results`` has returned: that of its job, or
    the list of those of its items.
    """
    if mapped:
        return [result for item, _, result in found if item is not None]
    return next((result for _, state, result in found if state is JobState.SUCCEEDED), None)
