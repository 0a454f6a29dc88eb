"""End to end and latency: Jobtape and its peers in turn, several rounds, on one broker."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from benchmarks.report.section import Chart, Section, table
from benchmarks.rig.installation import percentile
from benchmarks.rig.plan import Plan
from benchmarks.rig.processes import Usage
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import Running, System, classic, ours, peers

BESIDE: Final = 200.0
"""Jobs a second beside the job that is waited for."""
WARM_UP: Final = 0.1
"""Part of the jobs that run before the measurement."""
IDLE, LIGHT, HALF = "idle", "beside 200 jobs/s", "beside half its throughput"


@dataclass
class Round:
    """What one system did in one round."""

    rate: float
    submitted: float
    cpu: dict[str, float]
    memory: dict[str, float]
    started: float
    latency: dict[str, list[float]] = field(default_factory=dict)

    @property
    def cpu_of_a_job(self) -> float:
        """Microseconds of all processes together."""
        return sum(self.cpu.values())


def measure(stage: Stage, plan: Plan) -> Section:
    """Measure all systems in both modes."""
    durable = _rounds(stage, plan, [*ours(), *peers("durable"), classic()], latency=True)
    defaults = _rounds(stage, replace(plan, rounds=plan.long_rounds), peers("defaults"), latency=False)
    return Section("throughput", "\n\n".join(_text(plan, durable, defaults)), _charts(durable))


def _rounds(stage: Stage, plan: Plan, systems: list[System], *, latency: bool) -> dict[str, list[Round]]:
    done: dict[str, list[Round]] = defaultdict(list)
    for number in range(plan.rounds):
        for system in _turn(systems, number):
            with system.run(stage) as running:
                done[system.name].append(_round(running, plan, latency=latency))
            last = done[system.name][-1]
            log(f"round {number + 1}, {system.mode}: {system.name} {last.rate:,.0f} jobs/s")
    return {system.name: done[system.name] for system in systems}


def _turn(systems: list[System], number: int) -> Iterable[System]:
    """Return the systems in another order in every second round: what comes first meets another machine."""
    return systems if number % 2 == 0 else reversed(systems)


def _round(running: Running, plan: Plan, *, latency: bool) -> Round:
    running.driver.do("drain", jobs=max(100, round(plan.jobs * WARM_UP)))
    before = running.usages()
    answer = running.driver.do("drain", jobs=plan.jobs)
    after = running.usages()
    rate = plan.jobs / answer["done"]
    found = Round(
        rate,
        plan.jobs / answer["submitted"],
        {name: (after[name].cpu - _cpu(before, name)) / plan.jobs * 1e6 for name in after},
        {name: after[name].memory for name in after},
        running.started,
    )
    if latency:
        found.latency[IDLE] = running.driver.do("calls", count=plan.calls)["seconds"]
        for name, load in ((LIGHT, BESIDE), (HALF, rate / 2)):
            running.second.send("load", rate=load, seconds=plan.load_seconds)
            found.latency[name] = running.driver.do("calls_for", seconds=plan.load_seconds - 0.5)["seconds"]
            running.second.receive()
    return found


def _cpu(before: dict[str, Usage], name: str) -> float:
    return before[name].cpu


def _text(plan: Plan, durable: dict[str, list[Round]], defaults: dict[str, list[Round]]) -> Iterable[str]:
    base = _median(durable["Dramatiq"], lambda each: each.rate)
    rows = []
    for name, rounds in durable.items():
        rate = _median(rounds, lambda each: each.rate)
        rows.append(
            [
                name,
                f"{rate:,.0f} jobs/s",
                f"{rate / base:.2f}",
                f"{_median(rounds, lambda each: each.cpu_of_a_job):,.0f} µs",
                *(_latency(rounds, kind) for kind in (IDLE, LIGHT, HALF)),
            ]
        )
    head = ["", "end to end", "÷ Dramatiq", "CPU a job", *(f"result, {kind}" for kind in (IDLE, LIGHT, HALF))]
    yield f"{plan.jobs:,} `add` jobs, medians of {plan.rounds} rounds; p50 and p99 from submission to result in ms."
    yield table(head, rows)
    yield "With the libraries' own defaults, which may lose jobs where a process or the broker ends:"
    rows = [
        [
            name,
            f"{_median(rounds, lambda each: each.rate):,.0f} jobs/s",
            f"{_median(rounds, lambda each: each.cpu_of_a_job):,.0f} µs",
        ]
        for name, rounds in defaults.items()
    ]
    yield table(["", "end to end", "CPU a job"], rows)
    yield (
        "Processor time of a job (µs) and memory after the jobs (MiB) by process, and seconds from the start of all "
        "processes to a first result:"
    )
    rows = [[name, _parts(rounds, "cpu"), _parts(rounds, "memory"), _start(rounds)] for name, rounds in durable.items()]
    yield table(["", "CPU", "memory", "start"], rows)


def _latency(rounds: list[Round], kind: str) -> str:
    middle = statistics.median(statistics.median(each.latency[kind]) for each in rounds) * 1000
    high = statistics.median(percentile(each.latency[kind], 0.99) for each in rounds) * 1000
    return f"{middle:.1f}, {high:.1f}"


def _parts(rounds: list[Round], what: str) -> str:
    names = getattr(rounds[0], what)
    return ", ".join(f"{name} {_median(rounds, lambda each: getattr(each, what)[name]):,.0f}" for name in names)  # noqa: B023


def _start(rounds: list[Round]) -> str:
    return f"{_median(rounds, lambda each: each.started):.1f}"


def _charts(durable: dict[str, list[Round]]) -> list[Chart]:
    rates = {name: _median(rounds, lambda each: each.rate) for name, rounds in durable.items()}
    cpu = {name: _median(rounds, lambda each: each.cpu_of_a_job) for name, rounds in durable.items()}
    waits = {
        kind: {
            name: statistics.median(statistics.median(each.latency[kind]) for each in rounds) * 1000
            for name, rounds in durable.items()
        }
        for kind in (IDLE, LIGHT, HALF)
    }
    return [
        Chart("throughput", "End to end, durable settings", "jobs a second", {"": rates}),
        Chart("cpu", "Processor time of a job, all processes and servers", "µs", {"": cpu}),
        Chart("latency", "From submission to result, median", "ms, logarithmic", waits, logarithmic=True),
    ]


def _median(rounds: list[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, rounds))
