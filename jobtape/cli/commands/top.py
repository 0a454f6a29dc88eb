"""``jobtape top``: a live view of queues, workers, rates and failures in the terminal.

Each frame is four reads of the REST API. ``frame`` draws them and is pure, so a test needs no terminal.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import connect
from jobtape.cli.errors import INTERRUPTED, OK
from jobtape.cli.escaping import harmless, one_line
from jobtape.cli.options import DEFAULT_URL, Json, Url
from jobtape.cli.printing import COLOURS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from jobtape import SyncClient

MINUTES: Final = 5
"""The range of rates, times and failures: long enough to be calm, short enough to be of now."""
MOST_FAILURES: Final = 5
WITHOUT_HEIGHT: Final = 10_000
"""Lines of a frame that is not shown on a terminal: nothing is left out."""
OPEN: Final = ("running", "queued", "held", "scheduled", "retrying")
"""States in the order of the columns."""
QUEUE_COLUMNS: Final = ("queue", *OPEN, "oldest", "done/min", "failed/min", "wait p50, p99", "run p50, p99")
WORKER_COLUMNS: Final = ("worker", "state", "slots", "queues", "runs")
FAILURE_COLUMNS: Final = ("last", "type", "cause", "failed", "retried")
DROPPED: Final = ("run p50, p99", "wait p50, p99", "scheduled", "failed/min", "retrying", "oldest", "runs", "queues")
"""Columns that are left out on a narrow terminal, the first one first."""
CUT: Final = {"queue": 12, "state": 40, "queues": 12, "runs": 12, "type": 12, "cause": 12}
"""Columns whose texts are cut when the others need the room, and the characters that stay. Numbers are never cut."""
GAP: Final = 2
"""Spaces between two columns."""


def top(
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, max=3600, help="The time between two frames.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and exit.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Show queues, workers, rates and failures, live, until Ctrl-C. Without a terminal it prints one frame."""
    with connect(url) as api:
        if as_json:
            show.print_json(read(api))
        elif once or not sys.stdout.isatty():
            from rich.console import Console  # noqa: PLC0415

            console = Console(highlight=False, width=None if sys.stdout.isatty() else show.WIDE)
            console.print(frame(read(api), url, WITHOUT_HEIGHT, console.width))
        else:
            return _live(api, url, every)
    return OK


def read(api: "SyncClient") -> dict[str, Any]:
    """Return what a frame shows: ``stats``, ``workers`` and ``failures`` as the API answers. Raises ApiError."""
    since = (datetime.now(UTC) - timedelta(minutes=MINUTES)).isoformat()
    ranged = {"since": since}
    return {
        "minutes": MINUTES,
        "stats": api.request("GET", "/stats", params=ranged).content,
        "workers": api.request("GET", "/workers").content,
        "failures": api.request("GET", "/failures", params={**ranged, "limit": MOST_FAILURES}).content,
    }


def _live(api: "SyncClient", url: str, every: float) -> int:
    """Draw frames on the terminal's second screen until Ctrl-C. An API that is away is no reason to end."""
    from rich.console import Console, Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from jobtape.client.errors import ApiError  # noqa: PLC0415

    console = Console(highlight=False)
    shown: RenderableType = frame(
        read(api), url, console.height, console.width
    )  # an API that is away at the start is an error
    try:
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(shown, refresh=True)
                time.sleep(every)
                try:
                    shown = latest = frame(read(api), url, console.height, console.width)
                except ApiError as error:
                    shown = Group(Text(one_line(str(error)), style="bold red"), latest)
    except KeyboardInterrupt:
        return INTERRUPTED


