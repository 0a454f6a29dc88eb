"""Jobs with an ordering key or limits run in order and within them, with real workers and projectors."""

import asyncio
import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobtape import Context, job
from jobtape.schemas.events.interventions import redriven, released
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.queueing.gates import DebounceKey, Gates, Limit, UniqueKey
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.rebuild_helpers import rebuilt
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@job("fenced")
async def fenced(ctx: Context, seconds: float = 0.0) -> int | None:
    await asyncio.sleep(seconds)
    return ctx.fence


async def publish(rig: Rig, job_type: str, gates: Gates, payload: dict[str, Any] | None = None, **order: Any) -> str:
    event = order_event(rig.topology, job_type, payload, gates=gates, **order)
    await rig.publisher.publish(event)
    return event.subject


async def ended(store: Store, job_ids: list[str]) -> list[Job]:
    def condition() -> list[Job] | None:
        found = store.jobs(job_ids)
        done = [found[job_id] for job_id in job_ids if job_id in found and found[job_id].final]
        return done if len(done) == len(job_ids) else None

    return await eventually(condition, what="all jobs have ended")


async def check(rig: Rig, store: Store) -> None:
    report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)


async def test_jobs_with_the_same_ordering_key_run_one_after_the_other(rig: Rig, store: Store) -> None:
    """Their executions do not overlap, they begin in the order of the tape, and their fences grow."""
    async with rig.projector(store), rig.worker(fenced), rig.worker(fenced):
        ids = [await publish(rig, "fenced", Gates(ordering_key=f"k{n % 3}"), {"seconds": 0.003}) for n in range(30)]
        await ended(store, ids)
        by_key: defaultdict[str, list[Job]] = defaultdict(list)
        for done in store.jobs(ids).values():
            assert done.gates is not None and done.gates.ordering_key is not None
            by_key[done.gates.ordering_key].append(done)
        for of_key in by_key.values():
            of_key.sort(key=lambda each: each.rank or 0)
            for earlier, later in itertools.pairwise(of_key):
                assert earlier.finished_at is not None and later.started_at is not None
                assert earlier.finished_at <= later.started_at
                assert earlier.result < later.result
        await check(rig, store)


async def test_limit_is_kept_and_used(rig: Rig, store: Store) -> None:
    limited = Gates(limits=(Limit(name="few", at_most=2),))
    async with rig.projector(store), rig.worker(fenced), rig.worker(fenced):
        ids = [await publish(rig, "fenced", limited, {"seconds": 0.05}) for _ in range(8)]
        done = await ended(store, ids)
        moments = sorted(
            (moment, change)
            for each in done
            if each.started_at is not None and each.finished_at is not None
            for moment, change in ((each.started_at, 1), (each.finished_at, -1))
        )
        running = [sum(change for _, change in moments[: n + 1]) for n in range(len(moments))]
        assert max(running) == 2
        await check(rig, store)


async def test_rate_is_kept_in_every_window_of_the_tape(rig: Rig, store: Store) -> None:
    """``check`` counts the placements of every window; the projector that takes over does not know the earlier ones."""
    rated = Gates(limits=(Limit(name="api", at_most=20, per=0.5),))
    async with rig.worker(fenced):
        async with rig.projector(store):
            ids = [await publish(rig, "fenced", rated) for _ in range(50)]
            await ended(store, ids[:15])
        async with rig.projector(store):
            await ended(store, ids)
            await check(rig, store)


async def test_job_that_holds_its_key_lets_the_next_one_run_when_it_is_released(rig: Rig, store: Store) -> None:
    hold = Gates(ordering_key="a", hold=True)
    async with rig.projector(store), rig.worker(jobs.boom, jobs.add):
        first = await publish(rig, "boom", hold)
        second = await publish(rig, "add", hold, {"x": 1, "y": 2})
        other = await publish(rig, "add", Gates(ordering_key="b"), {"x": 1, "y": 2})
        await ended(store, [first, other])
        held = store.job(second)
        assert held is not None and held.state is JobState.HELD
        failed = store.job(first)
        assert failed is not None and failed.has_slots
        await rig.publisher.publish(released(failed, source=rig.topology.source, time=datetime.now(UTC)))
        await ended(store, [second])
        assert not store.jobs([first])[first].has_slots
        await check(rig, store)


