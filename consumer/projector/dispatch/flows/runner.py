"""Runs flows: submits the jobs of their nodes when these can begin, and records how the flows end.

Theory of operation. A flow and the jobs of its nodes are jobs of the view, and ``schemas.flows.graph`` says what
follows from their states. So there is no other record: a projector that becomes active first waits until everything
that was published is folded, and then decides again from the view. The id of a node's job follows from flow, node and
item, and the ids of the other events from the run of their job. So what two projectors decide is one job and one event.
The jobs have gates, as those of schedules: their work is placed once however often they are submitted.

A mapped node is expanded a page at a time. Its jobs tell how far that has come.
"""

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from pydantic import ValidationError

from jobtape.broker.tasks import run_all, wait_for_stop
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.consumer.projector.dispatch.flows.payloads import PayloadFault, Payloads
from jobtape.process import clock
from jobtape.schemas import ids
from jobtape.schemas.events import Failed, Reason, Succeeded, submitted
from jobtape.schemas.events.interventions import cancelled, redriven
from jobtape.schemas.flows import outcomes
from jobtape.schemas.flows.flow import FLOW, Fork, RecordedNode, child_id, child_order, follow_up_id, waits_for
from jobtape.schemas.flows.graph import Decision
from jobtape.schemas.flows.state import Expansion, FlowJob, FlowState
from jobtape.schemas.job import FINAL, Job, JobRun, JobState
from jobtape.schemas.queueing.gates import Gate, Gates
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import FoldedBatch

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Jobs of one flow that are submitted before other flows get their turn."""
AT_ONCE: Final = 32
"""Flows that are advanced together."""
REPORT_EVERY: Final = 1.0
"""Seconds between two events with the progress of a flow."""
REMEMBERED: Final = 10_000
"""Jobs that have spawned others, of which it is remembered that they are no flows."""
LONGEST_WAIT: Final = 60.0
"""Seconds until the clock is read again. It may be set."""


class FlowRunner:
    """The service that runs the open flows of the view. ``max_payload``: bytes of JSON that a payload may have."""

    def __init__(self, active: ActiveProjector, max_payload: int) -> None:
        self._active = active
        self._payloads = Payloads(active, max_payload)
        self._flows: dict[str, FlowState] = {}
        self._loading: dict[str, list[Job]] = {}
        """Of flows that are being read: what was committed meanwhile."""
        self._changed_flows: set[str] = set()
        self._later: dict[str, float] = {}
        """When flows are advanced although nothing has changed, in seconds since 1970."""
        self._reported: dict[str, float] = {}
        self._without: OrderedDict[str, None] = OrderedDict()
        """Jobs that wait for no follow-ups and are still the ``flow`` of others, which their handlers have spawned."""
        self._changed = asyncio.Event()
        self._waiting = False

    def notify(self, batch: FoldedBatch) -> None:
        """Take over what the fold has committed."""
        for job in batch.jobs:
            if _is_flow(job) or job.id in self._flows:
                self._without.pop(job.id, None)
                self._note(job.id, job)
            if job.flow is not None and job.flow not in self._without:
                self._note(job.flow, job)

    def _note(self, flow_id: str, job: Job) -> None:
        if (loading := self._loading.get(flow_id)) is not None:
            loading.append(job)
        elif (flow := self._flows.get(flow_id)) is not None:
            if flow.is_follow_ups and job.id == flow_id and job.run != flow.job.run:  # its next run has none yet
                del self._flows[flow_id]
            else:
                _take_over(flow, job)
        self._changed_flows.add(flow_id)
        self._changed.set()

    def next_at(self) -> float:
        """Return when a flow is advanced although nothing is committed until then, in seconds since 1970; 0 while one
        is being advanced.
        """
        if not self._waiting or self._changed.is_set():
            return 0.0
        return min(self._later.values(), default=math.inf)

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable and TapeMissing."""
        self._flows.clear()
        self._later.clear()
        self._reported.clear()
        self._without.clear()
        self._waiting = False
        await self._active.catch_up()
        self._changed_flows |= await self._active.call(self._active.store.flows.unfinished)
        while True:
            self._changed.clear()
            now = clock.time()
            for flow_id in [flow_id for flow_id, at in self._later.items() if at <= now]:
                del self._later[flow_id]
                self._changed_flows.add(flow_id)
            flow_ids = [self._changed_flows.pop() for _ in range(min(AT_ONCE, len(self._changed_flows)))]
            if flow_ids:
                await run_all(self._advance_safely(flow_id) for flow_id in flow_ids)
                continue
            pause = max(0.0, min([LONGEST_WAIT, *(at - now for at in self._later.values())]))
            self._waiting = True
            if not self._changed.is_set():
                await wait_for_stop(self._changed, pause)
            self._waiting = False

    async def _advance_safely(self, flow_id: str) -> None:
        try:
            await self._advance(flow_id)
        except ValidationError:
            log.exception("the flow %s cannot be read: it was submitted by a later version", flow_id)

    async def _advance(self, flow_id: str) -> None:
        """Do what follows from the states of a flow and its jobs."""
        flow = self._flows.get(flow_id) or await self._load(flow_id)
        if flow is None:
            return
        if flow.job.final or flow.job.imported:
            await self._close(flow)
            return
        if flow.job.run_at is not None and (at := flow.job.run_at.timestamp()) > clock.time() and not flow.started:
            self._later[flow_id] = at
            return
        if not flow.started:
            flow.started = True
            await self._active.publish(outcomes.started(flow.job, **self._stamp()))
        await self._take_signals(flow)
        await self._time_out_signals(flow)
        decision = flow.decide()
        if decision.stopped:
            await self._cancel(flow, [job for _, job in flow.each_open()])
        else:
            names = dict.fromkeys([*decision.ready, *flow.to_expand()])
            await run_all(self._begin(flow, name) for name in names)
        decision = flow.decide()
        if decision.ready:
            self._changed_flows.add(flow_id)
        await self._report(flow, decision)

    async def _take_signals(self, flow: FlowState) -> None:
        """Publish the signals that a fork takes in its first run, without which the jobs after them would wait."""
        fork = flow.recorded.fork
        if fork is None or flow.signals_taken or flow.job.run > 1:
            return
        flow.signals_taken = True
        missing = [name for name in fork.signals if name not in (flow.job.signals or {})]
        then = await self._active.call(self._active.store.past.job, fork.flow, fork.as_of) if missing else None
        if then is None:
            return
        old = then.signals or {}
        events = [outcomes.signal_taken(flow.job, name, old[name], **self._stamp()) for name in missing if name in old]
        await run_all(self._active.publish(event) for event in events)

    async def _time_out_signals(self, flow: FlowState) -> None:
        now = clock.now()
        for name, ends_at in flow.awaited().items():
            if ends_at is None or name in flow.timing_out:
                continue
            if ends_at > now:
                at = ends_at.timestamp()
                self._later[flow.job.id] = min(at, self._later.get(flow.job.id, at))
                continue
            flow.timing_out.add(name)
            await self._active.publish(outcomes.timed_out(flow.job, name, **self._stamp()))

    async def _load(self, flow_id: str) -> FlowState | None:
        """Read a flow from the view; None if there is none, or if nothing follows from it any more."""
        self._loading[flow_id] = []
        jobs: list[FlowJob] = []
        try:
            found = await self._active.call(self._active.store.job, flow_id)
            # Of another job they are those that its handler has spawned, which may be many.
            has_nodes = found is not None and (_is_flow(found) or found.run > 1)
            if has_nodes:
                jobs = await self._active.call(self._active.store.flows.jobs, flow_id)
        finally:
            missed = self._loading.pop(flow_id)
        job = next((each for each in reversed(missed) if each.id == flow_id), found)
        if not has_nodes and job is not None and (_is_flow(job) or job.run > 1):
            return await self._load(flow_id)  # it has become one meanwhile
        if job is None or job.submitted_at is None or not _is_flow(job):
            if job is not None:
                await self._cancel_earlier(job, jobs)
                if job.run == 1:
                    self._without[job.id] = None
                if len(self._without) > REMEMBERED:
                    self._without.popitem(last=False)
            return None
        flow = FlowState(job, jobs)
        for each in missed:
            _take_over(flow, each)
        if flow.is_follow_ups:
            await self._cancel_earlier(job, jobs)
        self._flows[flow_id] = flow
        return flow

    async def _close(self, flow: FlowState) -> None:
        """Cancel what a cancelled flow has left, and forget the flow when nothing is left."""
        left: list[FlowJob] = []
        if flow.job.state is JobState.CANCELLED and not flow.job.imported:
            left = [job for _, job in flow.each_open() if _began_before_end(job, flow.job)]
            await self._cancel(flow, left)
        if not left:
            self._flows.pop(flow.job.id, None)
            self._reported.pop(flow.job.id, None)

    async def _cancel_earlier(self, job: Job, jobs: Iterable[FlowJob]) -> None:
        """Cancel what the follow-ups of earlier runs have left: the job was cancelled, and redriven before that."""
        for each in jobs:
            left = each.state not in FINAL and each.run == 1 and not each.imported
            if left and any(each.id == follow_up_id(job.id, run, each.node) for run in range(1, job.run)):
                found = await self._active.call(self._active.store.job, each.id)
                if found is not None:
                    await self._active.publish(cancelled(found, **self._stamp()), (CANCEL_KEY,))

    async def _cancel(self, flow: FlowState, jobs: Iterable[FlowJob]) -> None:
        new = [job for job in jobs if job.id not in flow.cancelling]
        flow.cancelling.update(job.id for job in new)
        cause = ids.run_event_id(flow.job.id, flow.job.run, "cancelled")
        await run_all(
            self._active.publish(cancelled(_run_of(flow, job), causation_id=cause, **self._stamp()), (CANCEL_KEY,))
            for job in new
        )

    async def _begin(self, flow: FlowState, name: str) -> None:
        """Submit the job of a node, or run it again. Of a mapped node: up to ``PAGE`` jobs."""
        node = flow.recorded.nodes[name]
        if flow.kept_gates is None:
            flow.kept_gates = await self._kept_gates(flow)
        if node.map is None or flow.job_of(name, None) is not None:
            await self._begin_job(flow, name, node, None)
            return
        try:
            expansion = flow.expansions.get(name) or await self._expand(flow, name, node)
        except PayloadFault as fault:
            await self._fail(flow, name, node, None, str(fault))
            return
        room = PAGE if node.limit is None else min(PAGE, node.limit - flow.open_jobs(name))
        page = [expansion.missing.popleft() for _ in range(min(room, len(expansion.missing)))]
        old = await self._payloads.taken_jobs(flow, [expansion.taken[item] for item in page if item in expansion.taken])
        await run_all(self._begin_job(flow, name, node, item, expansion, old) for item in page)
        if not expansion.missing:
            flow.expansions.pop(name, None)
        elif node.limit is None:
            self._changed_flows.add(flow.job.id)

    async def _kept_gates(self, flow: FlowState) -> frozenset[Gate]:
        """Return the gates of the jobs that wait for the end of this flow, as far as they keep them meanwhile."""
        kept: set[Gate] = set()
        job: Job | None = flow.job
        while job is not None:
            if job.gates is not None and job.follow_ups is not None:
                kept.update(job.gates.slots(awaits_follow_ups=True))
            above: Job | None = None
            if job.flow is not None:
                # Mostly it is in memory. Its payload may be large.
                known = self._flows.get(job.flow)
                above = known.job if known is not None else await self._active.call(self._active.store.job, job.flow)
            job = above if above is not None and waits_for(above, job) else None
        return frozenset(kept)

    async def _expand(self, flow: FlowState, name: str, node: RecordedNode) -> Expansion:
        items = await self._payloads.items(flow, node)
        results = await self._payloads.results(flow, node)
        taken = await self._payloads.taken(flow, name)
        flow.items[name] = len(items)
        expansion = flow.expansions[name] = Expansion(items, flow.missing(name, len(items)), results, taken)
        return expansion

    async def _begin_job(
        self,
        flow: FlowState,
        name: str,
        node: RecordedNode,
        item: int | None,
        of: Expansion | None = None,
        old: Mapping[str, Job] | None = None,
    ) -> None:
        """Submit a job, or run it again. One without a payload fails. ``old``: the jobs of the forked flow, by id."""
        known = flow.job_of(name, item)
        try:
            if of is None and node.map is not None:
                raise PayloadFault("there were no items in the first run of the flow")
            taken = await self._payloads.taken(flow, name) if of is None else of.taken
            if known is None and item in taken:
                old = await self._payloads.taken_jobs(flow, [taken[item]]) if old is None else old
                if taken[item] not in old:
                    raise self._payloads.not_kept(flow, name)
                await self._take(flow, name, node, item, old[taken[item]])
                return
            results = await self._payloads.results(flow, node) if of is None else of.results
            payload, gates = self._payloads.make(flow, node, results, None if of is None else of.items[item or 0])
        except PayloadFault as fault:
            await self._fail(flow, name, node, item, str(fault))
            return
        if known is None:
            await self._submit(flow, name, node, item, payload, gates)
            return
        event = redriven(_run_of(flow, known), causation_id=outcomes.began(flow.job), **self._stamp())
        flow.put(_in_next_run(known, flow))
        await self._active.publish(event)

    async def _take(self, flow: FlowState, name: str, node: RecordedNode, item: int | None, old: Job) -> None:
        """Submit a job that has succeeded, with the result of a job of the flow that was forked.

        A flow is forked in its turn, so that it has jobs too.
        """
        payload, fork = old.payload or {}, flow.recorded.fork
        assert fork is not None
        if node.order.type == FLOW:
            inner = await self._active.call(self._active.store.flows.succeeded_then, old.id, fork.as_of)
            number = Counter(job.node for job in inner)
            inner_fork = Fork(flow=old.id, as_of=fork.as_of, taken=number, signals=tuple(old.signals or ()))
            payload = {**payload, "fork": inner_fork.model_dump(mode="json")}
        else:
            # Before its submission, as that of a job that fails.
            event = outcomes.taken(flow.job, child_id(flow.job, name, item), old, **self._stamp())
            await self._active.publish(event)
        await self._submit(flow, name, node, item, payload, self._payloads.gates(flow, node, payload))

    async def _fail(self, flow: FlowState, name: str, node: RecordedNode, item: int | None, why: str) -> None:
        """Submit a job that has failed, because it has no payload, or fail its next run."""
        job_id, known = child_id(flow.job, name, item), flow.job_of(name, item)
        run = 1 if known is None else known.run + 1
        # Before its submission: a job whose run has ended is not held when its order arrives.
        await self._active.publish(
            outcomes.unresolved(flow.job, job_id, node.order.type, why, run=run, **self._stamp())
        )
        if known is None:
            # No handler takes it, if somebody redrives the job.
            await self._submit(flow, name, node, item, {"$unresolved": why}, Gates())
        else:
            flow.put(_in_next_run(known, flow))

    async def _submit(
        self, flow: FlowState, name: str, node: RecordedNode, item: int | None, payload: dict[str, Any], gates: Gates
    ) -> None:
        job_id = child_id(flow.job, name, item)
        order = child_order(flow.job, name, node, item, payload).model_copy(update={"gates": gates})
        flow.put(FlowJob(job_id, name, item, JobState.HELD, 1, None, -1))  # until the fold has it
        event = submitted(
            job_id,
            order,
            causation_id=outcomes.began(flow.job),
            traceparent=flow.job.traceparent,
            **self._stamp(),
        )
        await self._active.publish(event)

    async def _report(self, flow: FlowState, decision: Decision) -> None:
        """Publish the outcome of a flow that has ended, or its progress."""
        job = flow.job
        ended, total = flow.progress(decision)
        if decision.ended:
            if not flow.outcome_published:
                flow.outcome_published = True
                await self._active.publish(await self._outcome(flow, decision))
            return
        if ended <= flow.reported or flow.is_follow_ups:
            return
        now = clock.time()
        if (at := self._reported.get(job.id, 0.0) + REPORT_EVERY) > now:
            self._later[job.id] = min(at, self._later.get(job.id, at))
            return
        flow.reported, self._reported[job.id] = ended, now
        await self._active.publish(outcomes.progressed(job, ended, total, **self._stamp()))

    async def _outcome(self, flow: FlowState, decision: Decision) -> Succeeded | Failed:
        if flow.is_follow_ups and (job := await self._payloads.continuation(flow)) is not None and job.final:
            if job.state is JobState.SUCCEEDED:
                return outcomes.succeeded(flow.job, job.result, **self._stamp())
            if job.state is JobState.FAILED and job.error is not None:
                return outcomes.failed_like(flow.job, job.error, cast("Reason", job.reason), **self._stamp())
        if decision.unhandled:
            counts = {name: (flow.failures(name), flow.items.get(name)) for name in decision.unhandled}
            return outcomes.failed(flow.job, counts, **self._stamp())
        result = await self._payloads.last_results(flow)
        return outcomes.succeeded(flow.job, result, **self._stamp())

    def _stamp(self) -> dict[str, Any]:
        return {"source": self._active.topology.source, "time": clock.now()}


def _is_flow(job: Job) -> bool:
    """Return whether the job is a flow or waits, or has waited in this run, for follow-ups."""
    return job.follow_ups is not None or (job.gates is not None and job.gates.flow)


def _take_over(flow: FlowState, job: Job) -> None:
    if job.id != flow.job.id:
        flow.put(FlowJob.of(job))
    elif job.cursor >= flow.job.cursor:
        flow.change(job)


def _run_of(flow: FlowState, job: FlowJob) -> JobRun:
    return JobRun(job.id, flow.recorded.nodes[job.node].order.type, job.run, 1, flow.job.correlation_id)


def _in_next_run(job: FlowJob, flow: FlowState) -> FlowJob:
    """Return a job whose next run has begun, until the fold has it."""
    return job._replace(state=JobState.HELD, run=job.run + 1, cursor=flow.job.rank or 0, imported=False)


def _began_before_end(job: FlowJob, flow: Job) -> bool:
    """Return whether a job of a cancelled flow began before that. One that was redriven later goes on."""
    assert flow.state in FINAL
    return job.run == 1 or job.run_at is None or flow.finished_at is None or job.run_at <= flow.finished_at
