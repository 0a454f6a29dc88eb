"""Tests ``jobtape top``: what a frame shows, without a terminal."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from jobtape.cli.commands.top import _span, frame
from tests.cli.installation import Installation

NOW = datetime.now(UTC)
TIMES = {"n": 3, "p50": 0.004, "p99": 90.0}


def queue(name: str, **jobs: int) -> dict[str, Any]:
    return {
        "queue": name,
        "jobs": jobs,
        "events": {"succeeded": 100, "failed": 5},
        "wait": TIMES,
        "run": None,
        "oldest": {"job": "some-id", "since": (NOW - timedelta(days=300)).isoformat()} if "queued" in jobs else None,
    }


def worker(name: str, **values: Any) -> dict[str, Any]:
    runs = [{"job_id": "some-id", "job_type": "mail.send", "since": NOW.isoformat()}]
    found = {"name": name, "state": "running", "fault": None, "running": 1, "slots": 40, "queues": ["mail"]}
    return {**found, "executions": runs, **values}


def found(queues: list[dict[str, Any]], workers: list[dict[str, Any]], failures: int = 0) -> dict[str, Any]:
    failure = {
        "last": NOW.isoformat(),
        "type": "mail.send",
        "error": "OSError",
        "where": "mail.py in send",
        "message": "no \x1b[31mroute",
        "failed": 5,
        "retrying": 2,
    }
    return {
        "minutes": 5,
        "stats": {"at": NOW.isoformat(), "jobs": {"queued": 1200, "failed": 5}, "queues": queues},
        "workers": {"items": workers, "collected": True},
        "failures": {"items": [failure] * failures},
    }


def drawn(values: dict[str, Any], height: int = 10_000, width: int = 160) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False, force_terminal=False)
    console.print(frame(values, "http://here", height, width))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_frame_shows_queues_workers_rates_and_failures() -> None:
    lines = drawn(found([queue("mail", queued=1200, running=1)], [worker("here-1")], failures=1))
    text = "\n".join(lines)
    assert "queued 1,200  failed 5" in lines[0]
    (row,) = [line.split() for line in lines if line.startswith("mail ")]
    assert row == ["mail", "1", "1,200", "0", "0", "0", "300", "d", "20.0", "1.0", "4", "ms,", "90", "s"]
    assert "here-1" in text and "█········· 1/40" in text and "mail.send" in text
    assert "OSError at mail.py in send: no \\x1b[31mroute" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0042, "4.2 ms"), (90, "90 s"), (599, "9.98 min"), (7200, "2 h"), (86_400 * 1500, "1,500 d")],
)
def test_durations_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert _span(seconds) == text


def test_queue_with_most_waiting_jobs_is_first() -> None:
    lines = drawn(found([queue("a", queued=1), queue("b", queued=20), queue("c")], []))
    assert [line[0] for line in lines if line[:2] in ("a ", "b ", "c ")] == ["b", "a", "c"]


@pytest.mark.parametrize("height", [16, 24, 50])
@pytest.mark.parametrize(
    ("queues", "workers", "failures"), [(100, 100, 5), (3, 100, 0), (100, 0, 1), (0, 0, 0), (6, 6, 5)]
)
def test_frame_fits_the_terminal(height: int, queues: int, workers: int, failures: int) -> None:
    values = found([queue(f"q{n}") for n in range(queues)], [worker(f"w{n}") for n in range(workers)], failures)
    lines = drawn(values, height, width=200)
    assert len(lines) <= height
    for name, n in (("QUEUES", queues), ("WORKERS", workers)):
        at = lines.index(name) + 2
        shown = lines[at : lines.index("", at) if "" in lines[at:] else len(lines)]
        hidden = [int(line.split()[1]) for line in shown if line.startswith("… ")]
        assert len(shown) - len(hidden) + sum(hidden) == max(n, 1)


def test_narrow_terminal_drops_columns_and_cuts_no_number() -> None:
    fault = "the connection to the broker was lost"
    values = found(
        [queue("reports.low", queued=1_234_567, scheduled=1)], [worker("host-12345-1", fault=fault)], failures=1
    )
    lines = drawn(values, width=80)
    assert all(len(line) <= 80 for line in lines)
    assert any(line.split()[:4] == ["reports.low", "0", "1,234,567", "0"] for line in lines)
    assert any(fault[:20] in line and "1/40" in line for line in lines)
    assert not any("p99" in line for line in lines)


def test_missing_projector_and_unready_worker_are_named() -> None:
    values = found([], [worker("here-1", state="stopping", fault="all slots are kept")])
    values["workers"]["collected"] = False
    text = "\n".join(drawn(values))
    assert "No projector is active" in text
    assert "stopping (all slots are kept)" in text


def test_top_without_api_says_what_to_do(installation: Installation) -> None:
    failed = installation.run("top")
    assert failed.returncode == 1
    assert "--url / JOBTAPE_URL" in failed.stderr
    assert failed.stdout == ""


def test_values_of_a_frame_as_json_are_those_that_are_read() -> None:
    values = found([queue("mail")], [worker("here-1")])
    assert json.loads(json.dumps(values)) == values