async def test_retention_keeps_failed_job_that_holds_its_key(rig: Rig, view: Store) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    async with rig.projector(view), rig.worker(jobs.boom):
        first = await publish(rig, "boom", Gates(ordering_key="a", hold=True))
        (failed,) = await ended(view, [first])
        assert await asyncio.to_thread(view.retention.prune, "p1", later) is not None
        assert view.job(first) is not None
        await rig.publisher.publish(released(failed, source=rig.topology.source, time=datetime.now(UTC)))

        def pruned() -> bool:
            view.retention.prune("p1", later)
            return view.job(first) is None

        await eventually(pruned)


async def test_retried_job_keeps_its_ordering_key(rig: Rig, store: Store) -> None:
    key = Gates(ordering_key="a")
    async with rig.projector(store), rig.worker(jobs.boom, jobs.add):
        first = await publish(rig, "boom", key, max_attempts=3)
        second = await publish(rig, "add", key, {"x": 1, "y": 2})
        done = await ended(store, [first, second])
    assert [each.attempt for each in done] == [3, 1]
    assert done[0].finished_at is not None and done[1].started_at is not None
    assert done[0].finished_at <= done[1].started_at


async def test_projector_that_takes_over_goes_on_in_order(rig: Rig, store: Store) -> None:
    """It finds the slots that are taken, and places nothing twice."""
    gates = [Gates(ordering_key=str(n)) for n in range(3)] + [Gates(limits=(Limit(name="few", at_most=2),))]
    async with rig.projector(store, owner="p2", lease=1.0, ready=False), rig.worker(fenced):
        async with rig.projector(store, owner="p1", lease=1.0):
            ids = [await publish(rig, "fenced", gates[n % 4], {"seconds": 0.02}) for n in range(60)]
            await eventually(lambda: sum(each.final for each in store.jobs(ids).values()) > 10)
        await ended(store, ids)
        await rig.read_to_end()
        assert {rig.names(each).count("placed") for each in ids} == {1}
        await check(rig, store)


async def until_running(store: Store, job_id: str) -> None:
    def runs() -> bool:
        found = store.job(job_id)
        return found is not None and found.state is JobState.RUNNING

    await eventually(runs)


async def test_later_job_with_the_unique_key_ends_as_duplicate(rig: Rig, store: Store) -> None:
    """Also beside an ordering key; when the first one has ended, the key is free."""
    key = UniqueKey(name="orders", key="order=7")
    async with rig.projector(store):
        first = await publish(rig, "add", Gates(unique=key), {"x": 1, "y": 2})
        others = [await publish(rig, "add", Gates(unique=key, ordering_key=name), {"x": 1, "y": 2}) for name in "ab"]
        other_key = await publish(rig, "add", Gates(unique=UniqueKey(name="orders", key="order=8")), {"x": 1, "y": 2})
        for duplicate in await ended(store, others):
            assert (duplicate.state, duplicate.reason, duplicate.duplicate_of) == ("cancelled", "duplicate", first)
            await rig.read_to_end()
            assert rig.names(duplicate.id) == ["submitted", "cancelled"]
        async with rig.worker(jobs.add):
            assert [each.state for each in await ended(store, [first, other_key])] == ["succeeded"] * 2
            again = await publish(rig, "add", Gates(unique=key), {"x": 1, "y": 2})
            assert [each.state for each in await ended(store, [again])] == ["succeeded"]
        await check(rig, store)


async def test_replacing_job_cancels_what_waits_and_waits_for_what_runs(rig: Rig, store: Store) -> None:
    replace = Gates(unique=UniqueKey(name="pages", conflict="replace"))
    async with rig.projector(store), rig.worker(fenced):
        running = await publish(rig, "fenced", replace, {"seconds": 1.0})
        await until_running(store, running)
        waiting = [await publish(rig, "fenced", replace) for _ in range(3)]
        done = await ended(store, [running, *waiting])
        assert [each.state for each in done] == ["succeeded", "cancelled", "cancelled", "succeeded"]
        assert [each.reason for each in done[1:3]] == ["replaced"] * 2
        assert done[0].finished_at is not None and done[3].started_at is not None
        assert done[0].finished_at <= done[3].started_at
        await check(rig, store)


async def test_replacing_job_cancels_work_on_a_queue(rig: Rig, store: Store) -> None:
    """Its work is dropped by the worker that gets it."""
    replace = Gates(unique=UniqueKey(name="pages", conflict="replace"))
    async with rig.projector(store):
        queued = await publish(rig, "add", replace, {"x": 1, "y": 2})
        await eventually(lambda: "placed" in rig.names(queued))
        second = await publish(rig, "add", replace, {"x": 1, "y": 2})
        (replaced,) = await ended(store, [queued])
        assert (replaced.reason, replaced.duplicate_of) == ("replaced", second)
        async with rig.worker(jobs.add):
            await ended(store, [second])
            await eventually(rig.nothing_on(rig.topology.work_queue("default").name))
        await rig.read_to_end()
        assert "started" not in rig.names(queued) and "succeeded" not in rig.names(queued)
        await check(rig, store)


