"""Delays: thousands of jobs due at one moment, or with random delays. How late they start, and what it costs."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.report.section import Chart, Section, table
from benchmarks.rig.installation import percentile
from benchmarks.rig.plan import Plan
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import Running, ours, peers

SHORTEST: Final = 0.1
EARLY: Final = -0.001
"""Seconds. The clock of a handler is read a little after the decision to start it."""
SETTLE: Final = 2.0
"""Seconds from the last submission to the moment at which all jobs are due."""

SINGLES: Final = 5
SINGLE_DELAY: Final = 0.3


@dataclass(frozen=True)
class Outcome:
    """What became of one pattern of one system; ``late`` in milliseconds, ``cpu`` of a job in µs by process."""

    late: list[float]
    lost: int
    accepted: float
    cpu: dict[str, float]

    @property
    def early(self) -> int:
        """How many started before they were due."""
        return sum(each < EARLY * 1000 for each in self.late)


def measure(stage: Stage, plan: Plan) -> Section:
    """Measure single jobs and both patterns, for peers in the first round only."""
    single: dict[str, list[float]] = {}
    immediate: dict[str, list[dict[str, float]]] = defaultdict(list)
    found: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for number in range(plan.long_rounds):
        systems = ours(plan.databases) + ([each for each in peers("durable") if each.delays] if number == 0 else [])
        for system in systems:
            with system.run(stage) as running:
                single.setdefault(system.name, []).extend(_single(running))
                immediate[system.name].append(_immediate(running, plan))
                for pattern, times in PATTERNS.items():
                    outcome = _outcome(running, plan, times)
                    found[system.name, pattern].append(outcome)
                    worst = max(outcome.late, default=float("nan"))
                    log(f"round {number + 1}, {pattern}: {system.name} at most {worst:.0f} ms late")
    charts = [
        Chart(
            "delays",
            "How late the 99th of 100 delayed jobs starts",
            "ms, logarithmic",
            {
                pattern: {
                    name: max(1.0, statistics.median(percentile(each.late, 0.99) for each in outcomes))
                    for (name, its), outcomes in found.items()
                    if its == pattern
                }
                for pattern in PATTERNS
            },
            logarithmic=True,
        )
    ]
    return Section("delays", "\n\n".join(_text(plan, found, single, immediate)), charts)


def _one_moment(plan: Plan, accepted: float) -> list[float]:
    """Return one time for all, after the submission of all."""
    return [time.time() + plan.delayed / accepted * 1.2 + SETTLE] * plan.delayed


def _random(plan: Plan, accepted: float) -> list[float]:
    """Return times that begin after the submission of all, so that a slow submission is not counted as lateness."""
    chance, begin = random.Random(1), time.time() + plan.delayed / accepted * 1.2
    return [begin + chance.uniform(SHORTEST, plan.spread) for _ in range(plan.delayed)]


PATTERNS: Final[dict[str, Callable[[Plan, float], list[float]]]] = {
    "due at one moment": _one_moment,
    "random delays": _random,
}


def _single(running: Running) -> list[float]:
    """Return how many milliseconds jobs that are submitted one after the other are late."""
    late: list[float] = []
    for _ in range(SINGLES):
        late += running.driver.do("due", times=[time.time() + SINGLE_DELAY])["late"]
    return [1000 * each for each in late]


def _immediate(running: Running, plan: Plan) -> dict[str, float]:
    """Return the CPU of a job in µs by process, of jobs without a delay that come in the time of the random delays."""
    before = running.usages()
    jobs = running.driver.do("steady", rate=plan.delayed / plan.spread, seconds=plan.spread)["jobs"]
    after = running.usages()
    return {name: (after[name].cpu - before[name].cpu) / jobs * 1e6 for name in after}


def _outcome(running: Running, plan: Plan, times: Callable[[Plan, float], list[float]]) -> Outcome:
    # How fast this system accepts delayed jobs here and now.
    some = max(100, plan.delayed // 20)
    trial = running.driver.do("due", times=[time.time() + 1] * some)
    before = running.usages()
    answer = running.driver.do("due", times=times(plan, some / trial["submitted"]))
    after = running.usages()
    return Outcome(
        [1000 * each for each in answer["late"]],
        plan.delayed - len(answer["late"]),
        plan.delayed / answer["submitted"],
        {name: (after[name].cpu - before[name].cpu) / plan.delayed * 1e6 for name in after},
    )


def _text(
    plan: Plan,
    found: dict[tuple[str, str], list[Outcome]],
    single: dict[str, list[float]],
    immediate: dict[str, list[dict[str, float]]],
) -> Iterable[str]:
    yield (
        f"{plan.delayed:,} jobs, submitted as fast as the system accepts them{_rounds(plan)}. Random delays are "
        f"{SHORTEST:g} to {plan.spread:g} s after the last submission."
    )
    for pattern in PATTERNS:
        rows = []
        for (name, its), outcomes in found.items():
            if its != pattern:
                continue
            rows.append(
                [
                    name,
                    f"{_median(outcomes, lambda each: each.accepted):,.0f}/s",
                    ", ".join(f"{_late(outcomes, part):,.0f}" for part in (0.5, 0.99, 1.0)),
                    f"{max(each.early for each in outcomes)}, {max(each.lost for each in outcomes)}",
                    f"{_median(outcomes, lambda each: each.cpu['RabbitMQ']):,.0f} µs",
                    f"{_median(outcomes, lambda each: sum(each.cpu.values())):,.0f} µs",
                ]
            )
        head = [pattern, "accepted", "late in ms: p50, p99, most", "early, lost", "broker CPU a job", "all CPU a job"]
        yield table(head, rows)

    yield (
        f"For comparison with the random delays, jobs without a delay, {plan.delayed / plan.spread:,.0f} of them a "
        "second: a processor works less on each job when many come at once."
    )
    yield table(
        ["no delay", "broker CPU a job", "all CPU a job"],
        [
            [
                name,
                f"{statistics.median(each['RabbitMQ'] for each in rounds):,.0f} µs",
                f"{statistics.median(sum(each.values()) for each in rounds):,.0f} µs",
            ]
            for name, rounds in immediate.items()
        ],
    )
    late = ", ".join(f"{name} {statistics.median(each):,.0f} ms" for name, each in single.items())
    yield f"A single job that is due in {SINGLE_DELAY:g} s, {SINGLES} times, late by (median): {late}."


def _rounds(plan: Plan) -> str:
    return "" if plan.long_rounds == 1 else f"; Jobtape: medians of {plan.long_rounds} rounds, the others: one round"


def _late(outcomes: list[Outcome], part: float) -> float:
    return statistics.median(max(each.late) if part == 1.0 else percentile(each.late, part) for each in outcomes)


def _median(outcomes: list[Outcome], value: Callable[[Outcome], float]) -> float:
    return statistics.median(map(value, outcomes))
