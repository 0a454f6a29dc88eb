"""Which queues are bound to an exchange, as far as the broker can be asked: AMQP shows no bindings.

Two ways: RabbitMQ's management API, and ``rabbitmqctl`` where a command for it is given (``JOBTAPE_RABBITMQCTL``).
"""

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import httpx

from jobtape.schemas.urls import without_password

LIMIT: Final = 5.0
"""Seconds for one answer of the management API."""
CTL_LIMIT: Final = 30.0
LIMITS: Final = ("max-length", "max-length-bytes")


class Unseen(Exception):
    """Why the bindings cannot be seen, in one line."""


@dataclass(frozen=True, slots=True)
class BoundQueue:
    """A queue that is bound to an exchange: its own ``arguments``, and what a ``policy`` adds (without ``x-``)."""

    name: str
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bounded(self) -> bool:
        """Whether it has a limit; a stream has its own."""
        stream = self.arguments.get("x-queue-type") == "stream" and "x-max-age" in self.arguments
        return stream or any(f"x-{name}" in self.arguments or name in self.policy for name in LIMITS)


def bound_queues(
    amqp_url: str, management_url: str | None, ctl: str | None, exchanges: Sequence[str]
) -> dict[str, list[BoundQueue]]:
    """By exchange. Blocks for some seconds; raises Unseen with the reasons when neither way works."""
    try:
        return _by_api(amqp_url, management_url, exchanges)
    except Unseen as error:
        if ctl is None:
            raise
        try:
            return _by_ctl(shlex.split(ctl), _vhost(amqp_url), exchanges)
        except Unseen as second:
            raise Unseen(f"{error}; {second}") from None


def _by_api(amqp_url: str, management_url: str | None, exchanges: Sequence[str]) -> dict[str, list[BoundQueue]]:
    parts = urlsplit(amqp_url)
    secure = parts.scheme == "amqps"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    default = f"{'https' if secure else 'http'}://{host}:{15671 if secure else 15672}"
    base = (management_url or default).rstrip("/")
    user = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    vhost = quote(_vhost(amqp_url), safe="")
    found: dict[str, list[BoundQueue]] = {}
    try:
        with httpx.Client(base_url=base, auth=user, timeout=LIMIT, trust_env=False) as client:
            for exchange in exchanges:
                bindings = _get(client, f"/api/exchanges/{vhost}/{quote(exchange, safe='')}/bindings/source")
                names = sorted({each["destination"] for each in bindings if each["destination_type"] == "queue"})
                found[exchange] = [
                    _of_api(_get(client, f"/api/queues/{vhost}/{quote(each, safe='')}")) for each in names
                ]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        shown = without_password(base)
        # httpx names the URL that was asked for, with its password.
        said = type(error).__name__ if "@" in str(error) else str(error) or type(error).__name__
        raise Unseen(f"the management API at {shown} does not answer ({said})") from None
    return found


def _get(client: httpx.Client, path: str) -> Any:
    answer = client.get(path)
    if answer.status_code == 401:
        shown = without_password(str(client.base_url))
        raise Unseen(f"the management API at {shown} lets this user not in: it needs the tag `monitoring`")
    answer.raise_for_status()
    return answer.json()


def _of_api(raw: Mapping[str, Any]) -> BoundQueue:
    policy = raw.get("effective_policy_definition") or {}
    return BoundQueue(raw["name"], bool(raw.get("exclusive")), raw.get("arguments") or {}, policy or {})


def _by_ctl(command: Sequence[str], vhost: str, exchanges: Sequence[str]) -> dict[str, list[BoundQueue]]:
    bindings = _ctl(command, "list_bindings", vhost, "source_name", "destination_name", "destination_kind")
    queues = _ctl(command, "list_queues", vhost, "name", "exclusive", "arguments", "policy")
    policies = {each["name"]: _policy(each) for each in _ctl(command, "list_policies", vhost)}
    by_name = {each["name"]: _of_ctl(each, policies) for each in queues}
    found: dict[str, list[BoundQueue]] = {exchange: [] for exchange in exchanges}
    for exchange, name in sorted(
        {(each["source_name"], each["destination_name"]) for each in bindings if each["destination_kind"] == "queue"}
    ):
        if exchange in found and name in by_name:
            found[exchange].append(by_name[name])
    return found


def _ctl(command: Sequence[str], what: str, vhost: str, *columns: str) -> list[dict[str, Any]]:
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
        raise Unseen(f"{command[0]} could not be asked: {error}") from None


def _of_ctl(raw: Mapping[str, Any], policies: Mapping[str, Mapping[str, Any]]) -> BoundQueue:
    return BoundQueue(
        raw["name"],
        _truth(raw.get("exclusive")),
        _table(raw.get("arguments")),
        policies.get(raw.get("policy") or "", {}),
    )


def _policy(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    definition = raw.get("definition")
    return json.loads(definition) if isinstance(definition, str) else definition or {}


def _table(raw: Any) -> dict[str, Any]:
    """The arguments: rabbitmqctl writes them as an object, or as [name, type, value] each."""
    return dict(raw) if isinstance(raw, dict) else {each[0]: each[-1] for each in raw or []}


def _truth(value: Any) -> bool:
    return value is True or value == "true"


def _vhost(amqp_url: str) -> str:
    return unquote(urlsplit(amqp_url).path[1:]) or "/"
