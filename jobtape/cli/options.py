"""The options that several subcommands share.

The options of the server commands are settings, with their descriptions and defaults. They are all text:
``jobtape.settings`` validates them together with the environment, so that a wrong value gives the same one-line message
wherever it was set. Other options are converted here.
"""

from typing import Annotated, Any

import typer

from jobtape.cli.values import label_of, point_of, time_of
from jobtape.settings import Settings


def _setting(name: str, metavar: str, *flags: str) -> Any:
    """Return the option for a setting. Its flag is the setting's name unless ``flags`` are given."""
    field = Settings.model_fields[name]
    default = f"  [dim]\\[default: {field.default}][/dim]" if isinstance(field.default, str | int | float) else ""
    text = " ".join((field.description or "").split())
    return typer.Option(*flags, metavar=metavar, envvar=f"JOBTAPE_{name.upper()}", help=f"{text}{default}")


def _labels(values: list[str] | None) -> list[str] | None:
    return [label_of(value) for value in values] if values else None


def _time(option: typer.CallbackParam, value: str | None) -> str | None:
    return None if value is None else time_of(option.opts[0], value)


def _point(value: str | None) -> str | None:
    return None if value is None else point_of("--as-of", value)


Several = list[str] | None
"""The values of an option that can be given several times."""
Jobs = Annotated[str | None, _setting("jobs", "MODULES")]
AppDir = Annotated[str | None, _setting("app_dir", "FOLDER")]
Host = Annotated[str | None, _setting("host", "ADDRESS")]
Port = Annotated[str | None, _setting("port", "NUMBER")]
ApiWorkers = Annotated[str | None, _setting("api_workers", "NUMBER", "--workers")]
Concurrency = Annotated[str | None, _setting("concurrency", "NUMBER")]
Processes = Annotated[str | None, _setting("processes", "NUMBER")]
GracePeriod = Annotated[str | None, _setting("grace_period", "SECONDS", "--grace")]
Queues = Annotated[str | None, _setting("queues", "NAMES")]
OutboxUrl = Annotated[str | None, _setting("outbox_url", "URL", "--url")]
LogLevel = Annotated[str | None, _setting("log_level", "LEVEL")]
Url = Annotated[str, typer.Option(metavar="URL", envvar="JOBTAPE_URL", help="The API's URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Labels = Annotated[
    Several,
    typer.Option("--label", metavar="NAME=VALUE", callback=_labels, help="A label; can be given several times."),
]
"""They arrive as ``name:value``."""
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        callback=_point,
        help="Show the past: a time (local, or with a zone), or a cursor that `jobtape events` shows.",
    ),
]
OnlyTypes = Annotated[Several, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")]
OnlyQueues = Annotated[Several, typer.Option("--queue", metavar="NAME", help="Only jobs of this queue.")]
Reasons = Annotated[
    Several,
    typer.Option(
        "--reason",
        metavar="REASON",
        help="Only jobs that failed, wait or were cancelled for this reason: error, timeout, paused, duplicate, …",
    ),
]
OfFlow = Annotated[
    str | None, typer.Option("--flow", metavar="ID", help="Only jobs of this flow, and follow-ups of this job.")
]
OfNode = Annotated[
    str | None, typer.Option("--node", metavar="NAME", help="Only jobs of the node with this name; see --flow.")
]
Failures = Annotated[
    Several, typer.Option("--failure", metavar="ID", help="Only jobs with this failure of `jobtape failures`.")
]
ErrorText = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Only jobs with this in the error's type or message.")
]
PayloadValues = Annotated[
    Several,
    typer.Option("--payload", metavar="PATH=VALUE", help="Only jobs with this in the payload: customer.id=42."),
]
ResultValues = Annotated[
    Several, typer.Option("--result", metavar="PATH=VALUE", help="Only jobs with this in the result.")
]
SubmittedSince = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", callback=_time, help="Only jobs submitted at this time or later (local, or with a zone)."
    ),
]
SubmittedUntil = Annotated[
    str | None,
    typer.Option(metavar="TIME", callback=_time, help="Only jobs submitted before this time (local, or with a zone)."),
]
RunAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", callback=_time, help="Run it at this time (local, or with a zone), at the earliest."),
]
RangeSince = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", callback=_time, help="The beginning of the range (local, or with a zone)."),
]
RangeUntil = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", callback=_time, help="The end of the range.  [dim]\\[default: now][/dim]"),
]
FromPosition = Annotated[
    str, typer.Option(metavar="WHEN", help="Start here: a time (local, or with a zone), a cursor, or first.")
]
UntilPosition = Annotated[
    str | None, typer.Option(metavar="WHEN", help="End here: a time (local, or with a zone) or a cursor.")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
DEFAULT_URL = "http://127.0.0.1:8000"
