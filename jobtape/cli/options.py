"""The options that several subcommands share.

The options of the server commands are all text: ``jobtape.settings`` validates them together with the environment, so
that a wrong value gives the same one-line message wherever it was set.
"""

from typing import Annotated

import typer

Several = list[str] | None
"""The values of an option that can be given several times."""
Jobs = Annotated[
    str | None,
    typer.Option(
        "--jobs", metavar="MODULES", envvar="JOBTAPE_JOBS", help="Modules with job types, separated by commas."
    ),
]
AppDir = Annotated[
    str | None,
    typer.Option(
        "--app-dir",
        metavar="FOLDER",
        envvar="JOBTAPE_APP_DIR",
        help="The folder to import these modules from.  [dim]\\[default: the current folder][/dim]",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        envvar="JOBTAPE_HOST",
        help="The API's address; any other than loopback requires JOBTAPE_API_KEY.  [dim]\\[default: 127.0.0.1][/dim]",
    ),
]
Port = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", envvar="JOBTAPE_PORT", help="The API's port.  [dim]\\[default: 8000][/dim]"),
]
ApiWorkers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="NUMBER",
        envvar="JOBTAPE_API_WORKERS",
        help="The number of API processes.  [dim]\\[default: 1][/dim]",
    ),
]
Concurrency = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER",
        envvar="JOBTAPE_CONCURRENCY",
        help="How many jobs one worker process runs at the same time.  [dim]\\[default: 10][/dim]",
    ),
]
Processes = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER", envvar="JOBTAPE_PROCESSES", help="The number of worker processes.  [dim]\\[default: 1][/dim]"
    ),
]
GracePeriod = Annotated[
    str | None,
    typer.Option(
        "--grace",
        metavar="SECONDS",
        envvar="JOBTAPE_GRACE_PERIOD",
        help="How long running jobs may continue after SIGTERM.  [dim]\\[default: 30][/dim]",
    ),
]
Queues = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        envvar="JOBTAPE_QUEUES",
        help="Serve only these queues, separated by commas.  [dim]\\[default: those of the job types][/dim]",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        envvar="JOBTAPE_LOG_LEVEL",
        help="Log level: debug, info, warning or error.  [dim]\\[default: info][/dim]",
    ),
]
Url = Annotated[str, typer.Option(metavar="URL", envvar="JOBTAPE_URL", help="The API's URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label; can be given several times.")
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        help="Show the past: a time (local, or with a zone), or a cursor that `jobtape events` shows.",
    ),
]
OnlyTypes = Annotated[Several, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")]
OnlyQueues = Annotated[Several, typer.Option("--queue", metavar="NAME", help="Only jobs of this queue.")]
SubmittedSince = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only jobs submitted at this time or later (local, or with a zone).")
]
SubmittedUntil = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only jobs submitted before this time (local, or with a zone).")
]
FromPosition = Annotated[
    str, typer.Option(metavar="WHEN", help="Start here: a time (local, or with a zone), a cursor, or first.")
]
UntilPosition = Annotated[
    str | None, typer.Option(metavar="WHEN", help="End here: a time (local, or with a zone) or a cursor.")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
DEFAULT_URL = "http://127.0.0.1:8000"
