"""What a subscriber has been told, an immediate GET from another API process shows: 10,000 out of 10,000, each way.

    .venv/bin/python -m benchmarks.told [--events 10000] [--kill-every 3] [--database D]

One client listens by server-sent events and one over a WebSocket, to one API process; for each event that either is
told, it asks another API process for the job at once. Two projectors run, and the active one is killed every few
seconds; another is started in its place.

Exits 0 if each way told every event once, in the tape's order, and every GET showed it.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect

from benchmarks.installation import Installation, Part
from benchmarks.place import options, place
from benchmarks.wire import Wire
from tools.ports import free_port

AT_ONCE = 16
"""GETs under way for each listener."""
BATCH = 200
LIMIT = 600.0


def main() -> int:
    """Run once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds")
    wanted = parser.parse_args()
    with place(wanted, jobs="benchmarks.jobs") as (_, made):
        return asyncio.run(run(made, wanted))


@dataclass
class Listener:
    """What one was told, and what the GETs showed."""

    other: str
    cursors: list[int] = field(default_factory=list)
    shown: int = 0
    not_shown: list[str] = field(default_factory=list)

    async def hear(self, told: AsyncIterator[dict[str, Any]], wanted: int) -> None:
        """Ask for the job of each event as soon as it comes."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as asking:
            wires: asyncio.Queue[Wire] = asyncio.Queue()
            for _ in range(AT_ONCE):
                wires.put_nowait(await stack.enter_async_context(Wire(self.other)))
            async for event in told:
                self.cursors.append(event["cursor"])
                asking.create_task(self._ask(event, wires, await wires.get()))
                if len(self.cursors) >= wanted:
                    break

    async def _ask(self, event: dict[str, Any], wires: "asyncio.Queue[Wire]", wire: Wire) -> None:
        answer = await wire.request("GET", f"/jobs/{event['subject']}")
        wires.put_nowait(wire)
        if answer.status == 200 and answer.json()["cursor"] >= event["cursor"]:
            self.shown += 1
        else:
            self.not_shown.append(f"{event['id']} at {event['cursor']}: {answer.status} {answer.body[:300]!r}")


async def run(made: Installation, wanted: argparse.Namespace) -> int:
    """Listen, submit, kill, compare."""
    other = f"http://127.0.0.1:{free_port()}"
    projectors = [made.start("projector") for _ in range(2)]
    made.start("api")
    made.start("api", JOBTAPE_PORT=other.rpartition(":")[2])
    made.start("worker")
    await asyncio.to_thread(made.wait_ready)
    await _ready(other)
    ways = {"SSE": Listener(other), "WebSocket": Listener(other)}
    killing = asyncio.create_task(_kill(made, projectors, wanted.kill_every))
    async with asyncio.timeout(LIMIT), Wire(made.url) as wire, asyncio.TaskGroup() as tasks:
        tasks.create_task(ways["SSE"].hear(_sse(wire), wanted.events))
        tasks.create_task(ways["WebSocket"].hear(_websocket(made.url), wanted.events))
        tasks.create_task(_submit(made.url, wanted.events // 2))
    killing.cancel()
    store = made.store()
    try:
        history = [row.cursor for row in store.history(limit=2 * wanted.events) if row.accepted][: wanted.events]
    finally:
        store.close()
    for name, way in ways.items():
        right = way.cursors == history
        print(f"{name}: {len(way.cursors)} told, as the history has them: {right}; a GET showed {way.shown}")
        print(*way.not_shown[:5], sep="\n")
    print(f"projectors killed: {sum(part.process.poll() is not None for part in projectors)}")
    return 0 if all(way.cursors == history and way.shown == wanted.events for way in ways.values()) else 1


async def _submit(url: str, jobs: int) -> None:
    async with Wire(url) as wire:
        for start in range(0, jobs, BATCH):
            items = [{"type": "add", "payload": {"x": n, "y": 1}} for n in range(start, min(start + BATCH, jobs))]
            answer = await wire.request("POST", "/jobs/batch", items)
            if answer.status != 200 or answer.json()["accepted"] != len(items):
                raise RuntimeError(answer.body.decode())
            await asyncio.sleep(0.5)


async def _kill(made: Installation, projectors: list[Part], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await asyncio.to_thread(projectors[-2].kill)
        projectors.append(made.start("projector"))


async def _sse(wire: Wire) -> AsyncIterator[dict[str, Any]]:
    async for name, _, data in wire.stream("/events?after=first"):
        if data and name != "hello":
            yield json.loads(data)


async def _websocket(url: str) -> AsyncIterator[dict[str, Any]]:
    async with connect(f"{url.replace('http', 'ws')}/ws", max_size=None) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "all", "after": "first"}))
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "event":
                yield message["event"]


async def _ready(url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with Wire(url) as wire:
                    if (await wire.request("GET", "/health/ready")).status == 200:
                        return
            except OSError:
                pass
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
