"""``jobtape simulate``: how long past jobs would have waited under other limits. Uses the REST API; changes nothing."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import connect, job_path
from jobtape.cli.errors import OK, WrongUse
from jobtape.cli.options import DEFAULT_URL, Json, SubmittedSince, SubmittedUntil, Url
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid
from jobtape.schemas.job_types.declared_gates import LABEL, Concurrency, DeclaredGates, Rate
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.queueing.simulation import PastRun, simulated_waits

if TYPE_CHECKING:
    from jobtape import SyncClient

PAGE: Final = 500
_LIMIT: Final = re.compile(r"([A-Za-z0-9_.\-]{1,120})=(\d{1,9})(?:/(\d+(?:\.\d+)?))?(?:@(.+))?")
ALL: Final = "all jobs"


@dataclass(frozen=True, slots=True)
class _Past:
    """A run, how long it waited in fact, and the gates whose waits are shown, as texts."""

    run: PastRun
    waited: float
    shown: list[tuple[str, str]]


def simulate(
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limits",
            metavar="LIMIT",
            help="NAME=NUMBER (at once) or NAME=NUMBER/SECONDS (a rate), with @FIELD for each value of a field or "
            "label: mail.send=5@tenant. NAME is that of a limit, or of a job type that gets a new one. Can be "
            "given several times.",
        ),
    ] = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    most: Annotated[
        int, typer.Option("--limit", metavar="NUMBER", help="How many jobs at most, newest first.")
    ] = 100_000,
    rows: Annotated[int, typer.Option(metavar="NUMBER", help="How many keys are shown, the longest waits first.")] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Show how long past jobs waited, and how long they would have waited under other limits.

    Without --limits: under the limits of the code that the API runs.
    """
    with connect(url) as api:
        types = api.request("GET", "/job-types").content["items"]
        declared = _all_declared(types, [_parsed(text) for text in limits or ()])
        if not declared:
            raise WrongUse("no job type has an ordering key or a limit: give one, --limits TYPE=5")
        past, left_out = _read(api, declared, {"since": since, "until": until}, most)
    waits = simulated_waits([each.run for each in past])
    found = _summary(past, waits)
    if as_json:
        show.print_json({"jobs": len(past), "left_out": left_out, "gates": found})
    else:
        show.print_waits(found[: rows + 1])
        print(f"{len(past)} jobs; {left_out} left out, which never started or have not ended")
    return OK


def _parsed(text: str) -> tuple[str, Concurrency | Rate]:
    """Return the name and the new values of a limit. Raises WrongUse."""
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise WrongUse(f"--limits {text}: write NAME=NUMBER or NAME=NUMBER/SECONDS, with @FIELD if you like")
    name, number, per, by = found.groups()
    return name, Concurrency(int(number), by) if per is None else Rate(int(number), float(per), by)


def _all_declared(
    types: Sequence[Mapping[str, Any]], given: Sequence[tuple[str, Concurrency | Rate]]
) -> dict[str, DeclaredGates]:
    """Return what the job types declare about gates, with the limits that were given. Raises WrongUse."""
    found: dict[str, DeclaredGates] = {}
    used: set[str] = set()
    for each in types:
        limits = [_declared(limit) for limit in each["limits"]]
        for name, new in given:
            named = [n for n, one in enumerate(limits) if one.name == name and type(one) is type(new)]
            same = [n for n in named if new.by in (None, limits[n].by)]
            for n in same:
                limits[n] = _with(new, name, limits[n].by)
            if not same and (named or each["name"] == name):
                limits.append(_with(new, name, new.by))
            if named or each["name"] == name:
                used.add(name)
        if limits or each["ordering_key"] is not None:
            found[each["name"]] = _declared_gates(each, limits)
    if missing := [name for name, _ in given if name not in used]:
        raise WrongUse(f"--limits {missing[0]}=…: no limit and no job type has this name")
    return found


def _declared(limit: Mapping[str, Any]) -> Concurrency | Rate:
    if limit["per"] is None:
        return Concurrency(limit["at_most"], limit["by"], limit["name"])
    return Rate(limit["at_most"], limit["per"], limit["by"], limit["name"])


def _with(limit: Concurrency | Rate, name: str, by: str | None) -> Concurrency | Rate:
    if isinstance(limit, Rate):
        return Rate(limit.at_most, limit.per, by, name)
    return Concurrency(limit.at_most, by, name)


