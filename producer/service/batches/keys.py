"""Claims the idempotency keys of a batch in one transaction, and records their outcomes in another.

A batch does not wait: an item that another request submits at the same time is ``unknown``, with its job's id. An item
with the key of an earlier item is the same job, or is refused when it is another submission.
"""

from collections.abc import Sequence
from uuid import uuid4

from jobtape.producer.service.batches.outcome import ItemAccepted, ItemOutcome, ItemRefused, ItemToPublish, ItemUnknown
from jobtape.producer.service.submission.idempotency import Idempotency, KeyedOrder, reused
from jobtape.schemas.errors import JobtapeError, TapeMissing
from jobtape.view.store import Claim, KeyState

Outcomes = list[ItemOutcome | None]


class KeyedItems:
    """Call ``claim``, publish what it returns, then call ``settle``. ``items``: those with a key, and their index."""

    def __init__(self, idempotency: Idempotency, scope: str, items: Sequence[tuple[int, KeyedOrder]]) -> None:
        self._idempotency = idempotency
        self._scope = scope
        self._owner = uuid4().hex
        self._first: dict[str, tuple[int, KeyedOrder]] = {}
        self._repeats: list[tuple[int, KeyedOrder]] = []
        self._claims: dict[str, Claim] = {}
        for index, keyed in items:
            if self._first.setdefault(keyed.row.key, (index, keyed))[0] != index:
                self._repeats.append((index, keyed))

    async def claim(self, outcomes: Outcomes) -> dict[int, ItemToPublish]:
        """Return what to publish, by index. Sets the outcomes of the others, except repeats within the batch."""
        if not self._first:
            return {}
        try:
            self._claims = await self._idempotency.claim(
                self._scope, self._owner, [keyed for _, keyed in self._first.values()]
            )
        except JobtapeError as error:  # without the database: what has no key goes on
            for index, _ in self._first.values():
                outcomes[index] = ItemRefused(error)
            return {}
        to_publish: dict[int, ItemToPublish] = {}
        for key, claim in self._claims.items():
            index, keyed = self._first[key]
            match claim.state:
                case KeyState.NEW | KeyState.TAKEN_OVER:
                    to_publish[index] = ItemToPublish(keyed.order_at(claim.time), claim.job_id, claim.time)
                case KeyState.ACCEPTED:
                    outcomes[index] = ItemAccepted(claim.job_id)
                case KeyState.IN_FLIGHT:
                    outcomes[index] = ItemUnknown(claim.job_id)
                case KeyState.REUSED:
                    outcomes[index] = ItemRefused(reused(key))
        await self._resolve(to_publish, outcomes)
        return to_publish

    async def settle(self, outcomes: Outcomes) -> None:
        """Record the outcomes of the keys, and set the outcomes of repeats within the batch."""
        accepted: list[str] = []
        released: list[str] = []
        unpublished: list[str] = []
        for key, claim in self._claims.items():
            match outcomes[self._first[key][0]], claim.state:
                case ItemAccepted(job_id), KeyState.NEW | KeyState.TAKEN_OVER:
                    accepted.append(job_id)
                case ItemRefused(TapeMissing()), KeyState.NEW | KeyState.TAKEN_OVER:
                    released.append(claim.job_id)  # its work may be on its queue
                case ItemRefused(), KeyState.NEW:
                    unpublished.append(claim.job_id)
                case ItemRefused(), KeyState.TAKEN_OVER:
                    released.append(claim.job_id)
        await self._idempotency.settle(self._owner, accepted=accepted, released=released, unpublished=unpublished)
        for index, keyed in self._repeats:
            at, first = self._first[keyed.row.key]
            same = first.row.digest == keyed.row.digest
            outcomes[index] = outcomes[at] if same else ItemRefused(reused(keyed.row.key))

    async def _resolve(self, to_publish: dict[int, ItemToPublish], outcomes: Outcomes) -> None:
        """Remove from ``to_publish`` what was taken over and is already on the tape."""
        taken = {
            self._first[key][0]: claim.job_id
            for key, claim in self._claims.items()
            if claim.state is KeyState.TAKEN_OVER
        }
        if not taken:
            return
        try:
            known = await self._idempotency.on_the_tape(list(taken.values()))
        except JobtapeError:
            await self._idempotency.settle(self._owner, released=list(taken.values()))
            for index, job_id in taken.items():
                outcomes[index] = ItemUnknown(job_id)
                del to_publish[index]
            return
        for index, job_id in taken.items():
            if job_id in known:
                outcomes[index] = ItemAccepted(job_id)
                del to_publish[index]
