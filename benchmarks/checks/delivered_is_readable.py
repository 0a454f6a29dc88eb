"""Every event that a subscriber gets can be read at once from another API process, also when projectors are killed.

    .venv/bin/python -m benchmarks.checks.delivered_is_readable [--way amqp|sse|websocket] [--broker B] \
        [--database D] [--jobs 10000]

Jobs are submitted to one API process. Their events arrive by ``--way`` (amqp: a live ``jobtape.subscribe``; sse and
websocket: from that process). After each event one ``GET /jobs/{id}`` to another API process must return the event's
state, at the event's cursor or a higher one. After every ``--kill-every`` events one of two projectors is killed, in
turn, and another one is started.

Exits 0 only if there was an event of every job and every GET returned its state.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx
from websockets.asyncio.client import ClientConnection, connect

import jobtape
from benchmarks.rig.installation import Installation, installation, options
from benchmarks.rig.load import paced
from benchmarks.rig.load.wire import Wire
from jobtape.schemas.job import ENDINGS
from jobtape.schemas.messages.delivered_event import DeliveredEvent, decode_delivered
from jobtape.settings import Settings
from tests.ledger import Ledger
from tools.processes.ports import free_port

SILENCE: Final = 120.0
"""Seconds without an event after which the measurement fails."""
RATE: Final = 500.0
Way = Callable[[Installation], AbstractAsyncContextManager[AsyncIterator[DeliveredEvent]]]


@asynccontextmanager
async def amqp(made: Installation) -> AsyncIterator[AsyncIterator[DeliveredEvent]]:
    """Subscribe over AMQP."""
    settings = Settings(rabbitmq_url=made.environment["RABBITMQ_URL"], namespace=made.environment["JOBTAPE_NAMESPACE"])
    async with jobtape.subscribe(events=sorted(ENDINGS), settings=settings) as received:
        yield received


@asynccontextmanager
async def sse(made: Installation) -> AsyncIterator[AsyncIterator[DeliveredEvent]]:
    """Read server-sent events of the first API process."""
    async with Wire(made.url) as wire:
        yield _sse_events(wire)


async def _sse_events(wire: Wire) -> AsyncIterator[DeliveredEvent]:
    query = "&".join(f"event={name}" for name in ENDINGS)
    async for name, _, data in wire.stream(f"/events?after=first&{query}"):
        if name in ENDINGS:
            yield decode_delivered(data.encode())


@asynccontextmanager
async def websocket(made: Installation) -> AsyncIterator[AsyncIterator[DeliveredEvent]]:
    """Subscribe over a WebSocket to the first API process."""
    # A client whose socket is full for JOBTAPE_SEND_TIMEOUT seconds is disconnected, so read ahead of the GETs.
    async with connect(f"{made.url.replace('http', 'ws')}/ws", max_size=None, max_queue=None) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "all", "events": sorted(ENDINGS), "after": "first"}))
        yield _websocket_events(socket)


async def _websocket_events(socket: ClientConnection) -> AsyncIterator[DeliveredEvent]:
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "event":
            yield decode_delivered(json.dumps(message["event"]).encode())


WAYS: Final[dict[str, Way]] = {"amqp": amqp, "sse": sse, "websocket": websocket}


@dataclass
class Tally:
    """What was delivered, and what a GET returned."""

    delivered: set[str] = field(default_factory=set)
    repeats: int = 0
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    slowest: float = 0.0


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--way", choices=sorted(WAYS), default="amqp")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--kill-every", type=int, default=1000)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return asyncio.run(run(made, WAYS[wanted.way], wanted.jobs, wanted.kill_every))


async def run(made: Installation, way: Way, jobs: int, every: int) -> int:
    """Submit to one API process, and read from another one after each event."""
    other = str(free_port())
    for _ in range(2):
        made.start("projector", JOBTAPE_PROJECTOR_LEASE="1")
    made.start("api")
    made.start("api", JOBTAPE_PORT=other)
    made.start("worker")
    await asyncio.to_thread(made.wait_ready)
    url, tally, started = f"http://127.0.0.1:{other}", Tally(), time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client, way(made) as received:
        submitting = asyncio.create_task(asyncio.to_thread(_submit, made, jobs))
        try:
            while len(tally.delivered) < jobs:
                async with asyncio.timeout(SILENCE):
                    each = await anext(received)
                await _read(client, each, tally)
                if len(tally.delivered) // every > tally.kills:
                    await asyncio.to_thread(_kill, made)
                    tally.kills += 1
                    print(f"{len(tally.delivered)} delivered, {time.monotonic() - started:.0f} s", flush=True)
        except TimeoutError:
            print(f"no event for {SILENCE:g} s", file=sys.stderr)
        ledger = await submitting
    took = time.monotonic() - started
    print(
        f"{len(ledger.ok)} jobs; delivered {len(tally.delivered)}, {tally.repeats} repeats, in {took:.1f} s; "
        f"{tally.kills} kills"
    )
    right = len(tally.delivered) + tally.repeats - len(tally.wrong)
    print(f"events whose state an immediate GET returned: {right}; the slowest GET took {tally.slowest:.2f} s")
    for line in tally.wrong[:10]:
        print(line)
    return 0 if tally.delivered == set(ledger.ok) and not tally.wrong and tally.kills else 1


def _submit(made: Installation, jobs: int) -> Ledger:
    ledger = Ledger()
    with made.client() as client:
        paced.submit(client, [{"type": "add", "payload": {"x": 1, "y": 2}}] * jobs, ledger, rate=RATE)
    return ledger


async def _read(client: httpx.AsyncClient, received: DeliveredEvent, tally: Tally) -> None:
    sent = time.monotonic()
    answer = await client.get(f"/jobs/{received.job_id}")
    tally.slowest = max(tally.slowest, time.monotonic() - sent)
    tally.repeats += received.job_id in tally.delivered
    tally.delivered.add(received.job_id)
    job = answer.json() if answer.status_code == httpx.codes.OK else {}
    if (
        job.get("state") != received.name
        or job.get("result") != received.result
        or job.get("cursor", 0) < received.cursor
    ):
        tally.wrong.append(f"event {received.name} at {received.cursor}, GET {answer.status_code} {answer.text[:200]}")


def _kill(made: Installation) -> None:
    """Replace the projector that was started first, whether it is active or stands by."""
    made.replace(next(part for part in made.parts if part.name == "projector"), JOBTAPE_PROJECTOR_LEASE="1")


if __name__ == "__main__":
    sys.exit(main())