async def test_projector_that_takes_over_decides_what_the_last_one_has_not(rig: Rig, store: Store) -> None:
    """A redriven job has to wait for the job that has its key."""
    key = Gates(unique=UniqueKey(name="orders"))
    async with rig.projector(store):
        first = await publish(rig, "add", key, {"x": 1, "y": 2})
        second = await publish(rig, "add", key, {"x": 1, "y": 2})
        (duplicate,) = await ended(store, [second])
    third = await publish(rig, "add", key, {"x": 1, "y": 2})
    await rig.publisher.publish(redriven(duplicate, source=rig.topology.source, time=datetime.now(UTC)))
    async with rig.projector(store):

        def decided() -> bool:
            found = store.jobs([second, third])
            return all(each.final for each in found.values()) and found[second].run == 2

        await eventually(decided)
        assert {each.duplicate_of for each in store.jobs([second, third]).values()} == {first}
        async with rig.worker(jobs.add):
            await ended(store, [first])
        await check(rig, store)


async def test_last_of_the_debounced_jobs_runs_when_no_other_comes(rig: Rig, store: Store) -> None:
    """After a take-over too."""
    gates = Gates(debounce=DebounceKey(name="pages", key="a", seconds=1.5, at_most=60))
    other = Gates(debounce=DebounceKey(name="pages", key="b", seconds=1.5))
    async with rig.worker(jobs.add):
        async with rig.projector(store):
            ids = [await publish(rig, "add", gates, {"x": 1, "y": 2}) for _ in range(3)]
            ids.append(await publish(rig, "add", other, {"x": 1, "y": 2}))
            await ended(store, ids[:2])
        async with rig.projector(store):
            done = await ended(store, ids)
            assert [each.reason for each in done] == ["debounced", "debounced", None, None]
            assert [each.duplicate_of for each in done] == [ids[1], ids[2], None, None]
            assert done[2].started_at is not None and done[2].submitted_at is not None
            assert (done[2].started_at - done[2].submitted_at).total_seconds() >= 1.5
            await check(rig, store)


async def test_rebuild_gives_the_same_duplicates_and_places_nothing_again(rig: Rig, store: Store) -> None:
    """A projector that becomes active with the rebuilt view decides nothing again."""
    unique = Gates(unique=UniqueKey(name="orders"))
    debounced = Gates(debounce=DebounceKey(name="pages", seconds=0.1, at_most=5))
    replaced = Gates(unique=UniqueKey(name="pages", conflict="replace"))
    limited = Gates(limits=(Limit(name="few", at_most=1), Limit(name="rate", at_most=100, per=1.0)))
    hold = Gates(ordering_key="held", hold=True)
    async with rig.worker(jobs.add, jobs.boom):
        async with rig.projector(store):
            ids = [
                await publish(rig, "add", gates, {"x": 1, "y": 2})
                for gates in (unique, debounced, replaced, limited, Gates(ordering_key="a"))
                for _ in range(4)
            ]
            ids.append(await publish(rig, "boom", hold))
            behind = await publish(rig, "add", hold, {"x": 1, "y": 2})
            before = {each.id: each for each in await ended(store, ids)}
            await eventually(lambda: store.job(behind))
            before |= store.jobs([behind])
            slots = store.open_jobs.with_slots()
            await asyncio.to_thread(rebuilt, store)
        async with rig.projector(store, owner="p2"):
            assert store.jobs([*ids, behind]) == before
            assert store.open_jobs.with_slots() == slots and [each.run.id for each in slots] == [ids[-1]]
            (last,) = await ended(store, [await publish(rig, "add", unique, {"x": 1, "y": 2})])
            assert last.state is JobState.SUCCEEDED
            await rig.publisher.publish(released(before[ids[-1]], source=rig.topology.source, time=datetime.now(UTC)))
            await ended(store, [behind])
            await check(rig, store)
    await rig.read_to_end()
    assert all(max(Counter(rig.names(job_id)).values()) == 1 for job_id in ids), "nothing was placed or cancelled again"
    assert any(each.duplicate_of for each in before.values())
