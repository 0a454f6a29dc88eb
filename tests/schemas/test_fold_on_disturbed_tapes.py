"""On tapes that AMQP has disturbed, the fold gives the same results as the second implementation in ``reference``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace

from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.events import Cancelled, Failed, JobEvent, Submitted, Succeeded
from jobtape.schemas.fold import evolve, fold
from jobtape.schemas.job import Job
from tests.schemas import reference
from tests.schemas.events_of_a_job import JOB
from tests.schemas.job_lives import Tape, disturbed, honest, interleaved, repeated

OTHER = "01890a5d-ac96-774b-bcce-b302099a8058"


def play(tape: Sequence[JobEvent]) -> tuple[Job, list[int]]:
    """The job after the tape, and the indexes of the accepted events."""
    job: Job | None = None
    accepted = []
    for place, event in enumerate(tape):
        after = evolve(job, event, place)
        if after is not job:
            accepted.append(place)
        job = after
    assert job is not None
    return job, accepted


def outcomes(tape: Tape, accepted: list[int]) -> list[tuple[int, JobEvent]]:
    chosen = [tape[place] for place in accepted]
    return [(event.data.run, event) for event in chosen if isinstance(event, Succeeded | Failed | Cancelled)]


@given(disturbed())
def test_every_prefix_folds_as_reference(tape: Tape) -> None:
    for end in range(1, len(tape) + 1):
        job, accepted = play(tape[:end])
        assert accepted == reference.counted(tape[:end])
        expected = reference.status(tape[:end])
        assert {name: value for name, value in asdict(replace(job, error=None)).items() if name in expected} == {
            **expected,
            "error": None,
        }
        assert job.error == expected["error"]


@given(disturbed())
def test_run_has_at_most_one_accepted_outcome(tape: Tape) -> None:
    _, accepted = play(tape)
    counts = Counter(run for run, _ in outcomes(tape, accepted))
    assert all(count == 1 for count in counts.values())


@given(disturbed())
def test_closed_run_changes_only_by_later_run_or_order(tape: Tape) -> None:
    job: Job | None = None
    for place, event in enumerate(tape):
        after = evolve(job, event, place)
        if job is not None and job.final and after is not job:
            assert event.data.run > job.run or isinstance(event, Submitted)
        job = after


@given(st.data(), disturbed())
def test_repeated_events_change_nothing(data: st.DataObject, tape: Tape) -> None:
    once, _ = play(tape)
    often, _ = play(data.draw(repeated(tape)))
    assert replace(often, cursor=0) == replace(once, cursor=0)


@given(disturbed())
def test_folding_whole_tape_twice_changes_nothing(tape: Tape) -> None:
    once, _ = play(tape)
    job = once
    for event in tape:
        job = evolve(job, event, 10_000)
    assert job is once


@given(honest())
def test_undisturbed_life_ends_with_its_outcome(tape: Tape) -> None:
    """On an undisturbed tape the first final event of the last run decides the outcome."""
    job, accepted = play(tape)
    ends = [event for event in tape if event.data.run == job.run and isinstance(event, Succeeded | Cancelled)]
    if job.follow_ups is not None:
        ends = [event for event in ends if isinstance(event, Cancelled) or event.data.execution == "flow"]
    closed = outcomes(tape, accepted)
    if ends:
        assert job.final
        assert closed[-1][1] is ends[0] or isinstance(closed[-1][1], Failed)
    assert job.run == max(event.data.run for event in tape)


@given(st.data(), disturbed())
def test_late_submitted_changes_no_state(data: st.DataObject, tape: Tape) -> None:
    order = next(event for event in tape if isinstance(event, Submitted))
    rest = [event for event in tape if not isinstance(event, Submitted)]
    if not rest:
        return
    place = data.draw(st.integers(1, len(rest)))
    job, _ = play(rest[:place])
    filled = evolve(job, order, 99)
    assert (filled.payload, filled.submitted_at) == (order.data.order.payload, order.time)
    assert (filled.state, filled.run, filled.attempt) == (job.state, job.run, job.attempt)
    late, _ = play([*rest[:place], order, *rest[place:]])
    never, _ = play(rest)
    assert late.submitted_at is not None and never.submitted_at is None
    assert (late.state, late.run, late.attempt, late.result) == (never.state, never.run, never.attempt, never.result)


@given(st.data(), disturbed(JOB), disturbed(OTHER))
def test_jobs_on_one_tape_are_independent(data: st.DataObject, one: Tape, two: Tape) -> None:
    mixed = list(enumerate(data.draw(interleaved([one, two]))))
    together = fold((event, cursor) for cursor, event in mixed)
    for job in (JOB, OTHER):
        assert together[job] == fold((event, cursor) for cursor, event in mixed if event.subject == job)[job]


@given(st.data(), disturbed())
def test_fold_continues_from_any_prefix(data: st.DataObject, tape: Tape) -> None:
    entries = [(event, cursor) for cursor, event in enumerate(tape)]
    place = data.draw(st.integers(0, len(entries)))
    begun = fold(entries[:place])
    untouched = dict(begun)
    assert fold(entries[place:], begun) == fold(entries)
    assert begun == untouched
