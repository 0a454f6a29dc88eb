"""Gates under fire: order, limits, rates, lanes and schedules on several workers and projectors that are killed again
and again.
"""

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from benchmarks.report.section import Section, table
from benchmarks.rig.installation import Installation, percentile, until
from benchmarks.rig.plan import Plan
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import jobtape
from jobtape.schemas import ids
from jobtape.view.store import HistoryRow, Store

WORKERS: Final = 3
PROJECTORS: Final = 3
LIMIT: Final = 5
RATE: Final = 50
FEW: Final = 10
BATCH: Final = 500
HIGH: Final = 100
LANED_SECONDS: Final = 0.4
"""How long a job of a lane runs, so that workers and not the broker are the limit."""
LOW_SHARE: Final = 1 / 7
"""Of the low lane, while jobs of the high one wait and none of the normal one: weights of 6 and 1."""
KILL_WORKER_EVERY: Final = 3.0
KILL_PROJECTOR_EVERY: Final = 5.0
LONGEST: Final = 400.0
"""Seconds after which a measurement gives up."""
_PAGE: Final = 5000


@dataclass(frozen=True, slots=True)
class Line:
    """What an execution has recorded."""

    what: str
    job_type: str
    key: str
    n: int
    fence: int
    pid: int
    time: float


@dataclass
class Order:
    """What the lines say about the jobs of ordering keys. ``cut_off``: executions whose worker was killed."""

    begun: int = 0
    repeated: int = 0
    cut_off: int = 0
    out_of_order: int = 0
    at_once: int = 0
    refused: int = 0
    stored_out_of_order: int = 0


@dataclass
class Found:
    """The lines of the table: what was measured, what must hold, and what was found."""

    rows: list[list[str]] = field(default_factory=list)

    def add(self, what: str, must: str, found: str, *, holds: bool) -> None:
        """Add a line."""
        self.rows.append([what, must, found, "yes" if holds else "**no**"])
        log(f"{what}: {found} ({must}: {'holds' if holds else 'DOES NOT HOLD'})")


class Gated:
    """An installation with gated jobs. ``made``: its parts."""

    def __init__(self, made: Installation, database: str) -> None:
        self.made = made
        self._lines = Path(made.environment["BENCH_EXECUTIONS"])
        self.database = database
        self.killed: set[int] = set()

    def submit(self, job_type: str, payloads: Sequence[dict[str, object]], **options: str) -> None:
        """Submit jobs in this order. ``options``: further fields of each. Raises RuntimeError when one is refused."""
        with self.made.client() as client:
            for start in range(0, len(payloads), BATCH):
                batch = [{"type": job_type, "payload": each} | options for each in payloads[start : start + BATCH]]
                answer = client.post("/jobs/batch", json=batch).raise_for_status().json()
                if any(item["status"] != "accepted" for item in answer["items"]):
                    raise RuntimeError(f"a submission was not accepted: {answer}")

    def lines(self, job_type: str) -> list[Line]:
        """Return what the executions of a job type have recorded so far, in one order."""
        found = []
        text = self.text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            what, name, key, n, fence, pid, moment = line.split()
            if name == job_type:
                found.append(Line(what, name, key, int(n), int(fence), int(pid), float(moment)))
        return found

    def text(self) -> str:
        """Return what all executions have recorded so far."""
        return self._lines.read_text() if self._lines.exists() else ""

    def ended(self, job_type: str) -> int:
        """Return how many different jobs have ended."""
        return len({(line.key, line.n) for line in self.lines(job_type) if line.what == "end"})

    def all_ended(self, job_type: str, jobs: int) -> bool:
        """Return whether ``jobs`` different jobs have ended."""
        text = self.text()
        # First what is quick: it is asked often, beside what is measured.
        return text.count(f"end {job_type} ") >= jobs and self.ended(job_type) >= jobs

    def kill(self, name: str, pid: int) -> None:
        """Kill a part, and start another one in its stead."""
        part = next(each for each in self.made.parts if each.name == name and each.process.pid == pid)
        self.killed.add(pid)
        self.made.replace(part)