def frame(found: dict[str, Any], url: str, height: int, width: int) -> "RenderableType":
    """Return one frame of at most ``height`` lines of ``width`` characters. ``found`` is what ``read`` returns."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    stats, workers, failures = found["stats"], found["workers"]["items"], found["failures"]["items"]
    head = Text.assemble(("jobtape top", "bold"), f"  {one_line(url)}  {_clock(stats['at'])}  ")
    for state, n in (stats["jobs"] or {}).items():
        head.append(f"{one_line(state)} ", style=COLOURS.get(state, "")).append(f"{n:,}  ")
    lines: list[RenderableType] = [head]
    if not found["workers"]["collected"]:
        lines.append(Text("No projector is active, so this may be old: start `jobtape projector`.", style="bold red"))
    # Each table has a title, a header and an empty line before it, and at least one row.
    left = height - len(lines) - 6
    failures = failures[: max(left - 3 - 4, 0)]
    left = max(left - (len(failures) + 3 if failures else 0), 2)
    queues, running = _queue_rows(stats["queues"], found["minutes"]), _worker_rows(workers)
    few = max(left // 2, left - max(len(running), 1))
    lines += ["", _table("queues", QUEUE_COLUMNS, queues, few, width)]
    lines += ["", _table("workers", WORKER_COLUMNS, running, left - min(max(len(queues), 1), few), width)]
    if failures:
        title = f"failures, last {found['minutes']} min"
        lines += ["", _table(title, FAILURE_COLUMNS, _failure_rows(failures), MOST_FAILURES, width)]
    return Group(*lines)


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]], most: int, width: int) -> "Table":
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    left_out = len(rows) - most
    shown = rows if left_out <= 0 else rows[: most - 1]
    table = Table(box=None, pad_edge=False, header_style="dim", title=title.upper(), title_justify="left")
    table.title_style = "bold"
    cells = [[cell if isinstance(cell, Text) else Text(harmless(cell)) for cell in row] for row in shown]
    natural = {name: max(len(name), *(row[i].cell_len for row in cells), 0) for i, name in enumerate(names)}
    last = f"… {len(rows) - len(shown)} more" if left_out > 0 else "" if rows else "none"
    natural[names[0]] = max(natural[names[0]], len(last))
    widths = _fitted(natural, width)
    for name, wide in widths.items():
        numeric = name in (*OPEN, "done/min", "failed/min", "failed", "retried", "oldest")
        table.add_column(name, no_wrap=True, width=wide, overflow="ellipsis", justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*(cell for name, cell in zip(names, row, strict=True) if name in widths))
    if last:
        table.add_row(last)
    return table


def _fitted(natural: Mapping[str, int], width: int) -> dict[str, int]:
    """Return the widths of the columns that fit into ``width``. ``natural``: what each one needs."""
    widths = dict(natural)

    def excess() -> int:
        return sum(widths.values()) + GAP * (len(widths) - 1) - width

    least = {name: min(n, CUT.get(name, n)) for name, n in natural.items()}
    for name in DROPPED:
        if sum(least[each] for each in widths) + GAP * (len(widths) - 1) <= width:
            break
        widths.pop(name, None)
    for name in sorted(CUT.keys() & widths.keys(), key=lambda name: -widths[name]):
        widths[name] -= min(max(excess(), 0), widths[name] - least[name])
    return widths


def _queue_rows(items: Iterable[dict[str, Any]], minutes: int) -> list[list[Any]]:
    """Return a row for each queue, those with the most waiting jobs first."""
    rows = []
    for each in sorted(items, key=lambda each: -(each["jobs"] or {}).get("queued", 0)):
        jobs, events = each["jobs"] or {}, each["events"]
        counts = [_count(jobs.get(state, 0), COLOURS.get(state, "")) for state in OPEN]
        oldest = "" if each["oldest"] is None else _span(_age(each["oldest"]["since"]))
        failed = events.get("failed", 0) / minutes
        rates = [f"{events.get('succeeded', 0) / minutes:,.1f}", _count(failed, "red", f"{failed:,.1f}")]
        rows.append([each["queue"], *counts, oldest, *rates, _times(each["wait"]), _times(each["run"])])
    return rows


def _worker_rows(items: Iterable[dict[str, Any]]) -> list[list[Any]]:
    rows = []
    for each in items:
        state = f"{each['state']} ({each['fault']})" if each["fault"] else each["state"]
        types = sorted({run["job_type"] for run in each["executions"]})
        slots = f"{_bar(each['running'], each['slots'])} {each['running']}/{each['slots']}"
        rows.append([each["name"], state, slots, " ".join(each["queues"]), " ".join(types)])
    return rows


def _failure_rows(items: Iterable[dict[str, Any]]) -> list[list[Any]]:
    rows = []
    for each in items:
        cause = f"{each['error']} at {each['where']}" if each["where"] else each["error"]
        message = f": {each['message']}" if each["message"] else ""
        rows.append([_clock(each["last"]), each["type"], f"{cause}{message}"[:200], each["failed"], each["retrying"]])
    return rows


def _count(n: float, style: str, text: str | None = None) -> "Text":
    """Return a number in the colour of its state, and a pale one for none."""
    from rich.text import Text  # noqa: PLC0415

    return Text(f"{n:,}" if text is None else text, style=style if n else "dim")


def _bar(part: int, whole: int, width: int = 10) -> str:
    full = 0 if whole <= 0 else min(width, -(-part * width // whole))
    return "█" * full + "·" * (width - full)


def _times(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{_span(found['p50'])}, {_span(found['p99'])}"


def _span(seconds: float) -> str:
    """Return a duration with its unit: ms, s, min, h or d."""
    for limit, factor, unit in ((1, 1000, "ms"), (120, 1, "s"), (7200, 1 / 60, "min"), (172_800, 1 / 3600, "h")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 86_400:,.0f} d"


def _age(text: str) -> float:
    return max((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds(), 0.0)


def _clock(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S")
