"""What a client knows of its submissions: accepted, refused, or unknown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtape.broker.publisher import Publisher
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import Submitted
from jobtape.schemas.topology import run_key


@dataclass(slots=True)
class Ledger:
    """Append-only; job ids by what became of their submission."""

    ok: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def sent(self) -> set[str]:
        """Every job that may exist."""
        return {*self.ok, *self.unknown}

    async def submit(self, publisher: Publisher, event: Submitted, *, timeout: float | None = None) -> bool:
        """Publish ``event`` to tape and work queue, and note what came of it; whether it was accepted."""
        try:
            await publisher.publish(event, _keys(event), timeout=timeout)
        except BrokerUnavailable:
            self.unknown.append(event.subject)
            return False
        except TapeMissing:
            self.refused.append(event.subject)
            return False
        self.ok.append(event.subject)
        return True


def _keys(event: Submitted) -> Sequence[str]:
    return [run_key(event.data.order.queue)]
