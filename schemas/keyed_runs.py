"""Decides which of several jobs with the same unique key or debounce key are cancelled.

The projector that is active applies these rules to the open jobs of the view, and records each decision as
``cancelled``. So the fold stays a function of one job's events, and a rebuild comes to the same view.

The open jobs of a key are in the order in which their runs began on the tape: a redriven job joins at the end. A job is
decided while it is held, so before its work is placed.

A job with a **debounce key** is placed when no later one with the key has come for some seconds, or when the first of
the jobs that were cancelled for it has waited for ``at_most`` seconds. A job that was placed does not delay later ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from jobtape.schemas.events import CancelReason
from jobtape.schemas.job import Job, JobRun, JobState
from jobtape.schemas.queueing.gates import Gate, Gates


@dataclass(frozen=True, slots=True)
class GatedRun:
    """One run of a job with gates. ``cursor``: that of its latest event. A held run has only its first one, apart from
    signals. ``due``: when it was submitted or redriven, or the later time for which it was submitted.

    ``is_open``: whether it may run or does. ``awaits_follow_ups``: whether it waits for its follow-ups. Then it counts
    as running.
    """

    run: JobRun
    gates: Gates
    state: JobState
    due: datetime
    cursor: int
    is_open: bool = True
    awaits_follow_ups: bool = False

    @classmethod
    def of(cls, job: Job, gates: Gates) -> "GatedRun":
        """Return the current run of a job that was submitted and has these gates."""
        run = JobRun(job.id, job.type, job.run, job.attempt, job.correlation_id)
        assert job.run_at is not None
        state = JobState.RUNNING if job.awaits_follow_ups else job.state
        return cls(run, gates, state, job.run_at, job.cursor, not job.final and not job.imported, job.awaits_follow_ups)


class RunToCancel(NamedTuple):
    """A run that is to be cancelled. ``instead``: the id of the job that runs instead of it."""

    gated: GatedRun
    reason: CancelReason
    instead: str


def runs_to_cancel(runs: Sequence[GatedRun]) -> list[RunToCancel]:
    """Return which runs are to be cancelled of the open runs of one unique key, which are in their order.

    With ``return`` a held run is cancelled while an earlier one is open. With ``replace`` it cancels the earlier ones,
    except one that is running, whose end it waits for.
    """
    found: list[RunToCancel] = []
    kept: list[GatedRun] = []
    for gated in runs:
        unique = gated.gates.unique
        assert unique is not None
        if gated.state is JobState.HELD and kept:
            if unique.conflict == "return":
                found.append(RunToCancel(gated, "duplicate", kept[-1].run.id))
                continue
            replaced = [earlier for earlier in kept if earlier.state is not JobState.RUNNING]
            found += (RunToCancel(earlier, "replaced", gated.run.id) for earlier in replaced)
            kept = [earlier for earlier in kept if earlier.state is JobState.RUNNING]
        kept.append(gated)
    return found


class KeyedRuns:
    """The open runs of all unique keys, and the run of each debounce key that waits.

    ``starts``: when the jobs of debounce keys began to come, where another projector has noted it.
    """

    def __init__(self, starts: dict[Gate, datetime] | None = None) -> None:
        self._open: dict[Gate, dict[str, GatedRun]] = {}
        """By unique key and job id, in their order."""
        self._debouncing: dict[Gate, tuple[GatedRun, datetime]] = {}
        """By debounce key: the run that waits, and when the first run came that was cancelled for it, or itself."""
        self._to_cancel: dict[str, int] = {}
        """The runs that ``note`` has returned and that have not ended, by job id."""
        self._starts = starts or {}

    def note(self, runs: Iterable[GatedRun]) -> list[RunToCancel]:
        """Take over runs that have changed, and return those that are to be cancelled because of that, each once."""
        changed: dict[Gate, None] = {}
        found: list[RunToCancel] = []
        # What has ended comes first, and a run that is new here and placed was decided before those that are held.
        for gated in sorted(runs, key=lambda each: (each.is_open, each.state is JobState.HELD, each.cursor)):
            if self._to_cancel.get(gated.run.id) != gated.run.run or not gated.is_open:
                self._to_cancel.pop(gated.run.id, None)
            if gated.gates.debounce is not None and not self.will_cancel(gated.run.id):
                found += self._debounce(gated, gated.gates.debounce.gate)
            if gated.gates.unique is not None:
                self._take_over(gated, gated.gates.unique.gate)
                changed[gated.gates.unique.gate] = None
        for gate in changed:
            of_key = self._open.get(gate, {})
            cancelled = runs_to_cancel([gated for job_id, gated in of_key.items() if job_id not in self._to_cancel])
            for each in cancelled:
                self._note_cancelled(each)
                self.end_debounce(each.gated.gates, each.gated.run.id)
            found += cancelled
        return found

    def will_cancel(self, job_id: str) -> bool:
        """Return whether ``note`` has returned the job, and its run has not ended yet."""
        return job_id in self._to_cancel

    def opens_at(self, job_id: str, gates: Gates) -> datetime | None:
        """Return when the job may be placed, whatever comes until then; None if it has no debounce key."""
        found = None if gates.debounce is None else self._debouncing.get(gates.debounce.gate)
        if gates.debounce is None or found is None or found[0].run.id != job_id:
            return None
        gated, began = found
        quiet = gated.due + timedelta(seconds=gates.debounce.seconds)
        if gates.debounce.at_most is None:
            return quiet
        return min(quiet, max(gated.due, began + timedelta(seconds=gates.debounce.at_most)))

    def end_debounce(self, gates: Gates, job_id: str) -> None:
        """End the debounce of the job, which is placed or cancelled: later ones with its key do not cancel it."""
        if gates.debounce is not None:
            found = self._debouncing.get(gates.debounce.gate)
            if found is not None and found[0].run.id == job_id:
                del self._debouncing[gates.debounce.gate]

    def debounce_starts(self, cancelled: Iterable[RunToCancel]) -> dict[Gate, datetime]:
        """Return when the jobs of each debounce key began to come, for the keys of ``cancelled`` with an
        ``at_most``.
        """
        gates = {
            each.gated.gates.debounce.gate
            for each in cancelled
            if each.reason == "debounced" and each.gated.gates.debounce and each.gated.gates.debounce.at_most
        }
        return {gate: self._debouncing[gate][1] for gate in gates if gate in self._debouncing}

    def _take_over(self, gated: GatedRun, gate: Gate) -> None:
        runs, job_id = self._open.setdefault(gate, {}), gated.run.id
        if job_id in runs and (not gated.is_open or runs[job_id].run.run != gated.run.run):
            del runs[job_id]
        if gated.is_open:
            runs[job_id] = gated
        if not runs:
            del self._open[gate]

    def _debounce(self, gated: GatedRun, gate: Gate) -> list[RunToCancel]:
        found = self._debouncing.get(gate)
        known = found is not None and found[0].run.id == gated.run.id and found[0].run.run == gated.run.run
        if gated.state is not JobState.HELD or not gated.is_open:
            self.end_debounce(gated.gates, gated.run.id)
            return []
        if known:
            return []
        if found is None or found[0].run.id == gated.run.id:
            noted = self._starts.pop(gate, gated.due)
            window = None if gated.gates.debounce is None else gated.gates.debounce.at_most
            is_same = window is not None and timedelta(0) <= gated.due - noted < timedelta(seconds=window)
            self._debouncing[gate] = gated, noted if is_same else gated.due
            return []
        earlier, began = found
        self._debouncing[gate] = gated, began
        replaced = RunToCancel(earlier, "debounced", gated.run.id)
        self._note_cancelled(replaced)
        return [replaced]

    def _note_cancelled(self, run: RunToCancel) -> None:
        self._to_cancel[run.gated.run.id] = run.gated.run.run
