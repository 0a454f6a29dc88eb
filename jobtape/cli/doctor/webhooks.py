"""What ``jobtape doctor`` finds out about webhooks that are disabled or late."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from jobtape.cli.doctor.findings import Findings
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.job_types.secrets import SecretKeysWrong, installed_cipher
from jobtape.view.store import Store, Webhook

LATE: Final = 600.0
"""Seconds after which an event should have become a delivery."""
SHOWN: Final = 10


def examine_webhooks(found: Findings, store: Store) -> None:
    """Add the webhooks that are disabled, or late because their receivers fail. Blocks."""
    try:
        lags = store.webhooks.lags(datetime.now(UTC))
    except ViewUnavailable:
        return  # the check of the view reports why
    disabled = [lag.webhook for lag in lags if lag.seconds is None]
    late = [(lag.webhook, lag.seconds) for lag in lags if lag.seconds is not None and lag.seconds > LATE]
    for webhook in disabled[:SHOWN]:
        why = webhook.disabled_because or "somebody disabled it"
        found.note(
            "webhooks",
            f"the webhook {webhook.id} ({webhook.url}) is disabled: {why}",
            f"when its receiver works: `jobtape webhooks enable {webhook.id}`, then `jobtape webhooks replay`; or "
            f"`jobtape webhooks delete {webhook.id}`",
        )
    for webhook, seconds in late[:SHOWN]:
        why = f"its attempts fail: {webhook.last_error}" if webhook.last_error else "more events come than it answers"
        found.wrong(
            "webhooks",
            f"the webhook {webhook.id} ({webhook.url}) is {seconds:.0f} s late; {why}",
            "repair its receiver; what it has missed is delivered then. See that a projector runs, too",
        )
    _examine_secrets(found, [lag.webhook for lag in lags])
    if more := max(0, len(disabled) - SHOWN) + max(0, len(late) - SHOWN):
        found.note("webhooks", f"{more} more are disabled or late", "`jobtape webhooks list` shows all")
    if lags and not disabled and not late:
        found.fine("webhooks", f"{len(lags)} webhooks, none disabled or late")


def _examine_secrets(found: Findings, webhooks: Sequence[Webhook]) -> None:
    """Add secrets that the keys of this process do not decrypt, or that an older key has encrypted."""
    cipher = installed_cipher()
    if cipher is None:
        return  # without it, deliveries fail and say so
    older = 0
    try:
        for webhook in webhooks:
            known = [secret.decode() for secret in webhook.secrets]
            for each in known:
                cipher.decrypt(each)
            older += not all(map(cipher.is_newest, known))
    except SecretKeysWrong as error:
        found.wrong("webhooks", f"the keys of this process do not decrypt the secrets of webhooks: {error}")
        return
    if older:
        found.note(
            "webhooks",
            f"the secrets of {older} webhooks are encrypted with an older key of JOBTAPE_SECRET_KEYS",
            "before you remove that key, run `jobtape webhooks reencrypt`",
        )
