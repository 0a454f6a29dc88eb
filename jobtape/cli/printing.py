"""Prints jobs, events and JSON. Text that comes from a job is never markup and has no control characters.

rich is imported on first use, because a worker does not need it.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jobtape.cli.escaping import harmless, json_text, lines, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

COLOURS: Final = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "running": "cyan",
    "retrying": "yellow",
}
WIDE: Final = 10_000
"""Columns of a list: each job stays on one line for ``grep``, and a terminal wraps a line better than table cells."""


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    print(_json(value, indent=2))


def print_failure(job: dict[str, Any]) -> None:
    """Print on stderr why a job did not succeed."""
    error = job.get("error") or {}
    if error.get("traceback"):
        print(lines(error["traceback"].rstrip()), file=sys.stderr)
    why = f": {error['type']}: {error['message']}" if error else ""
    print(one_line(f"jobtape: job {job['id']} {job['state']}{why}"), file=sys.stderr)


def print_job(job: dict[str, Any]) -> None:
    """Print one job, field by field."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _fields(job):
        table.add_row(name, text)
    _console(None if sys.stdout.isatty() else WIDE).print(table)


def print_jobs(page: dict[str, Any]) -> None:
    """Print a page of jobs, one line each."""
    rows = []
    for job in page["items"]:
        state = _state(job).append(f" ({one_line(job['reason'])})" if job.get("reason") else "")
        submitted, took = _time(job["submitted_at"]), _took(job)
        rows.append((job["id"], job["type"], state, job["queue"], submitted, took, _labels(job)))
    _print_rows(("id", "type", "state", "queue", "submitted", "took", "labels"), rows)
    if page["next"]:
        print("there are more: see --limit and the filters", file=sys.stderr)


def print_dead(page: dict[str, Any]) -> None:
    """Print a page of messages that are not jobs, one line each."""
    rows = [(each["id"], _time(each["at"]), each["size"], each["reason"]) for each in page["items"]]
    _print_rows(("number", "since", "bytes", "reason"), rows)
    if page["next"]:
        print("there are more: see --limit", file=sys.stderr)


def print_workers(found: dict[str, Any]) -> None:
    """Print workers, one line each, and below each one what it runs."""
    rows: list[Sequence[Any]] = []
    for each in found["items"]:
        seen, queues = _time(each["last_seen"]), " ".join(each["queues"])
        state = f"{each['state']} ({each['fault']})" if each["fault"] else each["state"]
        rows.append(
            (each["name"], state, f"{each['running']} of {each['slots']}", queues, _time(each["started_at"]), seen)
        )
        rows += [("  " + run["job_id"], run["job_type"], "", "", _time(run["since"]), "") for run in each["executions"]]
    _print_rows(("worker", "state", "slots", "queues", "since", "last seen"), rows)
    if not found["collected"]:
        print("no projector is active, so this may be old: start `jobtape projector`", file=sys.stderr)


def print_stats(found: dict[str, Any]) -> None:
    """Print the numbers of job types and of queues, one line each."""
    series = found["series"]
    for what, items in (("type", found["types"]), ("queue", found["queues"])):
        rows = []
        for each in items:
            numbers = (_numbers(each["jobs"]), _numbers(each["events"]))
            rows.append((each[what], *numbers, _durations(each["wait"]), _durations(each["run"])))
        times = f"{_time(series['since'])} to {_time(series['until'])}"
        _print_rows((what, "jobs now", f"events from {times}", "wait p50, p99", "run p50, p99"), rows)


