"""Log lines in JSON, and what is logged during an execution."""

import json
import logging
from collections.abc import AsyncIterator

import pytest

from jobtape import Context, job
from jobtape.cli.log_output import JsonLines, OneLine, json_line
from jobtape.cli.supervisor.child import Output
from jobtape.schemas.execution.context import current
from jobtape.schemas.topology import work_key
from jobtape.telemetry.job_logs import JobFilter
from tests.conftest import MakeTopology
from tests.consumer import isolated_jobs
from tests.consumer.installation import Rig, order_event
from tests.schemas.events_of_a_job import JOB

pytestmark = pytest.mark.anyio

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
users = logging.getLogger("users.own")


class Lines(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines("worker"))
        self.addFilter(JobFilter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def of(self, message: str) -> dict[str, object]:
        (found,) = [entry for entry in map(json.loads, self.lines) if entry["message"] == message]
        assert isinstance(found, dict)
        return found


@job("logs.async")
async def logs_async(ctx: Context) -> None:
    users.warning("in async")


@job("logs.thread")
def logs_thread(ctx: Context, secret: str) -> None:
    ctx.log.warning("in thread")
    raise ValueError(secret)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    handler = Lines()
    monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers, handler])
    return handler


@pytest.fixture
async def rig(broker_url: str, make_topology: MakeTopology) -> AsyncIterator[Rig]:
    async with Rig(broker_url, make_topology()) as opened:
        yield opened


async def test_what_handlers_log_has_job_and_trace(rig: Rig, lines: Lines) -> None:
    async with rig.worker(logs_async, logs_thread, isolated_jobs.logs):
        for job_type, message in (("logs.async", "in async"), ("logs.thread", "in thread"), ("iso.logs", "in process")):
            event = order_event(rig.topology, job_type, {"secret": "hunter2"} if "async" not in job_type else None)
            event = event.model_copy(update={"traceparent": f"00-{TRACE}-{SPAN}-01"})
            await rig.publisher.publish(event, [work_key("default")])
            await rig.outcome(event.subject)
            entry = lines.of(message)
            assert {name: entry[name] for name in ("job_id", "job_type", "run", "attempt", "trace_id", "span_id")} == {
                "job_id": event.subject,
                "job_type": job_type,
                "run": 1,
                "attempt": 1,
                "trace_id": TRACE,
                "span_id": SPAN,
            }
            assert (entry["level"], entry["part"]) == ("warning", "worker")
    assert "hunter2" not in "".join(lines.lines)


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("any", logging.ERROR, __file__, 1, message, arguments, None)


def test_json_line_is_one_line_of_json() -> None:
    made = record("lost %s", "a\nb\u2028ü")
    made.created = 1_700_000_000.25
    line = JsonLines("api").format(made)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "error",
        "part": "api",
        "logger": "any",
        "message": "lost a\nb\u2028ü",
    }


def test_json_line_has_traceback() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (type(error), error, error.__traceback__)
    assert "ValueError: no" in json.loads(JsonLines("api").format(made))["exception"]


def test_text_line_has_fields_of_the_execution() -> None:
    context = Context(JOB, "add", 2, 3, logging.getLogger(), lambda _: None)
    token = current.set(context)
    try:
        made = record("lost")
        JobFilter().filter(made)
    finally:
        current.reset(token)
    assert OneLine("worker").format(made).endswith(f"worker lost job_id={JOB} job_type=add run=2 attempt=3")


def test_what_a_part_prints_becomes_json() -> None:
    own = JsonLines("worker").format(record("x"))
    assert json_line("worker", own, error=True) == own
    for text in ("printed", '{"a": 1}', "{broken", "[1]"):
        entry = json.loads(json_line("worker", text, error=False))
        assert (entry["message"], entry["logger"], entry["level"]) == (text, "stdout", "info")


def test_supervisor_writes_json_only(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(["api", "worker"], as_json=True)
    output.line("worker", JsonLines("worker").format(record("own")), error=True)
    output.line("worker", "printed", error=False)
    output.note("starting")
    written = capsys.readouterr()
    entries = [json.loads(line) for line in (written.out + written.err).splitlines()]
    assert [(entry["part"], entry["message"]) for entry in entries] == [
        ("worker", "printed"),
        ("worker", "own"),
        ("jobtape", "starting"),
    ]
