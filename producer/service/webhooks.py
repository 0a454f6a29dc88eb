"""Endpoints of webhooks: created, changed, tested and replayed. They are rows of the database, not jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from uuid_utils import uuid7

from jobtape.producer.service.errors import WebhookDisabled, WebhookInvalid, WebhookMissing
from jobtape.producer.service.service import JobService
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import Job
from jobtape.schemas.webhooks.delivery import TEST_TYPE, BodyKind, Delivery, delivery_order
from jobtape.view.store import Webhook
from jobtape.webhooks.addresses import Network, fault_of_url
from jobtape.webhooks.secrets import new_secret, secret_bytes, secret_cipher


@dataclass(frozen=True, slots=True)
class WebhookService:
    """``allowed``: networks that are not public and still allowed.

    Every call raises ViewUnavailable when the database does not answer.
    """

    service: JobService
    allowed: tuple[Network, ...]

    async def all(self) -> list[Webhook]:
        """Return all endpoints, the oldest first."""
        return await self.service.read(self.service.store.webhooks.all)

    async def get(self, webhook_id: str) -> Webhook:
        """Return one endpoint. Raises WebhookMissing."""
        found = await self.service.read(self.service.store.webhooks.read, webhook_id)
        if found is None:
            raise WebhookMissing(f"there is no webhook {webhook_id}: `GET /webhooks` lists them")
        return found

    async def create(
        self, url: str, description: str, wanted: EventFilter, body: BodyKind, secret: str | None
    ) -> tuple[Webhook, str]:
        """Create an endpoint for the events from now on. Return it with its secret, which nothing shows again.

        ``secret``: None for a new one. Raises WebhookInvalid, WebhookKeyMissing and SecretKeysWrong.
        """
        self._check_url(url)
        secret, encrypted = self._encrypted(secret)
        head = (await self.service.read(self.service.store.committed.reach)).head
        webhook_id = str(uuid7())
        rows = self.service.store.webhooks
        await self.service.read(rows.create, webhook_id, url, description, wanted, body, encrypted, head)
        return await self.get(webhook_id), secret

    async def change(self, webhook_id: str, values: Mapping[str, Any]) -> Webhook:
        """Change ``url``, ``description``, ``filter``, ``body`` or ``enabled``; raises WebhookInvalid, WebhookMissing.

        An endpoint that is enabled gets the events from now on.
        """
        rows = self.service.store.webhooks
        given = dict(values)
        if "url" in given:
            self._check_url(given["url"])
        enabled = given.pop("enabled", None)
        await self.get(webhook_id)
        if given:
            await self.service.read(rows.change, webhook_id, given)
        if enabled is True:
            head = (await self.service.read(self.service.store.committed.reach)).head
            await self.service.read(rows.enable, webhook_id, head)
        elif enabled is False:
            await self.service.read(rows.disable, webhook_id, "somebody disabled it")
        return await self.get(webhook_id)

    async def rotate(self, webhook_id: str, secret: str | None) -> str:
        """Give an endpoint a new secret and return it. Both sign for a day.

        Raises what ``create`` and ``get`` raise.
        """
        await self.get(webhook_id)
        secret, encrypted = self._encrypted(secret)
        await self.service.read(self.service.store.webhooks.rotate, webhook_id, encrypted)
        return secret

    async def reencrypt(self) -> int:
        """Encrypt all secrets with the newest key, and return of how many endpoints the secrets were changed.

        Raises WebhookKeyMissing and SecretKeysWrong.
        """
        cipher = secret_cipher()
        changed = 0
        for webhook in await self.all():
            known = [secret.decode() for secret in webhook.secrets]
            if not all(map(cipher.is_newest, known)):
                newest = tuple(cipher.encrypt(cipher.decrypt(each)).encode() for each in known)
                rows = self.service.store.webhooks
                changed += await self.service.read(rows.replace_secrets, webhook.id, webhook.secrets, newest)
        return changed

    async def delete(self, webhook_id: str) -> Webhook:
        """Remove an endpoint and return it. Its open deliveries fail at their next attempt. Raises WebhookMissing."""
        webhook = await self.get(webhook_id)
        await self.service.read(self.service.store.webhooks.delete, webhook_id)
        return webhook

    async def test(self, webhook_id: str) -> Job:
        """Submit a delivery of a test event, which a disabled endpoint gets too, and return it.

        Raises WebhookMissing and what ``JobService.submit_order`` raises.
        """
        webhook = await self.get(webhook_id)
        body = {"type": TEST_TYPE, "timestamp": datetime.now(UTC).isoformat(), "data": {"webhook": webhook.id}}
        order = delivery_order(Delivery(endpoint=webhook.id, body=body)).model_copy(update={"max_attempts": 1})
        return await self.service.submit_order(order)

    async def replay(self, webhook_id: str, *, after: int | None, since: datetime | None) -> Webhook:
        """Deliver the events after the cursor ``after``, or from the time ``since`` on, that were not delivered.

        Those whose delivery has failed are tried again, and those that were delivered are not. Raises WebhookMissing
        and WebhookDisabled.
        """
        store = self.service.store
        webhook = await self.get(webhook_id)
        if after is None:
            assert since is not None
            after = await self.service.search(store.committed.before, since)
        head = (await self.service.read(store.committed.reach)).head
        if not await self.service.read(store.webhooks.replay, webhook_id, after, head):
            raise WebhookDisabled(f"the webhook {webhook.id} is disabled ({webhook.disabled_because}): enable it first")
        return await self.get(webhook_id)

    async def behind(self, webhook: Webhook) -> int:
        """Return the number of events that the endpoint has still to pass."""
        return await self.service.read(self.service.store.webhooks.behind, webhook.cursor)

    def _check_url(self, url: str) -> None:
        try:
            fault = fault_of_url(httpx.URL(url), self.allowed)
        except (httpx.InvalidURL, ValueError) as error:
            fault = f"it is no URL: {error}"
        if fault is not None:
            raise WebhookInvalid("url", fault)

    def _encrypted(self, secret: str | None) -> tuple[str, bytes]:
        cipher = secret_cipher()
        if secret is None:
            secret = new_secret()
        try:
            secret_bytes(secret)
        except ValueError as error:
            raise WebhookInvalid("secret", str(error)) from None
        return secret, cipher.encrypt(secret).encode()
