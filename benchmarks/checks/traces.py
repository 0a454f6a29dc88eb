"""Measures what traces cost: an installation takes jobs in turn with and without them.

    .venv/bin/python -m benchmarks.checks.traces [--broker B] [--sittings 12] [--rounds 3] [--jobs 2500] [--sampled 0.1]

Two equal installations differ by several percent for as long as they run, by chance: where the processes lie in memory,
the order of the starts. So one installation is compared with itself: its traces are switched on and off while it runs
(``benchmarks.rig.traced_part``). There are ``--sittings``, each with an installation of its own.

A round has three measurements in a random order: two without traces, whose difference is the error of the measurement,
and one with them. In each of them the installation gets ``--jobs`` jobs; each job has a request of its own over one of
``--at-once`` connections, and all jobs are run and folded. A fifth as many jobs are submitted before and are not
measured. At the end of a measurement all spans are sent, which is a part of it; a measurement lasts some seconds, so
they are sent about as often as usual. The first round of a sitting is not measured.

Reported: the median rates, and the processor time of a job in each process; and, for the rate and the processor time of
all processes, the mean, over the sittings, of the median, over the rounds of the sitting, of the value divided by the
mean of the two measurements without traces in the same round, with the range in which this mean lies with a probability
of 95 % (bootstrap over the sittings). The second measurement without traces is compared with the first. Metrics are not
sent. The spans go to a collector that reads nothing of them; its processor time is reported, because it lowers the rate
on the same machine.

Exits 0 if the ratio of the rates is above 0.95.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from benchmarks.rig.installation import TICKS, Installation, installation, options, until
from benchmarks.rig.load.wire import Wire
from benchmarks.rig.servers.brokers import broker
from benchmarks.rig.traced_part import SWITCHED
from jobtape.view.store import Store

PLAIN: Final = ("without traces", "without traces, again")
TRACED: Final = "with traces"
MACHINE: Final = "machine"
SLOWEST: Final = 0.95
DRAWS: Final = 2000
"""How often the bootstrap draws."""
PAUSE: Final = 0.01
"""Seconds between two looks at the view."""
_JOB: Final = {"type": "add", "payload": {"x": 1, "y": 2}}


@dataclass
class Measured:
    """``sittings``: the rates of each sitting, in jobs a second, one for each round. ``processes``: likewise the
    seconds of processor time of all processes. ``cpu``: the seconds of each part and of the machine in all rounds.
    ``submitted``: the jobs of all sittings, also those that were not measured.
    """

    sittings: list[list[float]] = field(default_factory=list)
    processes: list[list[float]] = field(default_factory=list)
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
    parser.add_argument("--sittings", type=int, default=12, help="how often an installation is started")
    parser.add_argument("--rounds", type=int, default=3, help="the measured rounds of a sitting")
    parser.add_argument("--jobs", type=int, default=2500)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--sampled", type=float, default=0.1, help="the share of traces that is sampled")
    parser.add_argument("--seconds", type=float, default=420, help="after which no sitting begins")
    wanted = parser.parse_args()
    found = {name: Measured() for name in (*PLAIN, TRACED)}
    end = time.monotonic() + wanted.seconds
    with broker(wanted.broker) as chosen, _collector() as (url, received):
        wanted.broker, os.environ["RABBITMQ_URL"] = "url", chosen.url
        for number in range(1, wanted.sittings + 1):
            if time.monotonic() > end:
                break
            with _installation(wanted, url) as system:
                _sit(wanted, system, found)
            medians = (f"{statistics.median(each.sittings[-1]):,.0f}" for each in found.values())
            print(f"sitting {number}: {', '.join(medians)} jobs/s", flush=True)
        if not received.batches and wanted.sampled:
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
        rates = _compared(measured.sittings, [each.sittings for each in others])
        cpu = _compared(measured.processes, [each.processes for each in others])
        ratios[name] = statistics.mean(rates)
        print(f"{name}: rate {_shown(rates)}, processor time {_shown(cpu)}")
    first = found[PLAIN[0]]
    size = f"{received.batches} batches of spans, {received.size / 1024:,.0f} KiB"
    print(f"{len(first.sittings)} sittings, {len(first.rates)} rounds; {size}")
    print(f"the collector's processor time: {received.cpu / found[TRACED].submitted * 1e6:,.1f} µs a job with traces")
    return 0 if ratios[TRACED] > SLOWEST else 1


def _compared(of: Sequence[Sequence[float]], with_: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Return, for each sitting, the median over its rounds of a value divided by the mean of the others."""
    return [
        statistics.median(value / statistics.mean(others) for value, *others in zip(*rounds, strict=True))
        for rounds in zip(of, *with_, strict=True)
    ]