@contextmanager
def _gated(stage: Stage, database: str, *, projectors: int = 1) -> Iterator[Gated]:
    with tempfile.TemporaryDirectory(prefix="gates-", dir=stage.folder) as name, ExitStack() as stack:
        made = jobtape(stage, Path(name), stack, database).installation
        made.environment |= {
            "JOBTAPE_JOBS": "benchmarks.rig.gate_jobs",
            "BENCH_EXECUTIONS": str(Path(name) / "executions"),
            "JOBTAPE_PROJECTOR_LEASE": "1.0",
        }
        for part in ("projector",) * projectors + ("api",) + ("worker",) * WORKERS:
            made.start(part)
        made.wait_ready()
        gated = Gated(made, database)
        gated.submit("unordered", [{"key": "first", "n": n} for n in range(10)])
        until(lambda: gated.all_ended("unordered", 10), "the first jobs have run", LONGEST)
        yield gated


def measure(stage: Stage, plan: Plan) -> Section:
    """Measure everything once; what it says is whether something held."""
    found = Found()
    with _gated(stage, "sqlite") as gated:
        free = _rate(gated, "unordered", plan, kill=False)
    with _gated(stage, "sqlite") as gated:
        kept = _rate(gated, "ordered", plan, kill=True)
        _add_order(found, plan, gated, free, kept)
    with _gated(stage, "sqlite") as gated:
        _hop(found, gated, plan)
        _limited(found, gated, plan)
        _rated(found, gated, plan)
        _turns(found, gated, plan)
    with _gated(stage, "sqlite") as gated:
        measure_lanes(found, gated, plan)
    with _gated(stage, "postgresql", projectors=PROJECTORS) as gated:
        _schedules(found, gated, plan)
    return Section("gates", "\n\n".join(_text(found)))


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs a second, from the first submission until all are ``executed``, and until all outcomes are ``readable``."""

    executed: float
    readable: float


def _rate(gated: Gated, job_type: str, plan: Plan, *, kill: bool) -> Rate:
    """Run jobs in many keys. ``kill``: kill one worker after the other meanwhile."""
    payloads = [{"key": f"k{n % plan.keys}", "n": n // plan.keys} for n in range(plan.gated)]
    before = gated.ended(job_type)
    began = time.monotonic()
    next_kill = began + KILL_WORKER_EVERY
    gated.submit(job_type, payloads)
    while not gated.all_ended(job_type, before + plan.gated):
        if time.monotonic() - began > LONGEST:
            raise TimeoutError(f"{gated.ended(job_type)} of {plan.gated} {job_type} jobs in {LONGEST:g} s")
        if kill and time.monotonic() > next_kill:
            worker = next(each for each in gated.made.parts if each.name == "worker")  # the oldest
            gated.kill("worker", worker.process.pid)
            next_kill = time.monotonic() + KILL_WORKER_EVERY
        time.sleep(0.2)
    executed = time.monotonic() - began
    store = gated.made.store()
    wanted = before + plan.gated
    until(lambda: store.counts().get((job_type, "succeeded"), 0) >= wanted, "all outcomes are readable", LONGEST)
    rate = Rate(plan.gated / executed, plan.gated / (time.monotonic() - began))
    store.close()
    log(
        f"{job_type}: {rate.executed:,.0f} jobs/s executed, {rate.readable:,.0f} jobs/s readable, "
        f"{len(gated.killed)} workers killed"
    )
    return rate


def order_of(lines: Iterable[Line], killed: set[int]) -> Order:
    """Check the order of each key. An execution that has not ended when another one of its key begins was cut off if
    its worker was killed. Otherwise two ran at once.

    The store is fenced: it refuses a write whose fence is lower than the highest that it has seen of the key.
    """
    found = Order()
    running: defaultdict[str, dict[tuple[int, int], Line]] = defaultdict(dict)
    known: defaultdict[str, set[int]] = defaultdict(set)
    highest: dict[str, int] = {}
    stored: dict[str, int] = {}
    for line in lines:
        open_ones = running[line.key]
        if line.what == "end":
            open_ones.pop((line.n, line.pid), None)
            if line.fence < highest.get(line.key, 0):
                found.refused += 1
                continue
            highest[line.key] = line.fence
            found.stored_out_of_order += line.n < stored.get(line.key, -1)
            stored[line.key] = line.n
            continue
        found.begun += 1
        for at, other in list(open_ones.items()):
            if other.pid in killed:
                found.cut_off += 1
                del open_ones[at]
            else:
                found.at_once += 1
        if line.n in known[line.key]:
            found.repeated += 1
        elif line.n != len(known[line.key]):
            found.out_of_order += 1
        known[line.key].add(line.n)
        open_ones[line.n, line.pid] = line
    found.cut_off += sum(len(each) for each in running.values())
    return found


def _add_order(found: Found, plan: Plan, gated: Gated, free: Rate, kept: Rate) -> None:
    order = order_of(gated.lines("ordered"), gated.killed)
    found.add(
        f"{plan.gated:,} jobs on {plan.keys} ordering keys, {WORKERS} workers, of which one was killed "
        f"{len(gated.killed)} times",
        "in order for each key, never two at once",
        f"{order.out_of_order} out of order, {order.at_once} at once; {order.cut_off} executions cut off, "
        f"{order.repeated} repeated; {order.refused} late writes refused by the fence, "
        f"{order.stored_out_of_order} stored out of order",
        holds=not order.out_of_order and not order.at_once and not order.stored_out_of_order,
    )
    for until_when, one, other in (
        ("until all outcomes are readable", kept.readable, free.readable),
        ("until all are executed, when unordered ones are not all folded", kept.executed, free.executed),
    ):
        found.add(
            f"their rate ÷ that of unordered jobs without kills, {until_when}",
            "≥ 0.4",
            f"{one:,.0f} ÷ {other:,.0f} jobs/s = {one / other:.2f}",
            holds=one / other >= 0.4,
        )


def _hop(found: Found, gated: Gated, plan: Plan) -> None:
    gated.submit("ordered", [{"key": "hop", "n": n} for n in range(plan.calls)])
    until(lambda: gated.all_ended("ordered", plan.calls), "the jobs of one key have run", LONGEST)
    lines = gated.lines("ordered")
    hops = [
        1000 * (after.time - before.time)
        for before, after in itertools.pairwise(lines)
        if (before.what, after.what) == ("end", "begin")
    ]
    p50 = statistics.median(hops)
    found.add(
        f"from the end of a job to the start of the next one of its key, {len(hops)} times, nothing else running",
        "p50 < 15 ms",
        f"p50 {p50:.1f} ms, p99 {percentile(hops, 0.99):.1f} ms",
        holds=p50 < 15,
    )


def _limited(found: Found, gated: Gated, plan: Plan) -> None:
    gated.submit("limited", [{"key": "a", "n": n, "seconds": plan.limited_seconds} for n in range(plan.limited)])
    until(lambda: gated.all_ended("limited", plan.limited), "the limited jobs have run", LONGEST)
    lines = gated.lines("limited")
    most = max(itertools.accumulate(1 if line.what == "begin" else -1 for line in lines))
    begins = {line.n: line.time for line in lines if line.what == "begin"}
    busy = sum(line.time - begins[line.n] for line in lines if line.what == "end")
    # Up to the last start: after it the slots become free one by one.
    last = max(begins.values())
    busy -= sum(line.time - last for line in lines if line.what == "end" and line.time > last)
    used = busy / (LIMIT * (last - lines[0].time))
    found.add(
        f"a limit of {LIMIT} on {WORKERS} workers, {plan.limited} jobs of {plan.limited_seconds:g} s",
        f"never above {LIMIT}, used to 95 %",
        f"at most {most} at once, used to {100 * used:.1f} %",
        holds=most <= LIMIT and used >= 0.95,
    )


def _rated(found: Found, gated: Gated, plan: Plan) -> None:
    jobs = round(RATE * plan.rated_seconds)
    gated.submit("rated", [{"key": "a", "n": n} for n in range(jobs)])
    until(lambda: gated.all_ended("rated", jobs), "the rated jobs have run", LONGEST)
    store = gated.made.store()
    times = sorted(
        row.time.timestamp() for row in _history(store) if row.name == "placed" and '"job_type":"rated"' in row.event
    )
    store.close()
    rate = (len(times) - 1) / (times[-1] - times[0])
    # In any second: the window ends before the first placement that is a second later.
    most = max(sum(1 for each in times[n : n + 2 * RATE] if each < first + 1) for n, first in enumerate(times))
    found.add(
        f"a rate of {RATE}/s, {jobs:,} jobs",
        f"{RATE}/s ± 2 %, never above in any second",
        f"{rate:.2f}/s, at most {most} in a second",
        holds=abs(rate / RATE - 1) <= 0.02 and most <= RATE,
    )


def _turns(found: Found, gated: Gated, plan: Plan) -> None:
    gated.submit("turns", [{"key": "many", "n": n} for n in range(plan.gated)])
    before = len(gated.lines("turns"))
    gated.submit("turns", [{"key": "few", "n": n} for n in range(FEW)])

    def few_ended() -> bool:
        return sum(line.what == "end" and line.key == "few" for line in gated.lines("turns")) >= FEW

    until(few_ended, "the few jobs have run", LONGEST)
    begins = [line.key for line in gated.lines("turns")[before:] if line.what == "begin"]
    first, last = begins.index("few"), len(begins) - 1 - begins[::-1].index("few")
    between = begins[first : last + 1].count("many")
    found.add(
        f"{plan.gated:,} jobs of one key, then {FEW} of another, behind the same limit",
        "by turns, not last",
        f"from the first to the last of the {FEW}, {between} of the {plan.gated:,} started",
        holds=between <= 2 * FEW + LIMIT,
    )


def measure_lanes(found: Found, gated: Gated, plan: Plan) -> None:
    """Add how long jobs of the high lane take with and without a backlog of the low one, and the share of the low one
    while jobs of both wait.
    """
    alone = _high_jobs(gated, "alone")
    gated.submit("laned", [{"key": "low", "n": n, "seconds": LANED_SECONDS} for n in range(plan.gated)])
    until(lambda: "begin laned low" in gated.text(), "jobs of the low lane run", LONGEST)
    took = _high_jobs(gated, "urgent")
    waiting = plan.gated - sum(line.key == "low" and line.what == "end" for line in gated.lines("laned"))
    found.add(
        f"{plan.gated:,} jobs of the low lane, then {HIGH} of the high one",
        "the high ones done within a second of what they take alone",
        f"{took:.2f} s, alone {alone:.2f} s; {waiting:,} low ones were left",
        holds=took <= alone + 1 and waiting > 0,
    )
    before = len(gated.lines("laned"))
    many = plan.gated // 2
    payloads = [{"key": "load", "n": n, "seconds": LANED_SECONDS} for n in range(many)]
    gated.submit("laned", payloads, lane="high")
    until(lambda: gated.text().count("begin laned load") >= many, "the high lane is empty", LONGEST)
    begun = [line.key for line in gated.lines("laned")[before:] if line.what == "begin"]
    # From the first to the last of the high lane, without what begins while they are submitted and while few are left.
    high = [n for n, key in enumerate(begun) if key == "load"]
    both = begun[high[many // 4] : high[3 * many // 4]]
    share = both.count("low") / len(both)
    left = plan.gated - gated.text().count("begin laned low ")
    found.add(
        f"{many:,} jobs of the high lane beside the low ones",
        f"the low lane goes on at its weight, {100 * LOW_SHARE:.0f} %",
        f"{100 * share:.1f} % of {len(both):,} jobs; {left:,} low ones were left",
        holds=left > 0 and abs(share / LOW_SHARE - 1) <= 0.25,
    )


def _high_jobs(gated: Gated, key: str) -> float:
    """Run ``HIGH`` jobs of the high lane, and return how many seconds the last one ended after the submission."""
    began = time.time()
    payloads = [{"key": key, "n": n, "seconds": LANED_SECONDS} for n in range(HIGH)]
    gated.submit("laned", payloads, lane="high")
    until(lambda: gated.text().count(f"end laned {key} ") >= HIGH, "the jobs of the high lane have run", LONGEST)
    return max(line.time for line in gated.lines("laned") if line.key == key) - began


def _schedules(found: Found, gated: Gated, plan: Plan) -> None:
    made = gated.made
    body = {"type": "tick", "every": 1, "catch_up": "all", "overlap": "allow"}
    with httpx.Client(base_url=made.url, timeout=60) as client:
        for n in range(plan.schedules):
            client.put(f"/schedules/s{n}", json=body).raise_for_status()
        store = made.store()
        began = time.monotonic()
        while time.monotonic() - began < plan.schedule_seconds:
            time.sleep(KILL_PROJECTOR_EVERY)
            if (pid := until_active(store)) in {part.process.pid for part in made.parts}:
                gated.kill("projector", pid)
        for n in range(plan.schedules):
            until(partial(_deleted, client, n), "the API deletes the schedule", LONGEST)
    until(lambda: not store.open_jobs.queues(), "all jobs of ticks have run", LONGEST)
    ticks: defaultdict[str, list[float]] = defaultdict(list)
    executions: defaultdict[str, int] = defaultdict(int)
    late: list[float] = []
    for row in _history(store):
        if row.name == "succeeded" and '"job_type":"tick"' in row.event:
            executions[row.job_id] += 1
        if row.name != "submitted" or '"schedule":"s' not in row.event or not row.accepted:
            continue
        moment = ids.time_of(row.job_id)
        assert moment is not None
        name = row.event.partition('"schedule":"')[2].partition('"')[0]
        ticks[name].append(moment.timestamp())
        late.append((row.time - moment) / timedelta(seconds=1))
    store.close()
    jobs = sum(map(len, ticks.values()))
    wrong = sum(
        abs(after - before - 1) > 0.001 for each in ticks.values() for before, after in itertools.pairwise(each)
    )
    repeated = sum(each - 1 for each in executions.values())
    found.add(
        f"{plan.schedules} schedules every second on {PROJECTORS} projectors, {len(gated.killed)} times the active one "
        f"was killed, {gated.database}",
        "each tick exactly one job",
        f"{jobs:,} jobs of {len(ticks)} schedules, {wrong} ticks missing, repeated or out of order; {repeated} jobs "
        f"executed again; submitted late by p50 {statistics.median(late):.1f} s, at most {max(late):.1f} s",
        holds=len(ticks) == plan.schedules and not wrong,
    )


def _deleted(client: httpx.Client, n: int) -> bool:
    """Delete a schedule, and return whether it is deleted: not while the view is behind."""
    response = client.delete(f"/schedules/s{n}")
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return False
    response.raise_for_status()
    return True


def until_active(store: Store) -> int:
    """Wait for an active projector, and return its process id."""
    found: list[int] = []

    def active() -> bool:
        checkpoint = store.checkpoint()
        if checkpoint is None or checkpoint.owner is None or not checkpoint.lease_left:
            return False
        found.append(int(checkpoint.owner.split("-")[-2]))
        return True

    until(active, "a projector is active", LONGEST)
    return found[-1]


def _history(store: Store) -> Iterator[HistoryRow]:
    after = 0
    while rows := store.history(after=after, limit=_PAGE):
        yield from rows
        after = rows[-1].cursor


def _text(found: Found) -> Iterable[str]:
    yield "Each once, at full size. Workers and projectors are killed with SIGKILL and replaced."
    yield table(["", "must hold", "found", "holds"], found.rows)
