"""Unique keys: which of several open jobs with the same key is closed.

The projector that is active applies this rule to the open jobs of the view, and records each decision as ``cancelled``.
So the fold stays a function of one job's events, and a rebuild comes to the same view.

The open jobs of a key are in the order in which their runs began on the tape: a redriven job joins at the end. A job is
decided while it is held, so before its work is placed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobtape.schemas.events import CancelReason
from jobtape.schemas.gates import Gate, Gates
from jobtape.schemas.job import Job, JobRun, JobState


@dataclass(frozen=True, slots=True)
class Claim:
    """One run of a job with a unique key. ``cursor``: that of its latest event, which is the first one of a held run.

    ``is_open``: whether it may run or does.
    """

    run: JobRun
    gates: Gates
    state: JobState
    cursor: int
    is_open: bool = True

    @classmethod
    def of(cls, job: Job, gates: Gates) -> "Claim":
        """Return the claim of a job that has these gates."""
        run = JobRun(job.id, job.type, job.run, job.attempt, job.correlation_id)
        return cls(run, gates, job.state, job.cursor, not job.final and not job.imported)


class Closing(NamedTuple):
    """A run that is to be cancelled. ``instead``: the id of the job because of which."""

    claim: Claim
    reason: CancelReason
    instead: str


def closings(claims: Sequence[Claim]) -> list[Closing]:
    """Return which runs are to be cancelled of the open runs of one key, which are in their order.

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


class UniqueKeys:
    """The open runs of all unique keys."""

    def __init__(self) -> None:
        self._open: dict[Gate, dict[str, Claim]] = {}
        """By key and job id, in their order."""
        self._closing: dict[str, int] = {}
        """The runs that ``note`` has returned and that have not ended, by job id."""

    def note(self, claims: Iterable[Claim]) -> list[Closing]:
        """Take over runs that have changed, and return those that are to be cancelled because of that, each once."""
        changed: dict[Gate, None] = {}
        # What has ended comes first, and a run that is new here and placed was decided before those that are held.
        for claim in sorted(claims, key=lambda each: (each.is_open, each.state is JobState.HELD, each.cursor)):
            unique, job_id = claim.gates.unique, claim.run.id
            if unique is None:
                continue
            runs = self._open.setdefault(unique.gate, {})
            changed[unique.gate] = None
            if self._closing.get(job_id) != claim.run.run or not claim.is_open:
                self._closing.pop(job_id, None)
            if job_id in runs and (not claim.is_open or runs[job_id].run.run != claim.run.run):
                del runs[job_id]
            if claim.is_open:
                runs[job_id] = claim
            if not runs:
                del self._open[unique.gate]
        found: list[Closing] = []
        for gate in changed:
            runs = self._open.get(gate, {})
            found += closings([claim for job_id, claim in runs.items() if job_id not in self._closing])
        self._closing.update((each.claim.run.id, each.claim.run.run) for each in found)
        return found

    def is_closing(self, job_id: str) -> bool:
        """Return whether ``note`` has returned the job, and its run has not ended yet."""
        return job_id in self._closing
