"""Faults that tests can cause: a second delivery, a worker that dies, another order."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobtape import Context, JobtapeError, job
from jobtape.testing import Installation, assert_idempotent, memory
from tests.testing import jobs

sent: list[Any] = []


@job("mail.twice")
async def mail_twice(to: str) -> None:
    sent.append(to)


@job("mail.once")
async def mail_once(ctx: Context, to: str) -> None:
    if ctx.idempotency_key not in sent:
        sent.append(ctx.idempotency_key)


@job("child.twice")
async def child_twice() -> None:
    await jobs.add.submit(x=1, y=1)


@job("child.once")
async def child_once(ctx: Context) -> None:
    await ctx.spawn(jobs.add, x=1, y=1, key="child")


@pytest.fixture(scope="module")
def jt() -> Iterator[Installation]:
    """An installation in memory."""
    with memory([*jobs.ALL, mail_twice]) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    """Forget what the handlers of other tests did."""
    sent.clear()
    jobs.ran.clear()


@pytest.mark.anyio
async def test_redeliver_executes_again_and_keeps_the_first_outcome(jt: Installation) -> None:
    job_ = await mail_twice.submit(to="ada@example.org")
    await jt.drain()
    jt.redeliver(job_)
    await jt.drain()
    assert sent == ["ada@example.org"] * 2
    assert [event.name for event in jt.events(job_)] == ["submitted", "succeeded"]


@pytest.mark.anyio
async def test_die_before_ack_executes_again(jt: Installation) -> None:
    job_, other = await mail_twice.submit(to="a"), await mail_twice.submit(to="b")
    jt.die_before_ack(job_)
    await jt.drain()
    assert sorted(sent) == ["a", "a", "b"]
    assert [jt[job_].state, jt[other].state] == ["succeeded", "succeeded"]


@pytest.mark.anyio
async def test_job_that_dies_often_is_given_up(jt: Installation) -> None:
    job_ = await mail_twice.submit(to="a")
    for _ in range(3):  # from the third on it would run in a process, which memory has not
        jt.redeliver(job_)
        await jt.drain()
    assert jt[job_].state == "succeeded"


@pytest.mark.anyio
async def test_reorder_delivers_in_an_order_of_its_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        jobs.ran.clear()
        with memory([jobs.add], concurrency=1) as jt:
            jt.reorder(seed)
            for n in range(8):
                await jobs.add.submit(x=n, y=0)
            await jt.drain()
        orders.append([x for _, x, _ in jobs.ran])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(8)) != orders[0]


@pytest.mark.anyio
async def test_unknown_job_is_not_redelivered(jt: Installation) -> None:
    with pytest.raises(JobtapeError, match="never placed"):
        jt.redeliver("0198c0de-0000-7000-8000-000000000000")


@pytest.mark.anyio
async def test_assert_idempotent_finds_planted_double_effect() -> None:
    with pytest.raises(AssertionError, match=r"had an effect again: 1 became 2"):
        await assert_idempotent(mail_twice, to="ada@example.org", effect=lambda: len(sent))
    sent.clear()
    await assert_idempotent(mail_once, to="ada@example.org", effect=lambda: len(sent))


@pytest.mark.anyio
async def test_assert_idempotent_finds_job_that_is_submitted_twice() -> None:
    with pytest.raises(AssertionError, match=r"submitted add again"):
        await assert_idempotent(child_twice, others=[jobs.add])
    await assert_idempotent(child_once, others=[jobs.add])


@pytest.mark.anyio
async def test_assert_idempotent_refuses_handler_that_fails() -> None:
    with pytest.raises(AssertionError, match="has not succeeded: Fail: never"):
        await assert_idempotent(jobs.broken)
