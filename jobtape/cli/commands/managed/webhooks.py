"""``jobtape webhooks``: uses the REST API."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask, connect, post_json
from jobtape.cli.errors import WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL, Json, Labels, Several, Url
from jobtape.cli.values import labels_of, time_of

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.")]
Event = Annotated[
    Several, typer.Option("--event", metavar="NAME", help="Only these events. Default: succeeded, failed, cancelled.")
]
Type = Annotated[Several, typer.Option("--type", metavar="TYPE", help="Only jobs of these types; mail.* is possible.")]
Body = Annotated[
    Literal["thin", "full"], typer.Option(help="thin: which event it was. full: also what the event contains.")
]


def list_(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """List the webhooks with their states."""
    found = ask(url, "GET", "/webhooks")
    if as_json:
        show.print_json(found)
        return
    for each in found["items"]:
        why = each["disabled_because"] or each["last_error"] or ""
        behind = f"{each['behind']} events behind" if each["behind"] else ""
        print(one_line("  ".join(filter(None, (each["id"], each["url"], each["state"], behind, why)))))


def create(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted: https://host/path.")],
    event: Event = None,
    job_type: Type = None,
    label: Labels = None,
    body: Body = "thin",
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a webhook for the events from now on, and print its id and its secret, which is not shown again."""
    wanted: dict[str, Any] = {"events": event or [], "types": job_type or [], "labels": labels_of(label)}
    wanted = {name: value for name, value in wanted.items() if value}
    content = {"url": target, "filter": wanted, "body": body, "description": description}
    with connect(url) as api:
        made = post_json(api, "/webhooks", content)
    show.print_json(made) if as_json else print(f"{made['id']}\n{made['secret']}")


def delete(webhook_id: WebhookId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Delete a webhook."""
    _print_changed(ask(url, "DELETE", _path(webhook_id)), as_json)


def enable(webhook_id: WebhookId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Let a webhook get the events from now on. `replay` brings what it has missed."""
    _print_changed(_change(url, webhook_id, {"enabled": True}), as_json)


def disable(webhook_id: WebhookId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Let a webhook get no events until it is enabled."""
    _print_changed(_change(url, webhook_id, {"enabled": False}), as_json)


def rotate(webhook_id: WebhookId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Make a new secret and print it. The old one also signs for 24 hours."""
    with connect(url) as api:
        made = post_json(api, f"{_path(webhook_id)}/rotate", {})
    show.print_json(made) if as_json else print(made["secret"])


def reencrypt(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Encrypt all secrets with the newest key of JOBTAPE_SECRET_KEYS. The secrets stay the same."""
    found = ask(url, "POST", "/webhooks/reencrypt")
    show.print_json(found) if as_json else print(f"encrypted again: the secrets of {found['webhooks']} webhooks")


def test(webhook_id: WebhookId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Send a test event, and print the id of its delivery. `jobtape watch` shows how it ends."""
    delivery = ask(url, "POST", f"{_path(webhook_id)}/test")
    show.print_json(delivery) if as_json else print(delivery["id"])


def replay(
    webhook_id: WebhookId,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="From this time on: 2030-01-31T12:00, 2h.")] = None,
    after: Annotated[int | None, typer.Option(metavar="CURSOR", help="After this cursor.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Deliver past events that were not delivered, and those whose delivery has failed."""
    if (since is None) == (after is None):
        raise WrongUse("say from where on: --since TIME or --after CURSOR")
    content = {"after": after} if since is None else {"since": time_of("--since", since)}
    with connect(url) as api:
        _print_changed(post_json(api, f"{_path(webhook_id)}/replay", content), as_json)


def _print_changed(webhook: dict[str, Any], as_json: bool) -> None:
    """Print a webhook after a change, as JSON or not at all."""
    if as_json:
        show.print_json(webhook)


def _change(url: str, webhook_id: str, values: dict[str, Any]) -> dict[str, Any]:
    from jobtape.client.http.bodies import json_of  # noqa: PLC0415 - HTTP

    with connect(url) as api:
        headers = {"Content-Type": "application/json"}
        return api.request("PATCH", _path(webhook_id), content=json_of(values), headers=headers).content


def _path(webhook_id: str) -> str:
    if not webhook_id:
        raise WrongUse("the webhook has no id: `jobtape webhooks list` shows them")
    return f"/webhooks/{quote(webhook_id, safe='')}"
