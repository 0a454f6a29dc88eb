"""``jobtape schedules``: uses the REST API. ``sync`` also loads the job modules."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask
from jobtape.cli.errors import FAILED, OK, WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL, AppDir, Jobs, Json, Labels, RangeUntil, Url
from jobtape.cli.values import labels_of, payload_of, time_of
from jobtape.schemas.job_types.schedules import schedules_to_sync

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


def list_(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """List the schedules with their next ticks."""
    found = ask(url, "GET", "/schedules")
    if as_json:
        show.print_json(found)
        return
    for each in found["items"]:
        following = "paused" if each["paused"] else each["next"] or "over"
        print(one_line(f"{each['name']}  {_when(each)}  {each['type']}  {following}"))


def put(
    name: Name,
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[
        str, typer.Argument(metavar="JSON", help="The payload; @FILE reads a file, - reads stdin.")
    ] = "{}",
    cron: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help="Minute, hour, day, month, day of the week: '30 2 * * *'.")
    ] = None,
    tz: Annotated[str | None, typer.Option(metavar="ZONE", help="The time zone of --cron, UTC by default.")] = None,
    every: Annotated[float | None, typer.Option(metavar="SECONDS", help="An interval instead of --cron.")] = None,
    overlap: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="While an earlier job is open: skip, queue_one, queue, allow, cancel."),
    ] = None,
    catch_up: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Which missed ticks are submitted: last, none or all.")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Submit later by up to this, as the name decides.")
    ] = None,
    label: Labels = None,
    replaces: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only if the schedule is still this version: its id in `list --json`."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a schedule, or replace it."""
    given = {"cron": cron, "tz": tz, "every": every, "overlap": overlap, "catch_up": catch_up, "spread": spread}
    body: dict[str, Any] = {"type": job_type, "payload": payload_of(payload), "labels": labels_of(label)}
    body |= {key: value for key, value in given.items() if value is not None}
    headers = {} if replaces is None else {"If-Match": f'"{replaces}"'}
    rule = ask(url, "PUT", _path(name), json=body, headers=headers)
    show.print_json(rule) if as_json else print(one_line(f"{name} is in force by the job {rule['id']}"))


def delete(name: Name, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """End a schedule. Jobs that it has submitted go on."""
    ended = ask(url, "DELETE", _path(name))
    show.print_json(ended) if as_json else print(one_line(f"{name} deleted"))


def pause(name: Name, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Let a schedule submit nothing until it is resumed."""
    rule = ask(url, "POST", f"{_path(name)}/pause")
    show.print_json(rule) if as_json else print(one_line(f"{name} paused"))


def resume(name: Name, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Let a paused schedule go on with the first tick after now."""
    rule = ask(url, "POST", f"{_path(name)}/resume")
    show.print_json(rule) if as_json else print(one_line(f"{name} resumed"))


def trigger(name: Name, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Submit a schedule's job now, and print its id."""
    job = ask(url, "POST", f"{_path(name)}/trigger", repeatable=False)
    show.print_json(job) if as_json else print(one_line(job["id"]))


def ticks(
    name: Name,
    n: Annotated[int, typer.Option("-n", metavar="NUMBER", help="How many, 100 at most.")] = 10,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List a schedule's next ticks in its time zone, with a mark on days on which clocks change."""
    found = ask(url, "GET", f"{_path(name)}/ticks", params={"n": n})
    if as_json:
        show.print_json(found)
        return
    for each in found["items"]:
        print(one_line(f"{each['local']}{'  (clocks change)' if each['clock_change'] else ''}"))


def backfill(
    name: Name,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="The first tick is at this time or later (local, or with a zone).")
    ],
    until: RangeUntil = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="How many ticks at most, the oldest first.")] = 100,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit the jobs of past ticks that have none."""
    body = {"since": time_of("--since", since), "limit": limit} | ({} if until is None else {"until": until})
    done = ask(url, "POST", f"{_path(name)}/backfill", json=body)
    if as_json:
        show.print_json(done)
        return
    for each in done["submitted"]:
        print(one_line(f"{each['at']}  {each['job']}"))
    more = "" if done["next"] is None else f"; continue with --since {done['next']}"
    print(f"{len(done['submitted'])} submitted, {done['existing']} existed{more}")


def sync(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    origin: Annotated[
        str,
        typer.Option(metavar="NAME", help="Names this code, where several applications share one installation."),
    ] = "code",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Put the schedules of @job(..., schedule=...) in force, and end those that are not in the code any more.

    Run it once in each deployment, after the API is the new one. Schedules that were made by hand stay as they are.
    """
    body = {"origin": origin, "items": _declared(jobs, app_dir), "dry_run": dry_run}
    done = ask(url, "PUT", "/schedules", json=body)
    if as_json:
        show.print_json(done)
    else:
        would = "would be " if dry_run else ""
        for what in ("created", "changed", "removed", "unchanged"):
            for name in done[what]:
                print(one_line(f"{name}  {would if what != 'unchanged' else ''}{what}"))
        for name in done["refused"]:
            print(one_line(f"{name}  refused: it did not come from {origin}; rename one, or delete it and sync again"))
    return FAILED if done["refused"] else OK


def _declared(jobs: str | None, app_dir: str | None) -> list[dict[str, Any]]:
    from jobtape.cli.parts.start import job_types_of, settings_with  # noqa: PLC0415 - loads the settings

    found = job_types_of(settings_with(jobs=jobs, app_dir=app_dir))
    return schedules_to_sync({name: job_type.schedules for name, job_type in found.items()})


def _when(schedule: dict[str, Any]) -> str:
    return f"{schedule['cron']} {schedule['tz']}" if schedule["cron"] else f"every {schedule['every']:g} s"


def _path(name: str) -> str:
    if not name:
        raise WrongUse("the schedule has no name: `jobtape schedules list` shows them")
    return f"/schedules/{quote(name, safe='')}"
