"""What the asynchronous client does with webhooks. See ``client.webhooks``."""

import builtins
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel

from jobtape.client.http.answers import job_of
from jobtape.client.rules import Request, json_content, read_answer
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import Job
from jobtape.schemas.webhooks.delivery import BodyKind


class WebhookInfo(BaseModel):
    """An endpoint. ``cursor``: events up to there have become deliveries. ``behind``: the number of events after that,
    whether they match its filter or not; 10,000 also means more.
    """

    id: str
    url: str
    description: str
    filter: EventFilter
    body: BodyKind
    state: Literal["active", "failing", "disabled"]
    disabled_because: str | None
    failing_since: datetime | None
    last_error: str | None
    cursor: int
    behind: int
    created_at: datetime


class NewWebhook(WebhookInfo):
    """A new endpoint. ``secret``: what its receiver checks signatures with. It is not shown again."""

    secret: str


class Webhooks:
    """The webhooks. All methods raise ApiError, and NotFound for a webhook that there is not."""

    def __init__(self, request: Request) -> None:
        self._request = request

    async def list(self) -> builtins.list[WebhookInfo]:
        """Return all webhooks, the oldest first."""
        return [read_answer(WebhookInfo, each) for each in (await self._request("GET", "/webhooks")).content["items"]]

    async def get(self, webhook_id: str) -> WebhookInfo:
        """Return one webhook."""
        return read_answer(WebhookInfo, (await self._request("GET", _path(webhook_id))).content)

    async def create(
        self,
        url: str,
        *,
        filter: Mapping[str, Any] | EventFilter | None = None,  # noqa: A002 - as in the REST API
        body: BodyKind = "thin",
        description: str = "",
        secret: str | None = None,
    ) -> NewWebhook:
        """Create a webhook for the events from now on, and return it with its secret.

        ``filter``: which events, as ``{"events": ["failed"], "types": ["mail.*"]}``; by default the final ones.
        Not repeated after a lost connection: NoAnswer says that it may have been created.
        """
        wanted = filter.model_dump(exclude_defaults=True) if isinstance(filter, EventFilter) else dict(filter or {})
        content = {"url": url, "filter": wanted, "body": body, "description": description}
        if secret is not None:
            content["secret"] = secret
        answer = await self._request("POST", "/webhooks", repeatable=False, **json_content(content))
        return read_answer(NewWebhook, answer.content)

    async def change(self, webhook_id: str, **values: Any) -> WebhookInfo:
        """Change ``url``, ``filter``, ``body``, ``description`` or ``enabled`` of a webhook, and return it."""
        answer = await self._request("PATCH", _path(webhook_id), **json_content(values))
        return read_answer(WebhookInfo, answer.content)

    async def delete(self, webhook_id: str) -> None:
        """Remove a webhook. Its open deliveries fail at their next attempt."""
        await self._request("DELETE", _path(webhook_id))

    async def rotate(self, webhook_id: str, *, secret: str | None = None) -> str:
        """Give a webhook a new secret and return it. The old one also signs for 24 hours.

        Not repeated after a lost connection: NoAnswer says that it may have been done.
        """
        content = json_content({} if secret is None else {"secret": secret})
        answer = await self._request("POST", f"{_path(webhook_id)}/rotate", repeatable=False, **content)
        return str(answer.content["secret"])

    async def reencrypt(self) -> int:
        """Encrypt the secrets of all webhooks with the newest key, and return how many webhooks had an older one.

        The secrets stay the same. Do it when all parts have the new key, before you remove the old one.
        """
        return int((await self._request("POST", "/webhooks/reencrypt")).content["webhooks"])

    async def test(self, webhook_id: str) -> Job:
        """Send a test event, and return its delivery, whose end says what the endpoint answered."""
        return job_of((await self._request("POST", f"{_path(webhook_id)}/test")).content)

    async def replay(self, webhook_id: str, *, after: int | None = None, since: datetime | None = None) -> WebhookInfo:
        """Deliver the events after a cursor, or since a time, that were not delivered, and return the webhook.

        Those whose delivery has failed are tried again. Give one of ``after`` and ``since``.
        """
        content = {"after": after} if after is not None else {"since": since}
        answer = await self._request("POST", f"{_path(webhook_id)}/replay", **json_content(content))
        return read_answer(WebhookInfo, answer.content)


def _path(webhook_id: str) -> str:
    return f"/webhooks/{quote(webhook_id, safe='')}"
