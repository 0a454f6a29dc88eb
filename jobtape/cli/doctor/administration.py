"""Access to the broker's management API, and to ``rabbitmqctl`` when JOBTAPE_RABBITMQCTL names a command for it."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from jobtape.schemas.urls import without_password

LIMIT: Final = 5.0
"""Seconds that one answer of the management API may take."""
CTL_LIMIT: Final = 30.0


class Unseen(Exception):
    """The broker does not show the information; the message is one line with the reason."""


def management_client(amqp_url: str, management_url: str | None) -> httpx.Client:
    """Return a client of the management API with the user of the AMQP URL."""
    parts = urlsplit(amqp_url)
    secure = parts.scheme == "amqps"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    default = f"{'https' if secure else 'http'}://{host}:{15671 if secure else 15672}"
    user = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    base = (management_url or default).rstrip("/")
    return httpx.Client(base_url=base, auth=user, timeout=LIMIT, trust_env=False)


def no_answer(client: httpx.Client, error: Exception) -> Unseen:
    """Return the error for a management API that cannot be used."""
    # The message of httpx may contain the URL with its password.
    said = type(error).__name__ if "@" in str(error) else str(error) or type(error).__name__
    return Unseen(f"the management API at {_shown(client)} does not answer ({said})")


def get(client: httpx.Client, path: str) -> Any:
    """Return the management API's answer. Raises Unseen and httpx's errors."""
    answer = client.get(path)
    if answer.status_code == 401:
        raise Unseen(f"the management API at {_shown(client)} refuses this user: give it the tag `monitoring`")
    answer.raise_for_status()
    return answer.json()


def ctl(command: Sequence[str], what: str, vhost: str, *columns: str) -> list[dict[str, Any]]:
    """Return the rows that a list command of rabbitmqctl prints. Raises Unseen."""
    full = [*command, "--quiet", what, "-p", vhost, *columns, "--formatter", "json"]
    try:
        done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=CTL_LIMIT)  # noqa: S603 - the
        # administrator's own command, from the environment
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())
            raise Unseen(f"{command[0]} failed: {said[:200] or done.returncode}")
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unseen(f"{command[0]} could not be run: {error}") from None


def vhost_of(amqp_url: str) -> str:
    """Return the virtual host in the URL."""
    return unquote(urlsplit(amqp_url).path[1:]) or "/"


def _shown(client: httpx.Client) -> str:
    return without_password(str(client.base_url).rstrip("/"))