def _shown(ratios: Sequence[float]) -> str:
    low, high = _range(ratios)
    return f"{statistics.mean(ratios):.3f} ({low:.3f} to {high:.3f})"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % range of the mean."""
    drawn = sorted(statistics.mean(random.choices(values, k=len(values))) for _ in range(DRAWS))
    return drawn[DRAWS // 40], drawn[-DRAWS // 40]


@contextmanager
def _installation(wanted: argparse.Namespace, url: str) -> Iterator[Installation]:
    """Yield a running installation. ``url``: of the collector."""
    with installation(wanted) as (_, made):
        made.module = "benchmarks.rig.traced_part"
        made.environment |= {
            SWITCHED: str(made.folder / "switched"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(wanted.sampled),
        }
        for part in ("projector", "api", "worker"):
            made.start(part)
        made.wait_ready()
        yield made


def _sit(wanted: argparse.Namespace, made: Installation, found: Mapping[str, Measured]) -> None:
    """Add what one sitting measures to ``found``."""
    submitted = 0
    for measured in found.values():
        measured.sittings.append([])
        measured.processes.append([])
    with closing(made.store()) as store:

        def take(name: str, jobs: int) -> None:
            """Return when the installation has run ``jobs`` more jobs and has sent their spans."""
            nonlocal submitted
            submitted += jobs
            found[name].submitted += jobs
            asyncio.run(_submit(made, jobs, wanted.at_once))
            until(lambda: _succeeded(store) == submitted, f"{jobs} jobs have succeeded", pause=PAUSE)
            _switch(made, traced=name == TRACED)

        for number in range(wanted.rounds + 1):
            for name in random.sample([*found], k=len(found)):
                _switch(made, traced=name == TRACED)
                take(name, wanted.jobs // 5)
                before, began = _cpu(made), time.monotonic()
                take(name, wanted.jobs)
                seconds, after = time.monotonic() - began, _cpu(made)
                if number:
                    measured = found[name]
                    used = {part: now - before[part] for part, now in after.items()}
                    measured.sittings[-1].append(wanted.jobs / seconds)
                    measured.processes[-1].append(sum(used.values()) - used[MACHINE])
                    for part, each in used.items():
                        measured.cpu[part] = measured.cpu.get(part, 0.0) + each


def _switch(made: Installation, *, traced: bool) -> None:
    """Let all parts send their spans, and make traces from now on or not."""
    done = Path(made.environment[SWITCHED])
    done.write_bytes(b"")
    for part in made.parts:
        part.process.send_signal(signal.SIGUSR2 if traced else signal.SIGUSR1)
    until(lambda: done.stat().st_size == len(made.parts), "all parts have sent their spans", pause=0.001)


def _cpu(made: Installation) -> dict[str, float]:
    """Return the seconds of processor time so far of each part and of the whole machine (Linux only)."""
    user, nice, system, _, _, interrupts, soft, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    machine = (user + nice + system + interrupts + soft) / TICKS
    return {part.name: part.cpu() for part in made.parts} | {MACHINE: machine}


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
