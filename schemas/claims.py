"""Claims: which of several jobs with the same unique key or debounce key are cancelled.

The projector that is active applies these rules to the open jobs of the view, and records each decision as
``cancelled``. So the fold stays a function of one job's events, and a rebuild comes to the same view.

The open jobs of a key are in the order in which their runs began on the tape: a redriven job joins at the end. A job is
decided while it is held, so before its work is placed.

A job with a **debounce key** is placed when no later one with the key has come for some seconds, or when the first of
the jobs that were cancelled for it is so old as to be placed whatever comes. One that was placed is not in the way of
later ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from jobtape.schemas.events import CancelReason
from jobtape.schemas.gates import Gate, Gates
from jobtape.schemas.job import Job, JobRun, JobState


@dataclass(frozen=True, slots=True)
class Claim:
    """One run of a job with gates. ``cursor``: that of its latest event, which is the first one of a held run.
    ``due``: when it was submitted or redriven, or the later time for which it was submitted.

    ``is_open``: whether it may run or does.
    """

    run: JobRun
    gates: Gates
    state: JobState
    due: datetime
    cursor: int
    is_open: bool = True

    @classmethod
    def of(cls, job: Job, gates: Gates) -> "Claim":
        """Return the claim of a job that was submitted and has these gates."""
        run = JobRun(job.id, job.type, job.run, job.attempt, job.correlation_id)
        assert job.run_at is not None
        return cls(run, gates, job.state, job.run_at, job.cursor, not job.final and not job.imported)


class Closing(NamedTuple):
    """A run that is to be cancelled. ``instead``: the id of the job because of which."""

    claim: Claim
    reason: CancelReason
    instead: str


def closings(claims: Sequence[Claim]) -> list[Closing]:
    """Return which runs are to be cancelled of the open runs of one unique key, which are in their order.

    With ``return`` a held run is cancelled while an earlier one is open. With ``replace`` it cancels the earlier ones,
    except one that is running, whose end it waits for.
    """
    found: list[Closing] = []
    kept: list[Claim] = []
    for claim in claims:
        unique = claim.gates.unique
        assert unique is not None
        if claim.state is JobState.HELD and kept:
            if unique.conflict == "return":
                found.append(Closing(claim, "duplicate", kept[-1].run.id))
                continue
            replaced = [earlier for earlier in kept if earlier.state is not JobState.RUNNING]
            found += (Closing(earlier, "replaced", claim.run.id) for earlier in replaced)
            kept = [earlier for earlier in kept if earlier.state is JobState.RUNNING]
        kept.append(claim)
    return found


class Claims:
    """The open runs of all unique keys, and the run of each debounce key that waits.

    ``begins``: when the jobs of debounce keys began to come, where another projector has noted it.
    """

    def __init__(self, begins: dict[Gate, datetime] | None = None) -> None:
        self._open: dict[Gate, dict[str, Claim]] = {}
        """By unique key and job id, in their order."""
        self._waiting: dict[Gate, tuple[Claim, datetime]] = {}
        """By debounce key: the run that waits, and when the first run came that was cancelled for it, or itself."""
        self._closing: dict[str, int] = {}
        """The runs that ``note`` has returned and that have not ended, by job id."""
        self._begins = begins or {}

    def note(self, claims: Iterable[Claim]) -> list[Closing]:
        """Take over runs that have changed, and return those that are to be cancelled because of that, each once."""
        changed: dict[Gate, None] = {}
        found: list[Closing] = []
        # What has ended comes first, and a run that is new here and placed was decided before those that are held.
        for claim in sorted(claims, key=lambda each: (each.is_open, each.state is JobState.HELD, each.cursor)):
            if self._closing.get(claim.run.id) != claim.run.run or not claim.is_open:
                self._closing.pop(claim.run.id, None)
            if claim.gates.debounce is not None and not self.is_closing(claim.run.id):
                found += self._debounce(claim, claim.gates.debounce.gate)
            if claim.gates.unique is not None:
                self._take_over(claim, claim.gates.unique.gate)
                changed[claim.gates.unique.gate] = None
        for gate in changed:
            runs = self._open.get(gate, {})
            duplicates = closings([claim for job_id, claim in runs.items() if job_id not in self._closing])
            for closing in duplicates:
                self._close(closing)
                self.leave(closing.claim.gates, closing.claim.run.id)
            found += duplicates
        return found

    def is_closing(self, job_id: str) -> bool:
        """Return whether ``note`` has returned the job, and its run has not ended yet."""
        return job_id in self._closing

    def opens_at(self, job_id: str, gates: Gates) -> datetime | None:
        """Return when the job may be placed, whatever comes until then; None if it has no debounce key."""
        found = None if gates.debounce is None else self._waiting.get(gates.debounce.gate)
        if gates.debounce is None or found is None or found[0].run.id != job_id:
            return None
        claim, began = found
        quiet = claim.due + timedelta(seconds=gates.debounce.seconds)
        if gates.debounce.at_most is None:
            return quiet
        return min(quiet, max(claim.due, began + timedelta(seconds=gates.debounce.at_most)))

    def leave(self, gates: Gates, job_id: str) -> None:
        """Note that the job is placed now: later ones with its debounce key do not cancel it."""
        if gates.debounce is not None:
            found = self._waiting.get(gates.debounce.gate)
            if found is not None and found[0].run.id == job_id:
                del self._waiting[gates.debounce.gate]

    def begins(self, closed: Iterable[Closing]) -> dict[Gate, datetime]:
        """Return when the jobs of those debounce keys began to come of which one is closed, and which need it."""
        gates = {
            each.claim.gates.debounce.gate
            for each in closed
            if each.reason == "debounced" and each.claim.gates.debounce and each.claim.gates.debounce.at_most
        }
        return {gate: self._waiting[gate][1] for gate in gates if gate in self._waiting}

    def _take_over(self, claim: Claim, gate: Gate) -> None:
        runs, job_id = self._open.setdefault(gate, {}), claim.run.id
        if job_id in runs and (not claim.is_open or runs[job_id].run.run != claim.run.run):
            del runs[job_id]
        if claim.is_open:
            runs[job_id] = claim
        if not runs:
            del self._open[gate]

    def _debounce(self, claim: Claim, gate: Gate) -> list[Closing]:
        found = self._waiting.get(gate)
        known = found is not None and found[0].run.id == claim.run.id and found[0].run.run == claim.run.run
        if claim.state is not JobState.HELD or not claim.is_open:
            self.leave(claim.gates, claim.run.id)
            return []
        if known:
            return []
        if found is None or found[0].run.id == claim.run.id:
            noted = self._begins.pop(gate, claim.due)
            window = None if claim.gates.debounce is None else claim.gates.debounce.at_most
            is_same = window is not None and timedelta(0) <= claim.due - noted < timedelta(seconds=window)
            self._waiting[gate] = claim, noted if is_same else claim.due
            return []
        earlier, began = found
        self._waiting[gate] = claim, began
        closing = Closing(earlier, "debounced", claim.run.id)
        self._close(closing)
        return [closing]

    def _close(self, closing: Closing) -> None:
        self._closing[closing.claim.run.id] = closing.claim.run.run
