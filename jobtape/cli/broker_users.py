"""``jobtape broker users``: a RabbitMQ user with the least permissions for each part of an installation."""

import asyncio
import secrets
import shlex
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

from jobtape.broker.connection_errors import vhost_of
from jobtape.broker.management import ManagementApi, Unseen
from jobtape.broker.permissions import Permissions, permissions_of_parts
from jobtape.cli.parts.start import settings_with
from jobtape.cli.printing import print_json
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.urls import each_url
from jobtape.settings import Settings

PASSWORD_BYTES: Final = 32


def run_users(*, apply: bool, as_json: bool) -> None:
    """Print the commands that create the users; with ``apply`` create them. Raises JobtapeError."""
    settings = settings_with()
    vhost = vhost_of(each_url(settings.rabbitmq_url)[0])
    items: list[dict[str, Any]] = []
    for part, permissions in permissions_of_parts(settings.topology).items():
        user = f"{settings.namespace}-{part}"
        item = {"part": part, "user": user, **asdict(permissions), "created": False, "url": None}
        if apply:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            item["created"] = _set_user(settings, user, password, permissions)
            item["url"] = _url(settings.rabbitmq_url, user, password) if item["created"] else None
        items.append(item)
        if not as_json:  # at once: the password of a new user would be lost if the next one failed
            print("\n".join(_applied(item) if apply else _commands(vhost, item)), flush=True)
    if as_json:
        print_json({"vhost": vhost, "items": items})


def _set_user(settings: Settings, user: str, password: str, permissions: Permissions) -> bool:
    api = ManagementApi(settings.rabbitmq_url, settings.management_url)
    try:
        return asyncio.run(api.set_user(user, password, permissions))
    except Unseen as error:
        raise JobtapeError(
            f"the user {user} was not set up: {error}. --apply needs a user with the tag `administrator` in "
            "RABBITMQ_URL and the management API (JOBTAPE_MANAGEMENT_URL); without --apply the commands are printed"
        ) from None


def _commands(vhost: str, item: dict[str, Any]) -> list[str]:
    """Return the commands for one user. ``add_user`` asks for the password, so no command contains it."""
    wanted = (item["user"], item["configure"], item["write"], item["read"])
    return [
        f"rabbitmqctl add_user {item['user']}",
        shlex.join(["rabbitmqctl", "set_permissions", "-p", vhost, *wanted]),
    ]


def _applied(item: dict[str, Any]) -> list[str]:
    if item["created"]:
        return [f"{item['part']}: RABBITMQ_URL={item['url']}"]
    return [f"{item['part']}: the user {item['user']} exists; its permissions are set and its password is unchanged"]


def _url(urls: str, user: str, password: str) -> str:
    """Return ``urls`` with another user. The password is one that needs no encoding."""
    parts = [urlsplit(url) for url in each_url(urls)]
    return ",".join(p._replace(netloc=f"{user}:{password}@{p.netloc.rpartition('@')[2]}").geturl() for p in parts)
