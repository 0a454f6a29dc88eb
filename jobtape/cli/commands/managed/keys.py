"""``jobtape keys``: uses the REST API, with JOBTAPE_API_KEY or a key that may manage."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask, connect, post_json
from jobtape.cli.errors import WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL, Json, Several, Url
from jobtape.cli.values import seconds_of

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]


def list_(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """List the API keys, without themselves."""
    found = ask(url, "GET", "/keys")
    if as_json:
        show.print_json(found)
        return
    for key in found["items"]:
        parts = [key["id"], key["name"], key["state"], ",".join(key["scopes"]), ",".join(key["types"])]
        parts.append(f"expires {key['expires_at']}" if key["expires_at"] else "")
        parts.append(f"used {key['used_at']}" if key["used_at"] else "never used")
        print(one_line("  ".join(filter(None, parts))))


def create(
    name: Annotated[str, typer.Argument(help="Who uses it.")],
    scope: Annotated[Several, typer.Option("--scope", metavar="SCOPE", help="read, submit or manage.")] = None,
    job_type: Annotated[Several, typer.Option("--type", metavar="TYPE", help="Only jobs of these types.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="After this time: 90d, 12h.")] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Requests in a second at most.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create an API key, and print its id and the key, which is not shown again."""
    if not scope:
        raise WrongUse("say what the key is for: --scope read, --scope submit or --scope manage, or several of them")
    content: dict[str, Any] = {"name": name, "scopes": scope, "types": job_type or []}
    if expires is not None:
        content["expires_in"] = seconds_of("--expires", expires)
    if rate is not None:
        content["rate"] = rate
    with connect(url) as api:
        made = post_json(api, "/keys", content)
    show.print_json(made) if as_json else print(f"{made['id']}\n{made['key']}")


def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(metavar="TIME", help="How long the old one is valid too.")] = "24h",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print a new text of a key. The old one is valid for a day more, or for --overlap."""
    with connect(url) as api:
        made = post_json(api, f"{_path(key_id)}/rotate", {"overlap": seconds_of("--overlap", overlap)})
    show.print_json(made) if as_json else print(made["key"])


def revoke(key_id: KeyId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Let no more requests with a key be answered. Takes effect within 5 seconds."""
    revoked = ask(url, "DELETE", _path(key_id))
    if as_json:
        show.print_json(revoked)


def _path(key_id: str) -> str:
    if not key_id:
        raise WrongUse("the key has no id: `jobtape keys list` shows them")
    return f"/keys/{quote(key_id, safe='')}"
