"""Runs past jobs with today's handlers and compares the outcomes with the original ones.

Nothing is published, and only the progress of the run is written. The handlers run in this process, one after the
other, with ``ctx.shadow`` set. A job is marked before its handler runs. If the process dies, the job runs again when
the run continues. A job that was marked TRIES times probably kills its process, and counts as different. A job for
which the rest of the slice was too short runs first in the next slice, with its full time.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Outcome, failure, timed_out
from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.consumer.replays.outcome_kinds import Change, changes
from jobtape.schemas import plainjson
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Job
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.view.store import JobQuery, Store

log = logging.getLogger(__name__)

PAGE: Final = 100
"""Jobs that are read at once."""
TRIES: Final = 2
NAMED: Final = 10_000
"""Different jobs whose ids are kept; further ones are only counted."""
KINDS: Final = 50
EXAMPLES: Final = 3
"""Jobs of each kind of difference whose values are kept."""
SHORT: Final = 500
"""Bytes of such a value."""
MAX_RESULT: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Shadow:
    """Which jobs to run: those of ``query``, which must be final, at most its ``limit``.

    ``name`` identifies this run. A handler has at most ``longest`` seconds, whatever its timeout.
    """

    name: str
    query: JobQuery
    longest: float


class ShadowRun:
    """Continues where an earlier process has stopped, also if that was the end. ``state``: counts and differences."""

    def __init__(
        self, store: Store, job_types: Mapping[str, JobTypeSpec], shadow: Shadow, task_slice: TaskSlice
    ) -> None:
        self._store = store
        self._job_types = job_types
        self._shadow = shadow
        self._slice = task_slice
        fresh: dict[str, Any] = {"before": shadow.query.before, "doing": None, "tries": 0, "jobs": 0, "same": 0}
        fresh |= {"unknown": 0, "different": {}, "more": 0, "kinds": [], "done": False}
        self.state = store.tasks.begin(shadow.name, fresh)

    def run(self) -> dict[str, Any]:
        """Run all jobs that are left, and return the state. Raises ViewUnavailable, Interrupted and TakenOver."""
        before = self.state["jobs"]
        while not self.state["done"] and (room := self._shadow.query.limit - self.state["jobs"]) > 0:
            query = replace(self._shadow.query, before=self.state["before"], limit=min(PAGE, room))
            found = self._store.search.page(query)
            for n, job in enumerate(found.jobs, 1):
                self._run(job)
                # Only the last page says how many jobs there are; before it the limit stands for that.
                left = len(found.jobs) - n if found.before is None else self._shadow.query.limit - self.state["jobs"]
                self._slice.add(1, max(0, left), before)
                self._slice.check()
            if found.before is None:
                break
            if found.before != self.state["before"]:  # a search examined more jobs than it found
                self._save(before=found.before)
        if not self.state["done"]:
            self._save(done=True)
        return self.state

    def _run(self, job: Job) -> None:
        job_type = self._job_types.get(job.type)
        if job_type is None:
            self._save(before=job.id, jobs=self.state["jobs"] + 1, unknown=self.state["unknown"] + 1)
            return
        tries = self.state["tries"] + 1 if self.state["doing"] == job.id else 1
        if tries > TRIES:
            self._compare(job, failure("crashed", "Crashed", "the handler ended its process, or never returned"))
            return
        self._save(doing=job.id, tries=tries)
        whole = min(job_type.timeout, self._shadow.longest)
        # The first job of a slice has its full time, so that the run makes progress.
        seconds = whole if self._slice.done == 0 else min(whole, max(0.0, self._slice.seconds_left()))
        outcome = run_in_shadow(job_type, job, seconds)
        if outcome is None and seconds < whole:
            self._save(doing=None, tries=0)
            raise Interrupted(f"the time for {job.id} was too short: it runs again in the next attempt")
        self._compare(job, outcome or timed_out(job_type, seconds))

    def _compare(self, job: Job, now: Outcome) -> None:
        state = self.state
        different = changes(job, now)
        if not different:
            self._save(before=job.id, doing=None, jobs=state["jobs"] + 1, same=state["same"] + 1)
            return
        kinds, numbers = _with(state["kinds"], job, different)
        named = len(state["different"]) < NAMED
        self._save(
            before=job.id,
            doing=None,
            jobs=state["jobs"] + 1,
            different={**state["different"], job.id: numbers} if named else state["different"],
            more=state["more"] + (not named),
            kinds=kinds,
        )

    def _save(self, **changes: Any) -> None:
        after = {**self.state, **changes}
        if not self._store.tasks.move(self._shadow.name, self.state, after):
            raise TakenOver(f"another process works on the shadow run {self._shadow.name}: wait for it")
        self.state = after


def run_in_shadow(job_type: JobTypeSpec, job: Job, seconds: float) -> Outcome | None:
    """Run today's handler with the job's payload; return its outcome, or None if it does not end in ``seconds``."""
    outcomes: list[Outcome] = []
    # A new thread for each job: one that does not end is abandoned.
    thread = threading.Thread(
        target=lambda: outcomes.append(_call_handler(job_type, job)), name=f"shadow {job.id}", daemon=True
    )
    thread.start()
    thread.join(seconds)
    return outcomes[0] if outcomes else None


def _call_handler(job_type: JobTypeSpec, job: Job) -> Outcome:
    context = Context(
        job_id=job.id,
        job_type=job.type,
        run=job.run,
        attempt=job.attempt,
        log=logging.getLogger("jobtape.job"),
        report=lambda progress: None,
        shadow=True,
        flow=job.flow,
    )
    call = Call(job_type, job.payload or {}, job.payload_version, context, MAX_RESULT)
    if not job_type.is_async:
        return call.run()
    try:
        return asyncio.run(call.run_async())
    except BaseException as error:  # noqa: BLE001 - the handler cancelled itself, or a task of its raised SystemExit
        return call.failed(error)


def _with(kinds: list[dict[str, Any]], job: Job, different: list[Change]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the kinds of differences with those of the job, and the numbers of its kinds. Ones above the limit are
    left out.
    """
    after, numbers = list(kinds), []
    for change in different:
        kind = {"type": job.type, "path": change.path, "then": change.then, "now": change.now}
        number = next((n for n, known in enumerate(after) if kind.items() <= known.items()), len(after))
        if number == KINDS:
            continue
        known: dict[str, Any] = after[number] if number < len(after) else {**kind, "jobs": 0, "examples": []}
        values = {name: plainjson.short(value, SHORT) for name, value in change.values.items()}
        shown = [{"job": job.id, **values}] if len(known["examples"]) < EXAMPLES else []
        after[number : number + 1] = [{**known, "jobs": known["jobs"] + 1, "examples": [*known["examples"], *shown]}]
        numbers.append(number)
    return after, numbers
