"""``jobtape flows``: uses the REST API."""

from typing import Annotated

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask, connect, job_path, post_json
from jobtape.cli.commands.jobs import submit_and_print
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL, AsOf, JobId, Json, Labels, Url
from jobtape.cli.values import labels_of, payload_of
from jobtape.schemas.flows.graph import NodeState
from jobtape.schemas.flows.submission import flow_submission


def submit(
    flow: Annotated[str, typer.Argument(metavar="JSON", help="The flow; @FILE reads a file, - reads stdin.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the flow's end and print its result.")] = False,
    label: Labels = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Repeating the submission under the same key makes only one flow."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Submit a flow and print its id."""
    body = payload_of(flow)
    if (labels := labels_of(label)) and isinstance(own := body.get("labels") or {}, dict):
        body = {**body, "labels": {**own, **labels}}
    return submit_and_print(url, flow_submission(body), wait=wait, idempotency_key=idempotency_key, as_json=as_json)


def nodes(
    job_id: JobId,
    state: Annotated[
        list[NodeState] | None, typer.Option("--state", help="Only nodes in this state; several are possible.")
    ] = None,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the nodes of a flow with their states and jobs."""
    query = [("state", each.value) for each in state or ()] + ([] if as_of is None else [("as_of", as_of)])
    found = ask(url, "GET", f"{job_path(job_id)}/nodes", params=query)
    if as_json:
        show.print_json(found)
        return
    for each in found["items"]:
        counts = ", ".join(f"{n} {name}" for name, n in each["jobs"].items()) if each["mapped"] else each["job"] or ""
        print(one_line(f"{each['name']}  {each['type']}  {each['state']}  {counts}".rstrip()))


def fork(
    job_id: JobId,
    begin: Annotated[str, typer.Option("--from", metavar="NODE", help="The node from which on it runs again.")],
    payload: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Another payload for that node; @FILE reads a file, - reads stdin."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a new flow that takes the results of an earlier one, and print its id."""
    body = {"from": begin} | ({} if payload is None else {"payload": payload_of(payload)})
    with connect(url) as api:
        job = post_json(api, f"{job_path(job_id)}/fork", body)
    show.print_json(job) if as_json else print(one_line(job["id"]))