def _declared_gates(job_type: Mapping[str, Any], limits: Sequence[Concurrency | Rate]) -> DeclaredGates:
    # Without the ordering key, because that of each job is known.
    declared = DeclaredGates(job_type["name"], limits=tuple(limits), take_turns=job_type["take_turns"])
    paths = [declared.take_turns, *(limit.by for limit in limits)]
    # The fields of a type whose payload is any object are not known.
    fields = [*job_type["schemas"]["payload"].get("properties", {})] or [
        path.split(".")[0] for path in paths if path is not None and not path.startswith(LABEL)
    ]
    try:
        declared.check(fields, "--limits")
    except JobTypeInvalid as error:
        raise WrongUse(str(error)) from None
    return declared


def _read(
    api: "SyncClient", declared: Mapping[str, DeclaredGates], times: Mapping[str, str | None], most: int
) -> tuple[list[_Past], int]:
    """Return the runs in the order in which they were due, and the number of jobs that say nothing."""
    found: list[_Past] = []
    left_out = 0
    for n, job in enumerate(
        _jobs(api, list(declared), {name: time for name, time in times.items() if time is not None})
    ):
        if n == most:
            break
        past = _past_run(api, job, declared[job["type"]])
        if past is None:
            left_out += 1
        else:
            found.append(past)
    return sorted(found, key=lambda each: (each.run.due, each.run.job_id)), left_out


def _jobs(api: "SyncClient", types: Sequence[str], times: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    position: dict[str, str] = {}
    while True:
        page = api.request("GET", "/jobs", params={**times, "type": types, "limit": PAGE, **position}).content
        yield from page["items"]
        if page["next"] is None:
            return
        position = {"cursor": page["next"]}


def _past_run(api: "SyncClient", job: Mapping[str, Any], declared: DeclaredGates) -> _Past | None:
    begin, end = job["started_at"], job["finished_at"]
    due = max(filter(None, (job["submitted_at"], job["run_at"])), default=None)
    if job["run"] > 1 or job["attempt"] > 1:  # of which the job shows the latest attempt only
        due, begin = _first_start(api, job, due)
    if due is None or begin is None or end is None:
        return None
    try:
        gates = declared.gates(job["payload"] or {}, job["labels"] or {}) or Gates()
    except PayloadInvalid:
        return None
    gates = gates.model_copy(update={"ordering_key": job["ordering_key"]})
    start, seconds = _seconds(due), _seconds(end) - _seconds(begin)
    shown = [(_text(limit.at_most, limit.per, limit.name), limit.key) for limit in gates.limits]
    if gates.ordering_key is not None:
        shown.append(("ordering key", gates.ordering_key))
    run = PastRun(job["id"], job["type"], gates, start, max(seconds, 0.0))
    return _Past(run, max(_seconds(begin) - start, 0.0), shown)


def _first_start(api: "SyncClient", job: Mapping[str, Any], due: str | None) -> tuple[str | None, str | None]:
    """Return when the latest run of a job was due, and when it was started first."""
    begin: str | None = None
    after = 0
    while True:
        page = api.request("GET", f"{job_path(job['id'])}/events", params={"after": after, "limit": PAGE}).content
        for event in page["items"]:
            name = event["type"].rpartition(".")[2]
            if event["data"]["run"] == job["run"] and name == "redriven":
                due = event["time"]
            if event["data"]["run"] == job["run"] and name == "started" and begin is None:
                begin = event["time"]
            after = event["cursor"]
        if len(page["items"]) < PAGE:
            return due, begin or (job["started_at"] if job["attempt"] == 1 else None)


def _summary(past: Sequence[_Past], waits: Sequence[float]) -> list[dict[str, Any]]:
    """Return the waits of all jobs, and those by limit and key, the longest first."""
    by_gate: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for each, wait in zip(past, waits, strict=True):
        for gate in each.shown:
            by_gate[gate].append((each.waited, wait))
    rows = [_row(gate, key, found) for (gate, key), found in by_gate.items()]
    rows.sort(key=lambda row: (-row["would_wait"]["max"], row["gate"], row["key"]))
    both = [(each.waited, wait) for each, wait in zip(past, waits, strict=True)]
    return [_row(ALL, "", both), *rows]


def _row(gate: str, key: str, found: Sequence[tuple[float, float]]) -> dict[str, Any]:
    waited, would_wait = (sorted(times) for times in zip(*found, strict=True)) if found else ([], [])
    return {
        "gate": gate,
        "key": key,
        "jobs": len(found),
        "waited": _quantiles(waited),
        "would_wait": _quantiles(would_wait),
    }


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the longest of sorted times, in seconds."""
    if not times:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0}
    last = len(times) - 1
    return {name: round(times[round(q * last)], 3) for name, q in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def _text(at_most: int, per: float | None, name: str) -> str:
    return f"{name}: {at_most} {'at once' if per is None else f'in {per:g} s'}"


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