def _numbers(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={n}" for name, n in counts.items())


def _durations(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['p50']:g} s, {found['p99']:g} s"


def print_failures(items: Sequence[dict[str, Any]]) -> None:
    """Print groups of failures, one line each."""
    rows = []
    for each in items:
        cause = f"{each['error']} at {each['where']}" if each["where"] else each["error"]
        numbers = (each["failed"], each["retrying"], each["jobs"])
        rows.append((each["id"], _time(each["last"]), each["type"], f"{cause} ({each['reason']})", *numbers))
    _print_rows(("failure", "last", "type", "cause", "failed", "retried", "failed now"), rows)


def print_waits(items: Sequence[dict[str, Any]]) -> None:
    """Print how long jobs waited and would have waited, one line for each limit and key."""
    rows = []
    for each in items:
        waits = (
            f"{times['p50']:g} {times['p95']:g} {times['max']:g}" for times in (each["waited"], each["would_wait"])
        )
        rows.append((each["gate"], each["key"], each["jobs"], *waits))
    _print_rows(("limit", "key", "jobs", "waited p50 p95 max, s", "would wait p50 p95 max, s"), rows)


def print_subscriptions(items: Sequence[dict[str, Any]]) -> None:
    """Print durable subscriptions, one line each."""
    rows = []
    for each in items:
        position, queue = each["position"] or {}, each["queue"] or {}
        moved = f"{position['idle']:.0f} s ago" if position else ""
        reader = (position.get("cursor"), moved, position.get("owner"))
        rows.append((each["name"], *reader, queue.get("messages"), queue.get("consumers")))
    _print_rows(("name", "cursor", "moved", "read by", "waiting", "consumers"), rows)


def print_events(items: Sequence[dict[str, Any]]) -> None:
    """Print events, one line each; an event that changed nothing is marked."""
    rows = []
    for event in items:
        data, name = event["data"], event["type"].rpartition(".")[2]
        shown = name if event.get("accepted", True) else f"{name} (changed nothing)"
        when = (event["cursor"], _time(event["time"]))
        rows.append((*when, shown, data.get("run"), data.get("attempt"), _content(data)))
    _print_rows(("cursor", "time", "event", "run", "attempt", "content"), rows)


def print_delivered(event: dict[str, Any]) -> None:
    """Print one event at once, on one line: time, job type, event, job and content."""
    data, name = event["data"], one_line(event["type"].rpartition(".")[2])
    line = _coloured(f"{_time(event['time'])}  {one_line(data['job_type']):<20}  ", "")
    line.append(f"{name:<10}", style=COLOURS.get(name, ""))
    line.append(f"  {one_line(event['subject'])}  {one_line(_content(data))}")
    _console().print(line, soft_wrap=True)
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """Print a JSON document at once, on one line."""
    print(_json(value), flush=True)


def progress_bar() -> "Progress":
    """Return a progress bar on stderr that disappears when it is done, and is not shown without a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _console(width: int | None = WIDE) -> "Console":
    from rich.console import Console  # noqa: PLC0415

    return Console(width=width, highlight=False, markup=False, emoji=False)


def _print_rows(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(cell if hasattr(cell, "plain") else harmless(cell) for cell in row))
    _console().print(table)


def _labels(job: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in (job["labels"] or {}).items())


def _fields(job: dict[str, Any]) -> list[tuple[str, "str | Text"]]:
    error, progress = job.get("error"), job.get("progress")
    rows: list[tuple[str, str | Text | None]] = [
        ("id", job["id"]),
        ("type", job["type"]),
        ("state", _state(job)),
        ("progress", f"{progress['fraction']:.0%} {progress['message'] or ''}" if progress else None),
        ("queue", job["queue"]),
        ("labels", _labels(job)),
        ("attempt", f"{job['attempt']} of {job['max_attempts']}" if job["max_attempts"] else str(job["attempt"])),
        ("submitted", _time(job["submitted_at"])),
        ("started", _time(job["started_at"])),
        ("finished", _time(job["finished_at"])),
        ("took", _took(job)),
        ("correlation", job["correlation_id"]),
        ("payload", json.dumps(job["payload"], ensure_ascii=False)),
        ("result", json.dumps(job["result"], ensure_ascii=False) if job["state"] == "succeeded" else None),
        ("reason", job.get("reason")),
        ("error", f"{error['type']}: {error['message']}" if error else None),
    ]
    shown = [(name, one_line(value) if isinstance(value, str) else value) for name, value in rows]
    fields = [(name, value) for name, value in shown if value]
    if error and error.get("traceback"):
        fields.append(("traceback", lines(error["traceback"].rstrip())))
    return fields


def _state(job: dict[str, Any]) -> "Text":
    return _coloured(one_line(job["state"]), COLOURS.get(job["state"], ""))


def _coloured(text: str, style: str) -> "Text":
    from rich.text import Text  # noqa: PLC0415

    return Text(text, style=style)


def _time(text: str | None) -> str:
    return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(job: dict[str, Any]) -> str:
    if job["started_at"] is None or job["finished_at"] is None:
        return ""
    took = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
    return f"{took.total_seconds():.3f} s"


def _content(data: dict[str, Any]) -> str:
    if error := data.get("error"):
        return f"{error['type']}: {error['message']}"
    if "fraction" in data:
        return f"{data['fraction']:.0%} {data.get('message') or ''}"
    for name in ("order", "result", "worker"):
        if name in data:
            return f"{name} {json.dumps(data[name], ensure_ascii=False)}"[:200]
    return ""


def _json(value: Any, indent: int | None = None) -> str:
    return json_text(json.dumps(value, ensure_ascii=not _is_utf8(), indent=indent))


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
