"""``jobtape doctor`` says which jobs have waited long for their gates, and what keeps them from running."""

from datetime import timedelta

from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.gates import MOST, examine_gates
from jobtape.schemas.events import JobEvent, submitted
from jobtape.schemas.events.placement import placement
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Order
from jobtape.schemas.queueing.gates import DebounceKey, Gates, Limit
from jobtape.schemas.rules.rules import PAUSE, RulesInForce
from jobtape.view.store import Store
from tests.schemas.events_of_a_job import SOURCE, Execution, at
from tests.view.samples import begin, job_id, record

SUBMITTED = at(0)
LATER = SUBMITTED + timedelta(minutes=15)


def new(n: int, gates: Gates, queue: str = "default", **order: object) -> JobEvent:
    made = Order.model_validate({"type": "add", "payload": {}, "queue": queue, "timeout": 1.0, "gates": gates} | order)
    return submitted(job_id(n), made, source=SOURCE, time=SUBMITTED + timedelta(seconds=n))


def placed(event: JobEvent) -> JobEvent:
    made = placement(evolve(None, event), source=SOURCE, time=SUBMITTED, fence=1)
    assert made is not None
    return made


def findings(store: Store, *rules: tuple[str, str, dict[str, str]]) -> list[tuple[str, str]]:
    found = Findings()
    examine_gates(found, store, RulesInForce.of(rules), LATER)
    assert found.healthy
    return [(each.what, each.todo or "") for each in found.items]


def test_doctor_names_what_jobs_wait_for_and_the_job_that_has_it(store: Store) -> None:
    begin(store)
    hold = Gates(ordering_key="customer=a", hold=True)
    few = Gates(limits=(Limit(name="few", at_most=1),))
    failing, running = new(1, hold), new(2, few)
    record(store, failing, placed(failing), Execution("e", job=job_id(1)).failed(), running, placed(running))
    record(store, *(new(n, hold) for n in (3, 4)), new(5, few))
    record(
        store,
        new(6, Gates(ordering_key="b"), run_at=LATER + timedelta(days=1)),
        new(7, Gates(ordering_key="b")),
        new(8, Gates(debounce=DebounceKey(name="d", seconds=3600))),
        new(9, Gates(limits=(Limit(name="other", at_most=1),)), queue="mail"),
    )
    (failed, limited, later, paused) = findings(store, ("r", PAUSE, {"queue": "mail"}))
    assert failed[0].startswith(
        f"the job {job_id(3)} has waited for 897 s, and 1 more with the same gates: ordering key customer=a; "
        f"the job {job_id(1)} has failed and holds its key"
    )
    assert f"`jobtape release {job_id(1)}`" in failed[1]
    assert limited[0].endswith(f"limit few, at most 1; the job {job_id(2)} (queued) has it")
    assert f"{job_id(6)} has waited" in later[0] and "later jobs wait for it" in later[0]
    assert paused == (
        f"the job {job_id(9)} has waited for 891 s: limit other, at most 1; the queue mail is paused",
        "`jobtape resume --queue mail`",
    )
    assert "no job keeps it" in findings(store)[-1][0]


def test_doctor_knows_what_a_job_keeps_that_waits_for_its_follow_ups(store: Store) -> None:
    """Its ordering key, and not its limit."""
    begin(store)
    few = (Limit(name="few", at_most=1),)
    above = new(1, Gates(ordering_key="a", limits=few))
    record(store, above, placed(above), Execution("e", job=job_id(1)).continued())
    record(store, new(2, Gates(limits=few)), new(3, Gates(ordering_key="a")))
    of_limit, of_key = findings(store)
    assert "no job keeps it" in of_limit[0]
    assert of_key[0].endswith(f"ordering key a; the job {job_id(1)} (waits for its follow-ups) has it")


def test_doctor_is_silent_where_nothing_waits_long_and_brief_where_much_does(store: Store) -> None:
    begin(store)
    record(store, *(new(1000 + n, Gates(ordering_key=str(n))) for n in range(3)))
    assert findings(store) == []
    record(store, *(new(n, Gates(ordering_key=f"long {n}")) for n in range(MOST + 3)))
    assert len(findings(store)) == MOST
