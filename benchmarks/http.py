"""Measures the REST API with 64 connections: submitting and reading jobs beside a route that does nothing.

    .venv/bin/python -m benchmarks.http [--broker B] [--database D] [--seconds 4] [--rounds 3] [--worker]

Interleaves ``GET /health/live``, ``POST /jobs``, ``GET /jobs/{id}`` of jobs that have ended, and ``POST /jobs/batch``,
and prints medians of the rounds: requests per second, latencies, and the processor time that the API spent on each
request. With ``--worker`` a worker executes the submitted jobs meanwhile. Without it, a projector runs only while it is
needed to make the jobs that are read.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.rig.installation import Installation, Part, installation, options, percentile, until

JOBS_READ: Final = 500
BATCH: Final = 10_000


@dataclass
class Measured:
    """The figures of one kind of request, one of each round."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """Sends one request after the other, each as soon as the last one is answered."""

    def __init__(self, requests: Iterator[bytes], status: bytes, latencies: list[float]) -> None:
        self._requests = requests
        self._expected = b"HTTP/1.1 " + status
        self._latencies = latencies
        self._received = b""
        self._sent_at = 0.0
        self.fault: str | None = None
        self.stopping = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._latencies.append(time.perf_counter() - self._sent_at)
        if not head.startswith(self._expected):
            self.fault = self._received.decode()
        self._received = b""
        if self.stopping or self.fault is not None:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopping and self.fault is None:
            self.fault = f"the connection was lost: {error}"
        self.ended.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))


async def _load(port: int, requests: Iterator[bytes], status: bytes, connections: int, seconds: float) -> list[float]:
    """Send ``requests`` for ``seconds``, and return the latencies in seconds."""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Connection(requests, status, latencies), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for each in made:
        each.stopping = True
    await asyncio.gather(*(each.ended for each in made))
    for each in made:
        if each.fault is not None:
            raise RuntimeError(each.fault)
    return latencies


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _post(path: str, value: object) -> bytes:
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _add(n: int) -> object:
    return {"type": "add", "payload": {"x": n, "y": n}}


def _measure(api: Part, load: Callable[[], list[float]], measured: Measured, *, each: int = 1) -> None:
    """``each``: jobs in one request."""
    cpu, started = api.cpu(), time.perf_counter()
    latencies = load()
    took = time.perf_counter() - started
    number = len(latencies) * each
    measured.rate.append(number / took)
    measured.p50.append(percentile(latencies, 0.5) * 1000)
    measured.p99.append(percentile(latencies, 0.99) * 1000)
    measured.cpu.append((api.cpu() - cpu) / number * 1e6)


def _ended_jobs(made: Installation) -> list[str]:
    """Submit jobs, and return their ids when they have ended in the view."""
    with made.client() as client:
        batch = client.post("/jobs/batch", json=[_add(n) for n in range(JOBS_READ)]).raise_for_status().json()
        until(
            lambda: len(client.get("/jobs", params={"state": "succeeded", "limit": 500}).json()["items"]) == JOBS_READ,
            "all jobs have succeeded",
        )
    return [item["id"] for item in batch["items"]]


def main() -> None:
    """Measure, and print the table."""
    parser = options(__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help="keep projector and worker running")
    parser.add_argument("--only", help="names of the rows to measure, separated by commas")
    wanted = parser.parse_args()

    with installation(wanted) as (_, made):
        others = [made.start("projector"), made.start("worker")]
        api = made.start("api", JOBTAPE_MAX_BATCH=str(BATCH))
        made.wait_ready()
        ids = _ended_jobs(made)
        if not wanted.worker:
            for part in others:
                part.stop()
        port = int(made.environment["JOBTAPE_PORT"])
        number = itertools.count()

        def sent(requests: Iterator[bytes], status: bytes = b"200", connections: int = wanted.connections):  # type: ignore[no-untyped-def]
            return lambda: asyncio.run(_load(port, requests, status, connections, wanted.seconds))

        batch = _post("/jobs/batch", [_add(n) for n in range(BATCH)])
        rows = {
            "GET /health/live": (1, sent(itertools.repeat(_get("/health/live")))),
            "POST /jobs": (1, sent((_post("/jobs", _add(n)) for n in number), b"202")),
            "GET /jobs/{id}": (1, sent(itertools.cycle([_get(f"/jobs/{each}") for each in ids]))),
            "POST /jobs/batch, jobs": (BATCH, sent(itertools.repeat(batch), connections=1)),
        }
        if wanted.only:
            rows = {name: row for name, row in rows.items() if any(part in name for part in wanted.only.split(","))}
        measured = {name: Measured() for name in rows}
        for _ in range(wanted.rounds):
            for name, (each, load) in rows.items():
                _measure(api, load, measured[name], each=each)

    table = Table(title=f"{wanted.connections} connections, medians of {wanted.rounds} rounds")
    for column in ("request", "per second", "p50 ms", "p99 ms", "API CPU µs"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for name, row in measured.items():
        figures = (median(row.rate), median(row.p50), median(row.p99), median(row.cpu))
        table.add_row(name, *(f"{figure:,.1f}" if figure < 10 else f"{figure:,.0f}" for figure in figures))
    Console().print(table)
    bound = measured.get("GET /health/live")
    for name, row in measured.items():
        if bound is not None and row is not bound:
            ratio = median(each / live for each, live in zip(row.rate, bound.rate, strict=True))
            slower = median(each / live for each, live in zip(row.p99, bound.p99, strict=True))
            print(f"{name}: {ratio:.2f} of GET /health/live, p99 {slower:.1f} times its")


if __name__ == "__main__":
    main()
