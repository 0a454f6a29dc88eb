"""Hypothesis strategies for the events of a job: an undisturbed life, then that life as AMQP may bring it to the tape.

Undisturbed: a job has runs of attempts. An attempt is executed once, or more often after redelivery. Each execution may
publish that it started, its progress and its outcome, or die. Its outcome may be that other jobs follow; the projector
then ends the run. Signals may come at any time. The job may be cancelled at any time, a closed run may be
redriven, work may be deferred, and work that seems lost may be placed again, whether or not it was lost.
"""

from hypothesis import strategies as st

from jobtape.schemas.events import Continued, JobEvent, Progressed, Started
from tests.schemas import events_of_a_job as facts
from tests.schemas.events_of_a_job import JOB, Execution

Tape = list[JobEvent]


@st.composite
def honest(draw: st.DrawFn, job: str = JOB) -> Tape:
    """A job's events in the order in which they happened."""
    tape: Tape = [facts.submitted(0, job)]
    for run in range(1, draw(st.integers(1, 3)) + 1):
        if run > 1:
            tape.append(facts.redriven(run, len(tape), job))
        begin = len(tape)
        last = draw(st.integers(1, 3))
        for attempt in range(1, last + 1):
            placed = 1
            if run > 1 or attempt > 1:
                tape.append(facts.placed(1, len(tape), run=run, attempt=attempt, job=job))
            while placed < 3 and draw(st.integers(0, 4)) == 0:
                if draw(st.booleans()):  # the worker does not know the job type; otherwise its message never came
                    tape.append(facts.deferred(placed, len(tape), run=run, attempt=attempt, job=job))
                placed += 1
                tape.append(facts.placed(placed, len(tape), run=run, attempt=attempt, job=job))
            lived = _attempt(draw, Execution("", attempt, run, job), len(tape), attempt == last)
            if placed < 3 and draw(st.integers(0, 3)) == 0:
                placed += 1
                place = draw(st.integers(0, len(lived)))
                given_up = _running(lived[:place])
                again = facts.placed(placed, len(tape) + place, run=run, attempt=attempt, lost=given_up, job=job)
                # The projector decides; what comes between that and the event's place on the tape, it could not know.
                lived.insert(draw(st.integers(place, len(lived))), again)
            tape += lived
        continued = next((event for event in tape[begin:] if isinstance(event, Continued)), None)
        if continued is not None and draw(st.booleans()):
            flow = Execution("flow", continued.data.attempt, run, job)
            end = flow.succeeded if draw(st.booleans()) else flow.failed
            tape.append(end(len(tape)))
        for key in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
            place = draw(st.integers(begin, len(tape)))
            name = draw(st.sampled_from(["approved", "paid"]))
            tape.insert(place, facts.signalled(name, key, place, run=run, job=job))
        if draw(st.integers(0, 3)) == 0:
            place = draw(st.integers(begin, len(tape)))
            tape.insert(place, facts.cancelled(run, place, job))
    return tape


def _attempt(draw: st.DrawFn, of: Execution, second: int, last: bool) -> Tape:
    """The executions of one attempt, one after the other or mixed (the first worker was only frozen)."""
    publishers: list[Tape] = []
    for number in range(draw(st.sampled_from([1, 1, 2, 3]))):
        # Random names: nothing about their order may matter.
        name = f"{draw(st.integers(0, 99)):02}-{of.run}{of.attempt}{number}"
        publishers.append(_execution(draw, Execution(name, of.attempt, of.run, of.job), second + 10 * number, last))
    return draw(interleaved(publishers)) if draw(st.booleans()) else [event for own in publishers for event in own]


def _execution(draw: st.DrawFn, execution: Execution, second: int, last: bool) -> Tape:
    said: Tape = [execution.started(second)] if draw(st.booleans()) else []
    said += [execution.progressed(n, second + n) for n in range(1, draw(st.integers(0, 3)) + 1)]
    # An attempt that is retried may still succeed, in another execution.
    outcomes = ["succeeded", "failed", "dies"] if last else ["retrying", "retrying", "retrying", "dies", "succeeded"]
    outcomes += ["continued"] if draw(st.integers(0, 3)) == 0 else []
    outcome = draw(st.sampled_from(outcomes))
    if outcome == "succeeded":
        said.append(execution.succeeded(second + 5))
    elif outcome == "continued":
        said.append(execution.continued(second + 5))
    elif outcome == "failed":
        said.append(execution.failed(second + 5))
    elif outcome == "retrying":
        said.append(execution.retrying(second + 5))
    return said


def _running(lived: Tape) -> str | None:
    """The execution of the latest event."""
    received = [event.data.execution for event in lived if isinstance(event, Started | Progressed)]
    return received[-1] if received else None


@st.composite
def interleaved(draw: st.DrawFn, publishers: list[Tape]) -> Tape:
    """The events of several publishers, in any order that keeps the order of each publisher."""
    turns = draw(st.permutations([i for i, own in enumerate(publishers) for _ in own]))
    said = [iter(own) for own in publishers]
    return [next(said[turn]) for turn in turns]


@st.composite
def delayed(draw: st.DrawFn, tape: Tape) -> Tape:
    """Move some events to later places on the tape: published again after a lost connection, or overtaken."""
    delays = st.sampled_from([0, 0, 0, 0, 1, 2, 5, 40])
    moved = [(i + draw(delays), i) for i in range(len(tape))]
    return [tape[i] for _, i in sorted(moved)]


@st.composite
def repeated(draw: st.DrawFn, tape: Tape) -> Tape:
    """Repeat any events at any later places: a confirm was lost, so the publish was repeated."""
    tape = list(tape)
    for _ in range(draw(st.integers(1, 6))):
        original = draw(st.integers(0, len(tape) - 1))
        tape.insert(draw(st.integers(original + 1, len(tape))), tape[original])
    return tape


def disturbed(job: str = JOB) -> st.SearchStrategy[Tape]:
    """A job's events as they may be on the tape: delayed, mixed or repeated in some of the examples."""
    delayed_lives = st.one_of(honest(job), honest(job).flatmap(delayed))
    return st.one_of(delayed_lives, delayed_lives.flatmap(repeated))
