"""``evolve`` takes any event in any order, accepts what its table allows, and otherwise returns the same object."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas import events
from jobtape.schemas.fold import TRANSITIONS, evolve
from jobtape.schemas.job import FINAL, Job, JobState
from tests.schemas.strategies import any_event


@given(st.lists(any_event(), max_size=25))
def test_evolve_accepts_any_events_in_any_order(tape: list[events.JobEvent]) -> None:
    job: Job | None = None
    for cursor, event in enumerate(tape, 1):
        after = evolve(job, event, cursor)
        if after is not job:
            later_run = job is None or (event.data.run > job.run and not isinstance(event, events.Submitted))
            before = None if later_run or job is None else job.state
            assert after.state in TRANSITIONS[before, event.name]
            assert after.cursor == cursor
            assert after.run == (event.data.run if later_run and event.name != "submitted" else after.run)
        job = after


@given(st.lists(any_event(), min_size=1, max_size=25))
def test_repeated_event_returns_same_object(tape: list[events.JobEvent]) -> None:
    job: Job | None = None
    for event in tape:
        job = evolve(job, event)
    assert job is not None
    for event in tape:
        assert evolve(job, event) is job


@given(st.lists(any_event(), max_size=25))
def test_run_and_attempt_never_decrease(tape: list[events.JobEvent]) -> None:
    job: Job | None = None
    for event in tape:
        after = evolve(job, event)
        if job is not None:
            assert (after.run, after.attempt) >= (job.run, job.attempt)
        job = after


@given(st.sampled_from(sorted(JobState)), any_event(), st.integers(1, 3), st.integers(1, 3))
def test_event_outside_table_changes_nothing(state: JobState, event: events.JobEvent, run: int, attempt: int) -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(id=event.subject, type="add", state=state, run=run, attempt=attempt, submitted_at=time)
    if event.data.run <= run and (state, event.name) not in TRANSITIONS:
        assert evolve(job, event) is job


def test_table_closes_runs() -> None:
    for (state, name), targets in TRANSITIONS.items():
        assert targets
        if state in FINAL:
            assert targets == (state,)
            assert name in ("submitted", "released")


def test_table_has_every_event_and_state() -> None:
    assert {name for _, name in TRANSITIONS} == set(events.EVENT_NAMES)
    assert {state for targets in TRANSITIONS.values() for state in targets} == set(JobState)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)), st.integers(1, 30))
def test_evolve_does_not_change_its_argument(wait: timedelta, cursor: int) -> None:
    job = Job(id="x", type="add", state=JobState.RUNNING, run=1, attempt=1, cursor=cursor)
    event = events.Cancelled(
        id="i",
        source="s",
        subject="01890a5d-ac96-774b-bcce-b302099a8057",
        time=datetime(2026, 1, 1, tzinfo=UTC) + wait,
        data=events.CancelledData(job_type="add", run=1, attempt=1),
    )
    after = evolve(job, event, cursor + 1)
    assert (job.state, job.cursor, after.state, after.cursor) == ("running", cursor, "cancelled", cursor + 1)
