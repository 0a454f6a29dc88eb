"""What ``jobtape doctor`` finds out about webhooks that are disabled or late."""

from datetime import UTC, datetime
from typing import Final

from jobtape.cli.doctor.findings import Findings
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.store import Store

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
    if more := max(0, len(disabled) - SHOWN) + max(0, len(late) - SHOWN):
        found.note("webhooks", f"{more} more are disabled or late", "`jobtape webhooks list` shows all")
    if lags and not disabled and not late:
        found.fine("webhooks", f"{len(lags)} webhooks, none disabled or late")
