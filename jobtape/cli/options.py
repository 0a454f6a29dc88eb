"""The options that several subcommands have in common.

Those of the server commands are text whatever they mean: ``jobtape.settings`` reads and judges them together with the
environment, so that a wrong value is reported in one line wherever it stands.
"""

from typing import Annotated

import typer

Some = list[str] | None
"""The values of an option that may be given several times."""
Jobs = Annotated[
    str | None,
    typer.Option("--jobs", metavar="MODULES", envvar="JOBTAPE_JOBS", help="Modules with job types, comma-separated."),
]
AppDir = Annotated[
    str | None,
    typer.Option(
        "--app-dir",
        metavar="FOLDER",
        envvar="JOBTAPE_APP_DIR",
        help="Joins the import path for these modules.  [dim]\\[default: the current folder][/dim]",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        envvar="JOBTAPE_HOST",
        help="Where the API listens. Beyond loopback it needs JOBTAPE_API_KEY.  [dim]\\[default: 127.0.0.1][/dim]",
    ),
]
Port = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", envvar="JOBTAPE_PORT", help="The API's port.  [dim]\\[default: 8000][/dim]"),
]
Workers = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", envvar="JOBTAPE_API_WORKERS", help="API processes.  [dim]\\[default: 1][/dim]"),
]
Concurrency = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", envvar="JOBTAPE_CONCURRENCY", help="Jobs run at once.  [dim]\\[default: 10][/dim]"),
]
Processes = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", envvar="JOBTAPE_PROCESSES", help="Worker processes.  [dim]\\[default: 1][/dim]"),
]
Grace = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        envvar="JOBTAPE_GRACE_PERIOD",
        help="How long running work may go on after SIGTERM.  [dim]\\[default: 30][/dim]",
    ),
]
Queues = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        envvar="JOBTAPE_QUEUES",
        help="Serve these queues only, comma-separated.  [dim]\\[default: those of the job types][/dim]",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        envvar="JOBTAPE_LOG_LEVEL",
        help="debug, info, warning or error.  [dim]\\[default: info][/dim]",
    ),
]
Url = Annotated[str, typer.Option(envvar="JOBTAPE_URL", help="The API.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label; may be given several times.")
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        help="Not as it is now but as it was: a time (here, or with a zone), or a cursor as `jobtape events` shows it.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Submitted then or later: a time (here, or with a zone)."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Submitted before: a time (here, or with a zone).")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
DEFAULT_URL = "http://127.0.0.1:8000"
