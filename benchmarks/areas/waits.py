"""How long a client waits for a result, by each way in which Jobtape notifies it, with and without other jobs."""

import asyncio
import json
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.report.section import Chart, Section, table
from benchmarks.rig.installation import Installation, percentile
from benchmarks.rig.load.wire import Wire
from benchmarks.rig.plan import Plan
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import Running, ours

JOB: Final = {"type": "add", "payload": {"x": 1, "y": 1}}
BESIDE: Final = 200.0
TIMEOUT: Final = 30.0
IDLE, LOADED = "alone", f"beside {BESIDE:g} jobs/s"

Way = Callable[[Installation], "AbstractAsyncContextManager[Arrivals | None]"]
"""Opens what results arrive by; None: the submission itself waits."""


class Arrivals:
    """When a result of which job arrived. A result may arrive before its submission is answered."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._more = asyncio.Condition()

    async def add(self, job_id: str) -> None:
        """Note that the result of a job has arrived."""
        async with self._more:
            self._at[job_id] = time.perf_counter()
            self._more.notify_all()

    async def of(self, job_id: str) -> float:
        """Wait for the result of a job, and return when it arrived."""
        async with asyncio.timeout(TIMEOUT), self._more:
            await self._more.wait_for(lambda: job_id in self._at)
            return self._at.pop(job_id)


def measure(stage: Stage, plan: Plan) -> Section:
    """Measure all ways, several rounds."""
    took: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    (system,) = ours(["sqlite"])
    for number in range(plan.rounds):
        with system.run(stage) as running:
            for way, listen in WAYS.items():
                for load in (IDLE, LOADED):
                    took[way, load].append(_calls(running, plan, listen, load))
                log(f"round {number + 1}: {way} {statistics.median(took[way, IDLE][-1]):.1f} ms")
    chart = Chart(
        "waits",
        "From submission to the result at the client, median",
        "ms",
        {way: {load: _medians(took[way, load], 0.5) for load in (IDLE, LOADED)} for way in WAYS},
    )
    return Section("waits", "\n\n".join(_text(plan, took)), [chart])


def _text(plan: Plan, took: dict[tuple[str, str], list[list[float]]]) -> Iterable[str]:
    yield f"From submission to the result at the client, median and p99 in ms, medians of {plan.rounds} rounds, SQLite:"
    rows = [
        [
            way,
            *(
                f"{_medians(took[way, load], 0.5):.1f}, {_medians(took[way, load], 0.99):.1f}"
                for load in (IDLE, LOADED)
            ),
        ]
        for way in WAYS
    ]
    yield table(["", IDLE, LOADED], rows)


def _medians(rounds: list[list[float]], part: float) -> float:
    return statistics.median(percentile(each, part) for each in rounds)


def _calls(running: Running, plan: Plan, way: Way, load: str) -> list[float]:
    """Return the milliseconds of each call."""
    made = running.installation
    assert made is not None
    if load == IDLE:
        return asyncio.run(_call(made, way, plan.calls, TIMEOUT))
    running.second.send("load", rate=BESIDE, seconds=plan.load_seconds)
    took = asyncio.run(_call(made, way, plan.calls, plan.load_seconds - 0.5))
    running.second.receive()
    return took


async def _call(made: Installation, way: Way, calls: int, seconds: float) -> list[float]:
    took: list[float] = []
    until = time.perf_counter() + seconds
    async with way(made) as arrivals, Wire(made.url) as wire:
        headers = {"Prefer": f"wait={TIMEOUT:.0f}"} if arrivals is None else {}
        while len(took) < calls and time.perf_counter() < until:
            started = time.perf_counter()
            answer = await wire.request("POST", "/jobs", JOB, **headers)
            at = time.perf_counter()
            if answer.status != (200 if arrivals is None else 202):
                raise RuntimeError(f"{answer.status} {answer.body.decode()}")
            if arrivals is not None:
                at = await arrivals.of(answer.json()["id"])
            took.append((at - started) * 1000)
    return took


@asynccontextmanager
async def _prefer(_: Installation) -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def _events(made: Installation) -> AsyncIterator[Arrivals]:
    arrivals = Arrivals()
    async with Wire(made.url) as wire:
        opened = asyncio.Event()

        async def read() -> None:
            async for kind, _, data in wire.stream("/events?event=succeeded", opened=opened):
                if kind == "succeeded":
                    await arrivals.add(json.loads(data)["subject"])

        reading = asyncio.create_task(read())
        await opened.wait()
        try:
            yield arrivals
        finally:
            reading.cancel()


@asynccontextmanager
async def _queue(made: Installation) -> AsyncIterator[Arrivals]:
    arrivals = Arrivals()

    async def receive(message: AbstractIncomingMessage) -> None:
        await arrivals.add(json.loads(message.body)["subject"])

    async with await aio_pika.connect(made.environment["RABBITMQ_URL"]) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(made.topology.results.name, "succeeded.#")
        await queue.consume(receive, no_ack=True)
        yield arrivals


WAYS: Final[dict[str, Way]] = {
    "Prefer: wait": _prefer,
    "server-sent events": _events,
    "a queue that is bound to the results": _queue,
}
