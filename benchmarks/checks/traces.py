"""Measures what traces cost: two installations, one of them with sampled traces, take jobs in turn.

    .venv/bin/python -m benchmarks.checks.traces [--broker B] [--jobs 1000] [--rounds 8] [--at-once 20] [--sampled 0.1]

In each round both get ``--jobs`` jobs, each in a request of its own over ``--at-once`` connections, and all of them are
run and folded. The order changes from round to round. Reported: the median rate and the median processor time of a job
in each part, and the median of the ratios of each round with its quartiles. Metrics are not sent. The spans go to a
collector that reads nothing of them; its processor time is reported, because it lowers the rate on the same machine.

Exits 0 if the median of the ratios of the rates is above 0.95.
"""

import argparse
import asyncio
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.rig.installation import Installation, installation, options, until
from benchmarks.rig.load.wire import Wire
from jobtape.view.store import Store

PLAIN, TRACED = "without traces", "with traces"
SLOWEST = 0.95
_JOB = {"type": "add", "payload": {"x": 1, "y": 2}}


@dataclass
class Measured:
    """``rates``: jobs a second; ``cpu``: microseconds of a job, one value for each round; ``parts``: those of each
    part.
    """

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Received:
    """What the collector has got: batches, their bytes, and the seconds of processor time they took there."""

    batches: int = 0
    size: int = 0
    cpu: float = 0.0


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--sampled", type=float, default=0.1, help="the share of traces that are sampled")
    wanted = parser.parse_args()
    with _collector() as (url, received), installation(wanted) as (chosen, plain):
        wanted.broker = "url"
        plain.environment["RABBITMQ_URL"] = chosen.url
        with _second(wanted, chosen.url) as traced:
            traced.environment |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": str(wanted.sampled),
            }
            for made in (plain, traced):
                for part in ("projector", "api", "worker"):
                    made.start(part)
                made.wait_ready()
            found = _rounds(wanted, {PLAIN: plain, TRACED: traced})
        if not received.batches and wanted.sampled:
            raise RuntimeError("the collector got nothing: traces were not made")
    for name, measured in found.items():
        rate, cpu = statistics.median(measured.rates), statistics.median(measured.cpu)
        parts = ", ".join(f"{part} {statistics.median(values):,.0f}" for part, values in measured.parts.items())
        print(f"{name}: {rate:,.0f} jobs/s, {cpu:,.0f} µs of processor time a job (medians; {parts})")
    rates = _ratio(found[TRACED].rates, found[PLAIN].rates)
    low, _, high = statistics.quantiles(_ratios(found[TRACED].rates, found[PLAIN].rates), n=4)
    print(
        f"rate with traces / without, median of {wanted.rounds} rounds: {rates:.3f} (quartiles {low:.3f}, {high:.3f})"
    )
    print(f"processor time with traces / without: {_ratio(found[TRACED].cpu, found[PLAIN].cpu):.3f}")
    collector = received.cpu / (wanted.rounds + 1) / wanted.jobs * 1e6
    print(f"{wanted.sampled:.0%} sampled; {received.batches} batches of spans, {received.size / 1024:,.0f} KiB")
    print(f"the collector's processor time: {collector:,.1f} µs a job")
    return 0 if rates > SLOWEST else 1


def _ratio(traced: list[float], plain: list[float]) -> float:
    return statistics.median(_ratios(traced, plain))


def _ratios(traced: list[float], plain: list[float]) -> list[float]:
    return [a / b for a, b in zip(traced, plain, strict=True)]


def _rounds(wanted: argparse.Namespace, systems: dict[str, Installation]) -> dict[str, Measured]:
    found = {name: Measured() for name in systems}
    for number in range(wanted.rounds + 1):
        for name in sorted(systems, reverse=number % 2 == 1):
            made = systems[name]
            before, began = {part.name: part.cpu() for part in made.parts}, time.monotonic()
            asyncio.run(_submit(made, wanted.jobs, wanted.at_once))
            done = (number + 1) * wanted.jobs
            _await_succeeded(made, done)
            seconds = time.monotonic() - began
            if number:  # the first round warms up
                found[name].rates.append(wanted.jobs / seconds)
                used = {part.name: (part.cpu() - before[part.name]) / wanted.jobs * 1e6 for part in made.parts}
                found[name].cpu.append(sum(used.values()))
                for part, microseconds in used.items():
                    found[name].parts.setdefault(part, []).append(microseconds)
                print(f"round {number}, {name}: {found[name].rates[-1]:,.0f} jobs/s", flush=True)
    return found


def _await_succeeded(made: Installation, jobs: int) -> None:
    store = made.store()
    try:
        until(lambda: _succeeded(store) == jobs, f"{jobs} jobs have succeeded")
    finally:
        store.close()


def _succeeded(store: Store) -> int:
    return sum(count.n for count in store.statistics.jobs() if count.state == "succeeded" and count.type == "add")


async def _submit(made: Installation, jobs: int, at_once: int) -> None:
    left = iter(range(jobs))

    async def send(wire: Wire) -> None:
        for _ in left:
            answer = await wire.request("POST", "/jobs", _JOB)
            if answer.status != 202:
                raise RuntimeError(f"{answer.status} {answer.body.decode()}")

    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire(made.url)) for _ in range(at_once)]
        await asyncio.gather(*map(send, wires))


@contextmanager
def _second(wanted: argparse.Namespace, url: str) -> Iterator[Installation]:
    """Yield another installation on the same broker."""
    os.environ["RABBITMQ_URL"] = url
    with installation(wanted) as (_, made):
        yield made


@contextmanager
def _collector() -> Iterator[tuple[str, Received]]:
    """Take spans inside the block. Yields the URL, and what was received."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def do_POST(self) -> None:
            began = time.thread_time()
            received.size += len(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            received.batches += 1
            received.cpu += time.thread_time() - began

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a part that is stopped may keep its connection

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    sys.exit(main())
