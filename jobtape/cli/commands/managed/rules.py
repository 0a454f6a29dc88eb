"""``jobtape pause``, ``resume``, ``limit`` and ``limits``: use the REST API."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask
from jobtape.cli.errors import WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL, Json, Url

OneQueue = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="The queue.")]
OneType = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="The job type.")]


def pause(queue: OneQueue = None, job_type: OneType = None, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Start no more jobs of a queue or a job type. Running jobs go on."""
    rule = ask(url, "POST", f"{_path(queue, job_type)}/pause")
    show.print_json(rule) if as_json else print(one_line(f"{_what(queue, job_type)} is paused (rule {rule['id']})"))


def resume(queue: OneQueue = None, job_type: OneType = None, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Start the jobs of a paused queue or job type again."""
    answer, what = ask(url, "POST", f"{_path(queue, job_type)}/resume"), _what(queue, job_type)
    _print_ended(answer, as_json, f"{what} is resumed", f"{what} was not paused")


def limit(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The limit's name: by default that of the job type.")],
    at_most: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="The new number; leave it out to restore the limit.")
    ] = None,
    per: Annotated[float | None, typer.Option(metavar="SECONDS", help="Change the rate: NUMBER per SECONDS.")] = None,
    key: Annotated[str, typer.Option(metavar="KEY", help="Only for this key of the limit.")] = "",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Change a limit for all jobs from now on, or restore it."""
    path = f"/limits/{quote(name, safe='')}"
    if at_most is None:
        if per is not None:
            raise WrongUse("--per needs the new NUMBER: jobtape limit NAME NUMBER --per SECONDS")
        answer = ask(url, "DELETE", path, params={"key": key})
        _print_ended(answer, as_json, f"limit {name} is restored", f"limit {name} was not changed")
        return
    body = {"at_most": at_most, "key": key} | ({} if per is None else {"per": per})
    rule = ask(url, "PUT", path, json=body)
    show.print_json(rule) if as_json else print(one_line(f"limit {name} is changed (rule {rule['id']})"))


def limits(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """List the changed limits."""
    found = ask(url, "GET", "/limits")
    if as_json:
        show.print_json(found)
        return
    for each in found["items"]:
        key = f" for {each['key']}" if each["key"] else ""
        per = "at once" if each["per"] is None else f"per {each['per']:g} s"
        print(one_line(f"{each['name']}{key}  at most {each['at_most']} {per}"))


def _path(queue: str | None, job_type: str | None) -> str:
    if (queue is None) == (job_type is None):
        raise WrongUse("give --queue NAME or --type TYPE")
    return f"/queues/{quote(queue, safe='')}" if queue is not None else f"/job-types/{quote(job_type or '', safe='')}"


def _what(queue: str | None, job_type: str | None) -> str:
    return f"queue {queue}" if queue is not None else f"job type {job_type}"


def _print_ended(answer: dict[str, Any], as_json: bool, done: str, nothing: str) -> None:
    show.print_json(answer) if as_json else print(one_line(done if answer["ended"] else nothing))
