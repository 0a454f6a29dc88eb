"""``ctx.then`` and signals with real projectors and workers."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest

from jobtape import Context, Flow, Signal, Unique, job, step
from jobtape.schemas.events import Submitted
from jobtape.schemas.events.interventions import cancelled, redriven, signalled
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.consumer.rebuild_helpers import rebuilt
from tests.flows import flow_ended, jobs_of, put_job
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

_open: dict[str, asyncio.Event] = {}
_calls: list[int] = []
"""The runs in which ``split`` was called."""
_broken: set[int] = set()
"""The numbers for which ``double`` fails."""


@job("double")
async def double(x: int) -> int:
    if x in _broken:
        raise ValueError(f"no {x}")
    return 2 * x


@job("gated")
async def gated() -> str:
    await _open["gate"].wait()
    return "open"


@job("sum")
async def add_up(results: list[int | None], plus: int = 0) -> int:
    return sum(each or 0 for each in results) + plus


@job("split")
async def split(n: int, ctx: Context, on: str = "success") -> Any:
    _calls.append(ctx.run)
    return ctx.then(add_up, [step(double, x) for x in range(n)], plus=ctx.run, on=on)


@job("split.isolated", isolate=True)
def split_isolated(n: int, ctx: Context) -> Any:
    return ctx.then(add_up, [step(double, x) for x in range(n)])


@job("deep")
async def deep(levels: int, ctx: Context) -> int:
    return ctx.then(deep, levels=levels - 1) if levels else ctx.depth


@job("answer")
async def answer(signal: dict[str, Any] | None) -> str:
    return "nobody answered" if signal is None else str(signal["by"])


@job("ask")
async def ask(timeout: float | None, ctx: Context) -> Any:
    return ctx.then(answer, wait=Signal("approved", timeout=timeout))


@job("hold")
async def hold(ctx: Context) -> Any:
    return ctx.then(answer, {"gate": step(gated)}, signal={"by": "gate"})


@job("customer", ordering_key="customer")
async def of_customer(customer: str, ctx: Context, text: str = "") -> str:
    return text or ctx.then(of_customer, customer=customer, text="same key")


@job("go_on")
async def go_on(customer: str, ctx: Context) -> Any:
    return ctx.then(of_customer, customer=customer, text="same key")


@job("customer.far", ordering_key="customer")
async def far(customer: str, ctx: Context, within_flow: bool = False) -> Any:
    if not within_flow:
        return ctx.then(go_on, customer=customer)
    inner = Flow()
    inner.add(of_customer, customer=customer, text="same key", node="same")
    return ctx.then(add_up, {"inner": step("jobtape.flow", inner.body())}, results=[])


@job("customer.alone", unique=Unique(by=["customer"], conflict="replace"))
async def alone(customer: str, ctx: Context, text: str = "") -> str:
    return text or ctx.then(alone, customer=customer, text="same key")


TYPES: Final = (
    *(double, gated, add_up, split, deep, answer, ask, hold, of_customer, split_isolated),
    *(go_on, far, alone),
)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    _open["gate"] = asyncio.Event()
    _calls.clear()
    _broken.clear()


put = partial(put_job, types=TYPES)


def stamp(rig: Rig) -> dict[str, Any]:
    return {"source": rig.topology.source, "time": datetime.now(UTC)}


async def check(rig: Rig, store: Store) -> None:
    report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    await rig.read_to_end()
    placed = [event.subject for event in rig.events if isinstance(event, Submitted)]
    assert len(placed) == len(set(placed)), "a follow-up was submitted twice"


async def publish(rig: Rig, store: Store, make: Any, job_id: str, *args: Any, key: str | None = None) -> None:
    found = store.job(job_id)
    assert found is not None
    event = make(found, *args, source=rig.topology.source, time=datetime.now(UTC))
    await rig.publisher.publish(event, () if key is None else (key,))


async def waits(store: Store, job_id: str, children: int = 0) -> Job:
    """Wait until the job waits for its follow-ups, and has so many jobs below it."""

    def condition() -> Job | None:
        found = store.job(job_id)
        waits = found is not None and found.awaits_follow_ups
        return found if waits and len(jobs_of(store, job_id)) == children else None

    return await eventually(condition, what=f"{job_id} waits: {store.job(job_id)}")


async def test_outcome_of_the_continuation_is_that_of_the_job(rig: Rig, store: Store) -> None:
    """Of ``def`` and isolated handlers too; failures, redrives and a rebuild."""
    async with rig.projector(store), rig.worker(*TYPES):
        first, isolated = await put(rig, split, n=4), await put(rig, split_isolated, n=3)
        ended = await flow_ended(store, first)
        assert (ended.state, ended.result, ended.reason) == (JobState.SUCCEEDED, 12 + 1, None)
        await rig.read_to_end()
        assert rig.steps(first) == ["submitted", "continued", "succeeded"]
        assert {each.node: each.result for each in jobs_of(store, first)} == {
            **{str(n): 2 * n for n in range(4)},
            "then": 13,
        }
        assert {each.depth for each in jobs_of(store, first)} == {1}
        assert (await flow_ended(store, isolated)).result == 6

        _broken.add(2)
        failing = await put(rig, split, n=3)
        ended = await flow_ended(store, failing)
        assert (ended.state, ended.reason) == (JobState.FAILED, "node_failed")
        assert ended.error is not None and ended.error.message == "these follow-ups failed: 2"
        assert "then" not in {each.node for each in jobs_of(store, failing)}
        handled = await put(rig, split, n=3, on="done")
        assert (await flow_ended(store, handled)).result == 2 + 1

        # The handler runs again, and names jobs of that run.
        _broken.clear()
        await publish(rig, store, redriven, failing)
        ended = await flow_ended(store, failing, run=2)
        assert (ended.state, ended.result, _calls.count(2)) == (JobState.SUCCEEDED, 6 + 2, 1)
        assert len(jobs_of(store, failing)) == 3 + 4
        deepest = await put(rig, deep, levels=8)
        assert (await flow_ended(store, deepest)).result == 8
        too_deep = await put(rig, deep, levels=9)
        ended = await flow_ended(store, too_deep)
        assert ended.reason == "result_invalid" and ended.error is not None and "8 deep" in ended.error.message
        same_key = await put(rig, of_customer, customer="a")
        ended = await flow_ended(store, same_key)
        assert ended.error is not None and "ordering key" in ended.error.message
        before = [store.job(each) for each in (first, failing, deepest, too_deep)]
        await asyncio.to_thread(rebuilt, store)
        assert [store.job(each) for each in (first, failing, deepest, too_deep)] == before
        await check(rig, store)


async def test_follow_up_that_would_wait_for_a_job_above_it_fails(rig: Rig, view: Store) -> None:
    """Each job here waits for one below it, which can only begin when the first one has ended."""
    async with rig.projector(view), rig.worker(*TYPES):
        below, within, unique = (
            await put(rig, far, customer="a"),
            await put(rig, far, customer="b", within_flow=True),
            await put(rig, alone, customer="c"),
        )
        for job_id, why in ((below, "the ordering key 'customer=a'"), (unique, "the unique key 'customer=c'")):
            ended = await flow_ended(view, job_id)
            assert (ended.state, ended.reason) == (JobState.FAILED, "payload_invalid")
            assert ended.error is not None and why in ended.error.message
        assert (await flow_ended(view, within)).reason == "node_failed"
        (inner,) = jobs_of(view, within)
        (same,) = jobs_of(view, inner.id)
        assert same.error is not None and "the ordering key 'customer=b'" in same.error.message
        await check(rig, view)


async def test_job_that_waits_is_neither_running_nor_on_a_queue(rig: Rig, view: Store) -> None:
    """A projector that takes over and a rebuild go on with it; late events of other executions change nothing."""
    async with rig.worker(*TYPES):
        async with rig.projector(view, owner="p1", lease=1.0):
            job_id = await put(rig, hold)
            found = await waits(view, job_id, children=1)
            assert (found.state, found.reason, found.awaits_placement) == (JobState.HELD, "follow_ups", False)
            lost = view.open_jobs.overdue("default", datetime(2100, 1, 1, tzinfo=UTC), 2**60, "", 10)
            assert job_id not in {each.id for each in lost}
        await asyncio.to_thread(rebuilt, view)
        assert view.job(job_id) == found
        async with rig.projector(view, owner="p2", lease=1.0):
            _open["gate"].set()
            assert (await flow_ended(view, job_id)).result == "gate"
            await check(rig, view)


async def test_cancelled_job_cancels_its_follow_ups(rig: Rig, view: Store) -> None:
    """Also if no projector saw that before the job was redriven."""
    async with rig.worker(*TYPES):
        async with rig.projector(view, owner="p1", lease=1.0):
            one, two = await put(rig, hold), await put(rig, hold)
            for job_id in (one, two):
                await waits(view, job_id, children=1)
            await publish(rig, view, cancelled, one, key=CANCEL_KEY)
            assert (await flow_ended(view, one)).reason is None
            await eventually(lambda: [each.state for each in jobs_of(view, one)] == ["cancelled"])
            found = view.job(two)
            assert found is not None
            await rig.publisher.publish(cancelled(found, **stamp(rig)), (CANCEL_KEY,))
        await rig.publisher.publish(redriven(found, **stamp(rig)))
        async with rig.projector(view, owner="p2", lease=1.0):
            await eventually(lambda: [each.state for each in jobs_of(view, two) if each.final] == ["cancelled"])
            await waits(view, two, children=2)
            _open["gate"].set()
            assert (await flow_ended(view, two, run=2)).result == "gate"
            await check(rig, view)


async def test_signal_before_while_and_after_it_is_waited_for(rig: Rig, store: Store) -> None:
    async with rig.projector(store):
        early = await put(rig, ask, timeout=None)
        await eventually(lambda: store.job(early))
        await publish(rig, store, partial(signalled, signal="approved", payload={"by": "early"}, key="1"), early)
        async with rig.worker(*TYPES):
            assert (await flow_ended(store, early)).result == "early"
            job_id, late = await put(rig, ask, timeout=60.0), await put(rig, ask, timeout=0.05)
            await waits(store, job_id)
            await publish(rig, store, partial(signalled, signal="other", payload={}, key="1"), job_id)
            await publish(rig, store, partial(signalled, signal="approved", payload={"by": "Ada"}, key="1"), job_id)
            await publish(rig, store, partial(signalled, signal="approved", payload={"by": "Bob"}, key="2"), job_id)
            ended = await flow_ended(store, job_id)
            assert ended.result == "Ada" and ended.signals is not None and {*ended.signals} == {"other", "approved"}
            assert (await flow_ended(store, late)).result == "nobody answered"
            await publish(rig, store, partial(signalled, signal="approved", payload={"by": "late"}, key="1"), late)
            await eventually(lambda: rig.names(late).count("signalled") == 2)
            await check(rig, store)
            found = store.job(late)
            assert found is not None and found.result == "nobody answered"
            assert found.signals is not None and found.signals["approved"]["timed_out"]


async def test_of_a_signal_and_its_time_out_one_wins(rig: Rig, view: Store) -> None:
    """Many times: some signals come early, some about when the time is over, some never."""

    async def send(job_id: str) -> None:
        signal = signalled(Job(job_id, "ask", JobState.HELD, 1, 1), "approved", {"by": "Ada"}, "1", **stamp(rig))
        await rig.publisher.publish(signal)

    async with rig.projector(view):
        jobs = [await put(rig, ask, timeout=1.0) for _ in range(60)]
        await asyncio.gather(*map(send, jobs[:10]))
        async with rig.worker(*TYPES, concurrency=20):
            for job_id in jobs[10:50]:
                await eventually(partial(_continued, rig, job_id), what="it has continued")
                await send(job_id)
            results = [(await flow_ended(view, job_id)).result for job_id in jobs]
            assert {*results} == {"Ada", "nobody answered"}
            for job_id, result in zip(jobs, results, strict=True):
                first = next(event for event in rig.events if event.subject == job_id and event.name == "signalled")
                assert first.data.timed_out is (result == "nobody answered")  # type: ignore[union-attr]
                assert [each.node for each in jobs_of(view, job_id)] == ["then"]
            await check(rig, view)


def _continued(rig: Rig, job_id: str) -> bool:
    return "continued" in rig.names(job_id)
