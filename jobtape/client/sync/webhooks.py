"""``SyncClient.webhooks``."""

import builtins
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobtape.client.sync.portal import Portal
from jobtape.client.webhooks import NewWebhook, WebhookInfo, Webhooks
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import Job
from jobtape.schemas.webhooks.delivery import BodyKind


class SyncWebhooks:
    """See ``Webhooks``."""

    def __init__(self, webhooks: Webhooks, portal: Portal) -> None:
        self._webhooks = webhooks
        self._portal = portal

    def list(self) -> builtins.list[WebhookInfo]:
        """See ``Webhooks.list``."""
        return self._portal.call(self._webhooks.list)

    def get(self, webhook_id: str) -> WebhookInfo:
        """See ``Webhooks.get``."""
        return self._portal.call(self._webhooks.get, webhook_id)

    def create(
        self,
        url: str,
        *,
        filter: Mapping[str, Any] | EventFilter | None = None,  # noqa: A002 - as in the REST API
        body: BodyKind = "thin",
        description: str = "",
        secret: str | None = None,
    ) -> NewWebhook:
        """See ``Webhooks.create``."""
        return self._portal.call(
            self._webhooks.create, url, filter=filter, body=body, description=description, secret=secret
        )

    def change(self, webhook_id: str, **values: Any) -> WebhookInfo:
        """See ``Webhooks.change``."""
        return self._portal.call(self._webhooks.change, webhook_id, **values)

    def delete(self, webhook_id: str) -> None:
        """See ``Webhooks.delete``."""
        self._portal.call(self._webhooks.delete, webhook_id)

    def rotate(self, webhook_id: str, *, secret: str | None = None) -> str:
        """See ``Webhooks.rotate``."""
        return self._portal.call(self._webhooks.rotate, webhook_id, secret=secret)

    def reencrypt(self) -> int:
        """See ``Webhooks.reencrypt``."""
        return self._portal.call(self._webhooks.reencrypt)

    def test(self, webhook_id: str) -> Job:
        """See ``Webhooks.test``."""
        return self._portal.call(self._webhooks.test, webhook_id)

    def replay(self, webhook_id: str, *, after: int | None = None, since: datetime | None = None) -> WebhookInfo:
        """See ``Webhooks.replay``."""
        return self._portal.call(self._webhooks.replay, webhook_id, after=after, since=since)
