"""Keep the job ids that a client has submitted, by outcome: accepted, refused or unknown."""

from dataclasses import dataclass, field

from jobtape.broker.publisher import Publisher
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import Submitted
from jobtape.schemas.fold import places_no_work
from jobtape.schemas.topology import work_key


@dataclass(slots=True)
class Ledger:
    """Job ids by the outcome of their submission."""

    ok: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def sent(self) -> set[str]:
        """All jobs that may exist."""
        return {*self.ok, *self.unknown}

    async def submit(self, publisher: Publisher, event: Submitted, *, timeout: float | None = None) -> bool:
        """Publish ``event`` to the tape, and to the work queue unless it is due later, and note the outcome. Return
        whether it was accepted.
        """
        later = places_no_work(event.data.order, event.time)
        try:
            await publisher.publish(event, () if later else [work_key(event.data.order.queue)], timeout=timeout)
        except BrokerUnavailable:
            self.unknown.append(event.subject)
            return False
        except TapeMissing:
            self.refused.append(event.subject)
            return False
        self.ok.append(event.subject)
        return True
