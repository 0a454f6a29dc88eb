"""Which events the relay publishes in which mode."""

from typing import Final, Literal

from jobtape.schemas.events import EVENT_NAMES, Submitted
from jobtape.schemas.job import ENDINGS

RelayMode = Literal["final", "all", "off"]
"""As ``JOBTAPE_RELAY_EVENTS`` says it."""

RELAYED_EVENTS: Final[dict[RelayMode, frozenset[str]]] = {
    "final": ENDINGS,
    # Whoever submitted a job knows of it, and its payload would travel a second time.
    "all": frozenset(EVENT_NAMES) - {Submitted.name},
    "off": frozenset(),
}
"""The names of the events."""
