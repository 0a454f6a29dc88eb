"""A flow with the states of its jobs, from which the states of its nodes follow.

It contains nothing that does not follow from the view, except jobs whose event is published and not folded yet.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from jobtape.schemas.flows.flow import child_id, recorded_flow_of
from jobtape.schemas.flows.graph import OVER, Decision, NodeState
from jobtape.schemas.job import FINAL, Job, JobState, replace
from jobtape.schemas.queueing.gates import Gate

_Part = Literal["open", "succeeded", "failed", "outdated"]
"""How a job counts for its node. ``outdated``: it ended before the current run of the flow and has to run again."""


class FlowJob(NamedTuple):
    """A job of a flow, as far as it decides what follows. ``item``: see ``Job.item``."""

    id: str
    node: str
    item: int | None
    state: JobState
    run: int
    run_at: datetime | None
    cursor: int
    imported: bool = False

    @classmethod
    def of(cls, job: Job) -> "FlowJob":
        """Return the part of ``job``, which is one of a flow."""
        node = job.node or ""
        return cls(job.id, node, job.item, job.state, job.run, job.run_at, job.cursor, job.imported)


@dataclass(slots=True)
class Expansion:
    """What the jobs of a mapped node are made of. ``missing``: the numbers of the items that have no job in this run.
    ``results``: those of other nodes. ``taken``: the ids of jobs of the flow that was forked, by item.
    """

    items: list[Any]
    missing: deque[int]
    results: dict[str, Any]
    taken: Mapping[int | None, str]


class FlowState:
    """The flow ``job`` and the ``jobs`` of its nodes. Raises ValidationError for a flow of a later version."""

    def __init__(self, job: Job, jobs: Iterable[FlowJob]) -> None:
        self.recorded = recorded_flow_of(job)
        self.job = _slim(job)
        self.is_follow_ups = job.follow_ups is not None
        """Whether these are the follow-ups of a job, which is no flow."""
        # A job has others in each run.
        self._own = {child_id(job, name, None) for name in self.recorded.nodes} if self.is_follow_ups else None
        self.items: dict[str, int] = {}
        """How many jobs a mapped node has, once that is known."""
        self.kept_gates: frozenset[Gate] | None = None
        """What the jobs keep that wait for the end of this flow, so that its jobs cannot have it; None if not known."""
        self.expansions: dict[str, Expansion] = {}
        """Of a mapped node that is being expanded: what its jobs are made of."""
        self.outcome_published = False
        self.cancelling: set[str] = set()
        self.signals_taken = False
        """Of a fork: whether the signals of the flow that was forked are published."""
        self.timing_out: set[str] = set()
        """The signals whose end of time is published."""
        self.started = self.is_follow_ups or job.state is JobState.RUNNING
        self.reported = job.progress_n
        self._jobs: dict[str, dict[int | None, FlowJob]] = {name: {} for name in self.recorded.nodes}
        self._parts: dict[str, Counter[_Part]] = {name: Counter() for name in self.recorded.nodes}
        for each in jobs:
            self.put(each)

    def put(self, job: FlowJob) -> None:
        """Note the state of a job. One that is older than what is known is ignored."""
        if (own := self._jobs.get(job.node)) is None or (self._own is not None and job.id not in self._own):
            return
        known = own.get(job.item)
        if known is not None:
            if job.cursor < known.cursor:
                return
            self._parts[job.node][self._part(known)] -= 1
        own[job.item] = job
        self._parts[job.node][self._part(job)] += 1

    def change(self, job: Job) -> None:
        """Note the state of the flow itself."""
        is_new_run = job.rank != self.job.rank and not self.is_follow_ups
        self.job = _slim(job)
        if is_new_run:
            self.started = self.outcome_published = False
            self.timing_out.clear()
            self.reported = 0
            self.cancelling.clear()
            self.expansions.clear()
            for name, jobs in self._jobs.items():
                self._parts[name] = Counter(map(self._part, jobs.values()))

    def decide(self, *, ended: bool = False) -> Decision:
        """Return what follows from the states of the jobs. ``ended``: the flow has ended, so nothing more begins."""
        outcomes = {name: self._outcome(name) for name in self.recorded.nodes}
        early = [name for name, state in outcomes.items() if self._parts[name]["failed"]]
        known = {name: state for name, state in outcomes.items() if state is not None}
        if not self.recorded.signals:
            return self.recorded.graph.decide(known, early, ended=ended)
        came = self.job.signals or {}
        for name in self.recorded.signals:
            known[name] = NodeState.SUCCEEDED if name in came else NodeState.RUNNING
        decision = self.recorded.graph.decide(known, early, ended=ended)
        if ended or all(decision.states[name] in OVER for name in self.recorded.nodes):
            # Nothing waits for the other signals any more.
            known |= {name: NodeState.SKIPPED for name in self.recorded.signals if name not in came}
            decision = self.recorded.graph.decide(known, early, ended=ended)
        return decision

    def awaited(self) -> dict[str, datetime | None]:
        """Return the signals that have not come, with the times when they are not waited for any more."""
        came = self.job.signals or {}
        began = self.job.started_at
        return {name: each.ends_at(began) for name, each in self.recorded.signals.items() if name not in came}

    def states(self, *, ended: bool) -> dict[str, NodeState]:
        """Return the states of the nodes as they are shown. ``ended``: the flow has ended, so nothing more begins.

        A mapped node of which no job is open, but not all have begun, is running here. ``decide`` begins it again.
        """
        found = dict(self.decide(ended=ended).states)
        for name, state in found.items():
            if state is NodeState.WAITING and self._jobs.get(name) and not self._parts[name]["outdated"]:
                found[name] = NodeState.RUNNING
        return found

    def progress(self, decision: Decision) -> tuple[int, int]:
        """Return how many jobs have ended, and how many there are. A node without jobs counts as one."""
        ended = total = 0
        for name in self.recorded.nodes:
            state = decision.states[name]
            jobs, parts = self.items.get(name) or 1, self._parts[name]
            total += jobs
            done = parts["succeeded"] + parts["failed"]
            ended += jobs if state is NodeState.SKIPPED or not self.items.get(name, 1) else min(done, jobs)
        return ended, total

    def job_of(self, node: str, item: int | None) -> FlowJob | None:
        """Return the job of a node, or of an item of a mapped node."""
        return self._jobs[node].get(item)

    def states_of(self, node: str) -> dict[JobState, int]:
        """Return the number of the node's jobs by state."""
        return Counter(job.state for job in self._jobs[node].values())

    def number_of_items(self, node: str) -> int:
        """Return how many items of a mapped node have a job."""
        return sum(item is not None for item in self._jobs[node])

    def last_cursor(self, node: str) -> int:
        """Return the cursor of the last event of the node's jobs; 0 without jobs."""
        return max((job.cursor for job in self._jobs[node].values()), default=0)

    def open_jobs(self, node: str) -> int:
        """Return how many jobs of the node have not ended."""
        return self._parts[node]["open"]

    def each_open(self) -> Iterator[tuple[str, FlowJob]]:
        """Yield the jobs that have not ended, with their nodes."""
        for name, parts in self._parts.items():
            if parts["open"]:
                yield from ((name, job) for job in self._jobs[name].values() if self._part(job) == "open")

    def to_expand(self) -> list[str]:
        """Return the mapped nodes of which it is not known that all their jobs have begun."""
        begun = [
            name
            for name, node in self.recorded.nodes.items()
            if node.map is not None and name not in self.items and None not in self._jobs[name] and self._jobs[name]
        ]
        return [*self.expansions, *begun]

    def missing(self, name: str, number: int) -> deque[int]:
        """Return the numbers of those of ``number`` items that have no job in this run."""
        own = self._jobs[name]
        return deque(n for n in range(number) if n not in own or self._part(own[n]) == "outdated")

    def failures(self, node: str) -> int:
        """Return how many jobs of the node have failed or were cancelled."""
        return self._parts[node]["failed"]

    def _outcome(self, name: str) -> NodeState | None:
        """Return the outcome of a node; None if it has not begun in this run."""
        parts = self._parts[name]
        if parts["open"]:
            return NodeState.RUNNING
        graph = self.recorded.graph
        if parts["failed"] and graph.stop == "now" and not graph.handles_failure_of(name):
            return NodeState.FAILED  # of a mapped node nothing further begins
        if parts["outdated"]:
            return None
        if self.recorded.nodes[name].map is not None and not self._jobs[name].get(None):
            expected = self.items.get(name)
            if expected is None or sum(parts.values()) < expected:
                return None
            return NodeState.FAILED if parts["failed"] else NodeState.SUCCEEDED
        return NodeState.FAILED if parts["failed"] else NodeState.SUCCEEDED if parts["succeeded"] else None

    def _part(self, job: FlowJob) -> _Part:
        before = not self.is_follow_ups and job.cursor < (self.job.rank or 0)
        if job.state is JobState.SUCCEEDED:
            return "succeeded"
        if before and (job.state in FINAL or job.imported):
            return "outdated"
        return "failed" if job.state in FINAL else "open"


def _slim(job: Job) -> Job:
    """Return the job without the graph, which may be large."""
    return replace(job, payload=None, follow_ups=None if job.follow_ups is None else {})
