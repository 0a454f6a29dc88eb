"""Measures what traces cost: equal installations on one broker take jobs in turn, some of them with sampled traces.

    .venv/bin/python -m benchmarks.checks.traces [--broker B] [--sittings 12] [--rounds 6] [--jobs 600] [--sampled 0.1]

Two installations make no traces: they tell how equal two equal installations are measured. There is another one for
each share of ``--sampled``. The chance of a start (where the processes lie in memory, which one was first) makes equal
installations differ by several percent for as long as they run. So there are ``--sittings``. Each of them starts all
installations again, in a random order, and chooses at random which ones make traces.

In each round of a sitting all of them get ``--jobs`` jobs, in a random order; each job has a
request of its own over one of ``--at-once`` connections, and all jobs are run and folded. A fifth as many jobs are
submitted to the same installation before and are not measured, because what another one has left in the caches and in
the queues of the machine would count. The first round of a sitting is not measured.

Reported for each installation: its median rate; the mean, over the sittings, of the median, over the rounds of the
sitting, of its rate divided by the mean rate of the two without traces in the same round, with the range in which this
mean lies with a probability of 95 % (bootstrap over the sittings); and the processor time of a job. The second one
without traces is compared with the first. Metrics are not sent. The spans go to a collector that reads nothing of them;
its processor time is reported, because it lowers the rate on the same machine.

Exits 0 if the ratio of the rates is above 0.95 for each share.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from benchmarks.rig.installation import TICKS, Installation, installation, options, until
from benchmarks.rig.load.wire import Wire
from benchmarks.rig.servers.brokers import broker
from jobtape.view.store import Store

PLAIN: Final = ("without traces", "without traces, again")
MACHINE: Final = "machine"
SLOWEST: Final = 0.95
DRAWS: Final = 2000
"""How often the bootstrap draws."""
PAUSE: Final = 0.01
"""Seconds between two looks at the view."""
_JOB: Final = {"type": "add", "payload": {"x": 1, "y": 2}}


@dataclass
class Measured:
    """``sittings``: the rates of each sitting, in jobs a second, one for each round. ``cpu``: seconds of each part, and
    of the machine, in all rounds. ``submitted``: the jobs of all sittings, also those that were not measured.
    """

    sittings: list[list[float]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    submitted: int = 0

    @property
    def rates(self) -> list[float]:
        """The rates of all rounds."""
        return [rate for rates in self.sittings for rate in rates]

    def microseconds(self, jobs: int) -> dict[str, float]:
        """Return the processor time of a job in each part. ``jobs``: of a round."""
        return {part: seconds / jobs / len(self.rates) * 1e6 for part, seconds in sorted(self.cpu.items())}


@dataclass
class Received:
    """What the collector has got: batches, their bytes, and the seconds of processor time they took there."""

    batches: int = 0
    size: int = 0
    cpu: float = 0.0


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--sittings", type=int, default=12, help="how often the installations are started")
    parser.add_argument("--rounds", type=int, default=6, help="the measured rounds of a sitting")
    parser.add_argument("--jobs", type=int, default=600)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--sampled", type=float, nargs="+", default=[0.1], help="the shares of traces that are sampled")
    parser.add_argument("--seconds", type=float, default=270, help="after which no sitting begins")
    parser.add_argument("--seed", type=int, default=None, help="of the roles and the order")
    wanted = parser.parse_args()
    shares: dict[str, float | None] = dict.fromkeys(PLAIN)
    shares |= {f"traces, {share:.0%} sampled": share for share in wanted.sampled}
    found = {name: Measured() for name in shares}
    drawn = random.Random(wanted.seed)
    end = time.monotonic() + wanted.seconds
    with broker(wanted.broker) as chosen, _collector() as (url, received):
        wanted.broker, os.environ["RABBITMQ_URL"] = "url", chosen.url
        for number in range(1, wanted.sittings + 1):
            if time.monotonic() > end:
                break
            with _installations(wanted, shares, url, drawn) as systems:
                _sit(wanted, systems, found, drawn)
            medians = (f"{statistics.median(each.sittings[-1]):,.0f}" for each in found.values())
            print(f"sitting {number}, started in the order {', '.join(systems)}: {', '.join(medians)}", flush=True)
        if not received.batches and any(wanted.sampled):  # the last spans are sent when the parts end
            raise RuntimeError("the collector got nothing: traces were not made")
    return _report(wanted.jobs, found, received)


def _report(jobs: int, found: Mapping[str, Measured], received: Received) -> int:
    """Print what was found, and return the exit status. ``jobs``: of a round."""
    for name, measured in found.items():
        parts = ", ".join(f"{part} {value:,.0f}" for part, value in measured.microseconds(jobs).items())
        print(f"{name}: {statistics.median(measured.rates):,.0f} jobs/s (median); µs of processor time a job: {parts}")
    ratios = {}
    for name, measured in found.items():
        if name == PLAIN[0]:
            continue
        others = [found[each] for each in PLAIN if each != name]
        by_sitting = [
            statistics.median(rate / statistics.mean(those) for rate, *those in zip(*rates, strict=True))
            for rates in zip(measured.sittings, *(each.sittings for each in others), strict=True)
        ]
        ratios[name] = statistics.mean(by_sitting)
        low, high = _range(by_sitting)
        cpu = _processes(measured) / statistics.mean(map(_processes, others))
        print(f"{name}: rate {ratios[name]:.3f} ({low:.3f} to {high:.3f}), processor time {cpu:.3f}")
    first = found[PLAIN[0]]
    size = f"{received.batches} batches of spans, {received.size / 1024:,.0f} KiB"
    print(f"{len(first.sittings)} sittings, {len(first.rates)} rounds; {size}")
    traced = sum(measured.submitted for name, measured in found.items() if name not in PLAIN)
    print(f"the collector's processor time: {received.cpu / traced * 1e6:,.1f} µs a job")
    return 0 if all(ratio > SLOWEST for name, ratio in ratios.items() if name not in PLAIN) else 1


def _processes(measured: Measured) -> float:
    return sum(seconds for part, seconds in measured.cpu.items() if part != MACHINE)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % range of the mean."""
    drawn = sorted(statistics.mean(random.choices(values, k=len(values))) for _ in range(DRAWS))
    return drawn[DRAWS // 40], drawn[-DRAWS // 40]


@contextmanager
def _installations(
    wanted: argparse.Namespace, shares: Mapping[str, float | None], url: str, drawn: random.Random
) -> Iterator[dict[str, Installation]]:
    """Yield running installations by name, in the order in which they were started, which is drawn.

    ``shares``: their shares of traces. ``url``: of the collector.
    """
    systems: dict[str, Installation] = {}
    with ExitStack() as stack:
        for name in drawn.sample([*shares], k=len(shares)):
            _, made = stack.enter_context(installation(wanted))
            made.environment["PYTHONHASHSEED"] = "0"
            if (share := shares[name]) is not None:
                made.environment |= {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                    "OTEL_METRICS_EXPORTER": "none",
                    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                    "OTEL_TRACES_SAMPLER_ARG": str(share),
                }
            systems[name] = made
        for part in ("projector", "api", "worker"):
            for made in systems.values():
                made.start(part)
        for made in systems.values():
            made.wait_ready()
        yield systems


def _sit(
    wanted: argparse.Namespace,
    systems: Mapping[str, Installation],
    found: Mapping[str, Measured],
    drawn: random.Random,
) -> None:
    """Add what one sitting measures to ``found``."""
    submitted = dict.fromkeys(systems, 0)
    for measured in found.values():
        measured.sittings.append([])
    with ExitStack() as stack:
        stores = {name: made.store() for name, made in systems.items()}
        for store in stores.values():
            stack.callback(store.close)

        def take(name: str, jobs: int) -> float:
            """Return the seconds until the installation has run ``jobs`` more jobs."""
            submitted[name] += jobs
            found[name].submitted += jobs
            return _take(systems[name], stores[name], jobs, submitted[name], wanted.at_once)

        for number in range(wanted.rounds + 1):
            for name in drawn.sample([*systems], k=len(systems)):
                made, measured = systems[name], found[name]
                take(name, wanted.jobs // 5)
                before = _cpu(made)
                seconds = take(name, wanted.jobs)
                if number:
                    measured.sittings[-1].append(wanted.jobs / seconds)
                    for part, now in _cpu(made).items():
                        measured.cpu[part] = measured.cpu.get(part, 0.0) + now - before[part]


def _cpu(made: Installation) -> dict[str, float]:
    """Return the seconds of processor time so far of each part and of the whole machine (Linux only)."""
    user, nice, system, _, _, interrupts, soft, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    machine = (user + nice + system + interrupts + soft) / TICKS
    return {part.name: part.cpu() for part in made.parts} | {MACHINE: machine}


def _take(made: Installation, store: Store, jobs: int, all_jobs: int, at_once: int) -> float:
    """Submit jobs, and return the seconds until ``all_jobs`` have succeeded in the view."""
    began = time.monotonic()
    asyncio.run(_submit(made, jobs, at_once))
    until(lambda: _succeeded(store) == all_jobs, f"{jobs} jobs have succeeded", pause=PAUSE)
    return time.monotonic() - began


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
