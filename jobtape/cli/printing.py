"""Prints jobs, events and JSON. Text that comes from a job is never markup and has no control characters.

rich is imported on first use, because a worker does not need it.
"""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jobtape.cli.escaping import harmless, json_text, lines, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
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
    console = _console()
    table = _table("id", "type", "state", "queue", "submitted", "took", "labels")
    for job in page["items"]:
        labels = " ".join(f"{name}={value}" for name, value in (job["labels"] or {}).items())
        _add_row(
            table,
            job["id"],
            job["type"],
            _state(job).append(f" ({one_line(job['reason'])})" if job.get("reason") else ""),
            job["queue"],
            _time(job["submitted_at"]),
            _took(job),
            labels,
        )
    console.print(table)
    if page["next"]:
        print("there are more: see --limit and the filters", file=sys.stderr)


def print_dead(page: dict[str, Any]) -> None:
    """Print a page of messages that are not jobs, one line each."""
    table = _table("number", "since", "bytes", "reason")
    for message in page["items"]:
        _add_row(table, message["id"], _time(message["at"]), message["size"], message["reason"])
    _console().print(table)
    if page["next"]:
        print("there are more: see --limit", file=sys.stderr)


def print_subscriptions(items: Sequence[dict[str, Any]]) -> None:
    """Print durable subscriptions, one line each."""
    table = _table("name", "cursor", "moved", "read by", "waiting", "consumers")
    for each in items:
        position, queue = each["position"] or {}, each["queue"] or {}
        _add_row(
            table,
            each["name"],
            position.get("cursor"),
            f"{position['idle']:.0f} s ago" if position else "",
            position.get("owner"),
            queue.get("messages"),
            queue.get("consumers"),
        )
    _console().print(table)


def print_events(items: Sequence[dict[str, Any]]) -> None:
    """Print events, one line each; an event that changed nothing is marked."""
    table = _table("cursor", "time", "event", "run", "attempt", "content")
    for event in items:
        data = event["data"]
        name = event["type"].rpartition(".")[2]
        _add_row(
            table,
            event["cursor"],
            _time(event["time"]),
            name if event.get("accepted", True) else f"{name} (changed nothing)",
            data.get("run"),
            data.get("attempt"),
            _content(data),
        )
    _console().print(table)


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


def _table(*names: str) -> "Table":
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _add_row(table: "Table", *cells: Any) -> None:
    table.add_row(*(cell if hasattr(cell, "plain") else harmless(cell) for cell in cells))


def _fields(job: dict[str, Any]) -> list[tuple[str, "str | Text"]]:
    error, progress = job.get("error"), job.get("progress")
    labels = " ".join(f"{name}={value}" for name, value in (job["labels"] or {}).items())
    rows: list[tuple[str, str | Text | None]] = [
        ("id", job["id"]),
        ("type", job["type"]),
        ("state", _state(job)),
        ("progress", f"{progress['fraction']:.0%} {progress['message'] or ''}" if progress else None),
        ("queue", job["queue"]),
        ("labels", labels),
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
