"""Measures how idle listeners, and listeners that never read, affect submissions a second and the memory of the API.

    .venv/bin/python -m benchmarks.checks.listeners [--idle 1000] [--stuck 20] [--rounds 4] [--seconds 10]
                                                    [--database D] [--allocator malloc|pymalloc]

Rounds without and with listeners alternate in one run (without, with, with, without, …). In each round eight clients
submit as fast as they get answers, and a projector folds. Idle listeners wait for events that never occur; the others
subscribe to all events and read nothing. Reported: submissions a second, and the memory, descriptors and threads of the
API before, during and after each round. The API runs with the C library's allocator, as under `jobtape up`, or with
Python's own.

Exits 0 if submissions with listeners are at least 80 % of those without, the API has closed all listeners afterwards,
its memory after the last round is at most a tenth above that after the first, and (with the C library's allocator) it
has returned in each round at least half of the memory that the listeners took. That needs hundreds of listeners; with
few it does not hold.
"""

import argparse
import asyncio
import socket
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.rig.installation import Installation, Part, installation, options
from benchmarks.rig.load.wire import Wire
from jobtape.producer.live.memory_trim import PAUSE
from tests.waiting import eventually

SUBMITTERS = 8
LIMIT = 120.0
TRIM_TIME = 2 * PAUSE
"""Seconds until the memory of closed listeners has been returned to the system."""


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--stuck", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4, help="of each kind")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--allocator", choices=["malloc", "pymalloc"], default="malloc")
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return asyncio.run(run(made, wanted))


async def run(made: Installation, wanted: argparse.Namespace) -> int:
    """Run the rounds, and compare them."""
    made.start("projector")
    api = made.start("api", PYTHONMALLOC=wanted.allocator)
    await asyncio.to_thread(made.wait_ready)
    await submissions(made.url, wanted.seconds / 2)
    rates: dict[bool, list[float]] = {False: [], True: []}
    initial = _memory(api)
    peaks: list[int] = []
    after: list[int] = []
    for turn in range(2 * wanted.rounds):
        listened = turn % 4 in (1, 2)
        before = _state(api)
        sockets = await listeners(made.url, wanted.idle, wanted.stuck) if listened else []
        rates[listened].append(await submissions(made.url, wanted.seconds))
        during = _state(api)
        if listened:
            peaks.append(_memory(api))
        for each in sockets:
            each.close()
        if listened:
            await _all_closed(made.url)
            await asyncio.sleep(TRIM_TIME)
            after.append(_memory(api))
        kind = "with   " if listened else "without"
        print(f"{kind} {rates[listened][-1]:7.0f} a second; {before} -> {during} -> {_state(api)}", flush=True)
    ratio = statistics.median(rates[True]) / statistics.median(rates[False])
    returned = [(peak - left) / max(1, peak - initial) for peak, left in zip(peaks, after, strict=True)]
    print(f"submissions with listeners / without: {ratio:.2f}")
    print(f"memory in KiB: initially {initial}, with listeners {peaks}, after them {after}")
    print("share of the listeners' memory that was returned:", ", ".join(f"{part:.0%}" for part in returned))
    good = ratio >= 0.8 and after[-1] <= 1.1 * after[0] and (wanted.allocator != "malloc" or min(returned) >= 0.5)
    return 0 if good else 1


async def submissions(url: str, seconds: float) -> float:
    """Submit for ``seconds``, and return the submissions a second."""
    until = time.monotonic() + seconds

    async def submit() -> int:
        accepted = 0
        async with Wire(url) as wire:
            while time.monotonic() < until:
                answer = await wire.request("POST", "/jobs", {"type": "add", "payload": {"x": 1, "y": 2}})
                if answer.status != 202:
                    raise RuntimeError(answer.body.decode())
                accepted += 1
        return accepted

    started = time.monotonic()
    accepted = await asyncio.gather(*(submit() for _ in range(SUBMITTERS)))
    return sum(accepted) / (time.monotonic() - started)


async def listeners(url: str, idle: int, stuck: int) -> list[socket.socket]:
    """Open streams and read their first bytes, but nothing after that. Idle streams get keep-alives only."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    opened: list[socket.socket] = []
    for number in range(idle + stuck):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        await loop.sock_connect(one, (parts.hostname, parts.port))
        path = "/events?event=failed" if number < idle else "/events"
        await loop.sock_sendall(one, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        if b"200 OK" not in (first := await loop.sock_recv(one, 4096)):
            raise RuntimeError(first.decode())
        opened.append(one)
    return opened


async def _all_closed(url: str) -> None:
    async with Wire(url) as wire:

        async def none_left() -> bool:
            return b'jobtape_listeners{kind="sse"} 0.0' in (await wire.request("GET", "/metrics")).body

        await eventually(none_left, LIMIT, what="the API has closed all listeners")


def _memory(part: Part) -> int:
    """Return the resident memory in KiB (Linux only)."""
    return int(_status(part)["VmRSS"].split()[0])


def _state(part: Part) -> str:
    descriptors = sum(1 for _ in Path(f"/proc/{part.process.pid}/fd").iterdir())
    return f"{_memory(part) / 1024:.0f} MiB, {descriptors} descriptors, {_status(part)['Threads']} threads"


def _status(part: Part) -> dict[str, str]:
    lines = Path(f"/proc/{part.process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


if __name__ == "__main__":
    sys.exit(main())
