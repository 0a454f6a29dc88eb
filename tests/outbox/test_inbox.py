"""An effect in a user's database happens once for each run, however often the run is executed."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobtape import Context, JobType, job
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import Succeeded, encode
from jobtape.schemas.topology import work_key
from tests.consumer.installation import Rig, order_event
from tests.faults.scale import scaled
from tests.outbox.user_database import KINDS, Kind, UserDatabase, inbox, orders
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

RUNS = scaled(50)
AT_ONCE = 20


def execution(job_id: str, run: int = 1, *, shadow: bool = False) -> Context:
    return Context(job_id, "add", run, 1, logging.getLogger("test"), lambda _: None, shadow=shadow)


async def effect(users: UserDatabase, kind: Kind, ctx: Context, n: int) -> Any:
    """Insert an order once, and return what the first execution recorded."""
    async with users.transaction(kind) as session:
        if kind.startswith("async"):
            async with ctx.once(session) as first:
                if first:
                    await session.execute(insert(orders).values(n=n))
                    first.result = {"n": n}
        else:
            with ctx.once(session) as first:
                if first:
                    session.execute(insert(orders).values(n=n))
                    first.result = {"n": n}
        return first.result


@pytest.mark.parametrize("kind", KINDS)
async def test_repeated_executions_have_one_effect(users: UserDatabase, kind: Kind) -> None:
    """Half of the executions are repeats, which run at the same time as the first ones or after them."""
    slots = asyncio.Semaphore(1 if kind in ("session", "connection") else AT_ONCE)

    async def execute(n: int) -> Any:
        async with slots:
            return await effect(users, kind, execution(f"job-{n}"), n)

    results = await asyncio.gather(*(execute(n % RUNS) for n in range(2 * RUNS)))
    assert results == [{"n": n % RUNS} for n in range(2 * RUNS)]
    assert users.rows(orders) == users.rows(inbox) == RUNS


async def test_executions_in_threads_have_one_effect(users: UserDatabase) -> None:
    def execute(n: int) -> Any:
        with Session(users.engine) as session, session.begin():
            with execution(f"job-{n}").once(session) as first:
                if first:
                    session.execute(insert(orders).values(n=n))
                    first.result = n
            return first.result

    results = await asyncio.gather(*(asyncio.to_thread(execute, n // 2) for n in range(2 * AT_ONCE)))
    assert results == [n // 2 for n in range(2 * AT_ONCE)]
    assert users.rows(orders) == AT_ONCE


async def test_effect_that_was_rolled_back_happens_in_the_next_execution(users: UserDatabase) -> None:
    with suppress(ZeroDivisionError):
        async with users.transaction("async session") as session, execution("job").once(session) as first:
            assert first
            await session.execute(insert(orders).values(n=1))
            raise ZeroDivisionError
    assert await effect(users, "async session", execution("job"), 2) == {"n": 2}
    assert users.rows(orders) == 1


async def test_each_run_and_each_step_has_its_own_effect(users: UserDatabase) -> None:
    await effect(users, "session", execution("job"), 1)
    await effect(users, "session", execution("job", run=2), 2)
    with Session(users.engine) as session, session.begin():
        with execution("job").once(session, "mail") as first:
            assert first
            assert first.result is None
        with execution("job").once(session, "mail") as second:
            assert not second
            assert second.result is None
    assert users.rows(orders) == 2


async def test_shadow_run_has_no_effect_and_finds_the_result(users: UserDatabase) -> None:
    assert await effect(users, "async connection", execution("job", shadow=True), 1) is None
    assert users.rows(inbox) == 0
    await effect(users, "connection", execution("job"), 1)
    assert await effect(users, "connection", execution("job", shadow=True), 2) == {"n": 1}


async def test_wrong_block_or_result_is_refused(users: UserDatabase) -> None:
    with Session(users.engine) as session:
        with pytest.raises(JobtapeError, match="write `with ctx"):
            async with execution("job").once(session):
                pass
        with pytest.raises(JobtapeError, match="cannot be recorded"), execution("job").once(session) as first:
            first.result = float("nan")
    async with AsyncSession(users.async_engine) as other:
        with pytest.raises(JobtapeError, match="write `async with ctx"), execution("job").once(other):
            pass


def _effect_in_coroutine(users: UserDatabase) -> JobType:
    @job("keep")
    async def keep(ctx: Context, n: int) -> int:
        async with AsyncSession(users.async_engine) as session, session.begin():
            async with ctx.once(session) as first:
                if first:
                    await session.execute(insert(orders).values(n=n))
                    first.result = n
            result: int = first.result
            return result

    return keep


def _effect_in_thread(users: UserDatabase) -> JobType:
    @job("keep")
    def keep(ctx: Context, n: int) -> int:
        with Session(users.engine) as session, session.begin():
            with ctx.once(session) as first:
                if first:
                    session.execute(insert(orders).values(n=n))
                    first.result = n
            result: int = first.result
            return result

    return keep


@pytest.mark.parametrize("make", [_effect_in_coroutine, _effect_in_thread], ids=["async def", "def"])
async def test_delivery_to_another_worker_has_no_second_effect(
    users: UserDatabase, rig: Rig, make: Callable[[UserDatabase], JobType]
) -> None:
    """As when the first worker had died before it acknowledged the delivery."""
    keep = make(users)
    event = order_event(rig.topology, "keep", {"n": 7})
    await rig.publisher.publish(event, [work_key("default")])
    async with rig.worker(keep):
        first = await rig.outcome(event.subject)
    await rig.put(encode(event))
    async with rig.worker(keep):
        await eventually(lambda: rig.names(event.subject).count("succeeded") == 2)
    outcomes = [each for each in rig.of(event.subject) if isinstance(each, Succeeded)]
    assert [each.data.result for each in outcomes] == [first.data.result] * 2
    assert users.rows(orders) == 1
