"""The items of a batch that have idempotency keys: one transaction claims all their keys, and one marks them.

Nobody is waited for: an item that somebody else is submitting just now is ``unknown``, with its job's id. An item whose
key an earlier one of the batch has is the same job, or refused when it is another submission.
"""

from collections.abc import Sequence
from uuid import uuid4

from jobtape.producer.batch_outcome import Accepted, Outcome, Refused, ToPlace, Unknown
from jobtape.producer.idempotency import Idempotency, Keyed, reused
from jobtape.schemas.errors import JobtapeError, LogMissing
from jobtape.view.store import Claim, Standing

Outcomes = list[Outcome | None]


class KeyedItems:
    """``claim``, then publish what it returns, then ``settle``; ``items`` are those with a key, by their index."""

    def __init__(self, idempotency: Idempotency, scope: str, items: Sequence[tuple[int, Keyed]]) -> None:
        self._idempotency = idempotency
        self._scope = scope
        self._owner = uuid4().hex
        self._first: dict[str, tuple[int, Keyed]] = {}
        self._repeats: list[tuple[int, Keyed]] = []
        self._claims: dict[str, Claim] = {}
        for index, keyed in items:
            if self._first.setdefault(keyed.row.key, (index, keyed))[0] != index:
                self._repeats.append((index, keyed))

    async def claim(self, outcomes: Outcomes) -> dict[int, ToPlace]:
        """What is to be published, by index; the outcomes of all others but repeats within the batch are noted."""
        if not self._first:
            return {}
        try:
            self._claims = await self._idempotency.claim(
                self._scope, self._owner, [keyed for _, keyed in self._first.values()]
            )
        except JobtapeError as error:  # without the database: what has no key goes on
            for index, _ in self._first.values():
                outcomes[index] = Refused(error)
            return {}
        to_place: dict[int, ToPlace] = {}
        for key, claim in self._claims.items():
            index, keyed = self._first[key]
            match claim.standing:
                case Standing.NEW | Standing.TAKEN_OVER:
                    to_place[index] = ToPlace(keyed.order_at(claim.time), claim.job_id, claim.time)
                case Standing.ACCEPTED:
                    outcomes[index] = Accepted(claim.job_id)
                case Standing.IN_FLIGHT:
                    outcomes[index] = Unknown(claim.job_id)
                case Standing.REUSED:
                    outcomes[index] = Refused(reused(key))
        await self._resolve(to_place, outcomes)
        return to_place

    async def settle(self, outcomes: Outcomes) -> None:
        """Note what became of the keys, and the outcomes of repeats within the batch."""
        accepted: list[str] = []
        let_go: list[str] = []
        forget: list[str] = []
        for key, claim in self._claims.items():
            match outcomes[self._first[key][0]], claim.standing:
                case Accepted(job_id), Standing.NEW | Standing.TAKEN_OVER:
                    accepted.append(job_id)
                case Unknown(full=True), Standing.NEW | Standing.TAKEN_OVER:
                    let_go.append(claim.job_id)  # a repeat finds it on the tape
                case Refused(LogMissing()), Standing.NEW | Standing.TAKEN_OVER:
                    let_go.append(claim.job_id)  # its work may be on its queue
                case Refused(), Standing.NEW:
                    forget.append(claim.job_id)
                case Refused(), Standing.TAKEN_OVER:
                    let_go.append(claim.job_id)
        await self._idempotency.settle(self._owner, accepted=accepted, let_go=let_go, forget=forget)
        for index, keyed in self._repeats:
            at, first = self._first[keyed.row.key]
            same = first.row.digest == keyed.row.digest
            outcomes[index] = outcomes[at] if same else Refused(reused(keyed.row.key))

    async def _resolve(self, to_place: dict[int, ToPlace], outcomes: Outcomes) -> None:
        """Of what was taken over, that which is on the tape already need not be published."""
        taken = {
            self._first[key][0]: claim.job_id
            for key, claim in self._claims.items()
            if claim.standing is Standing.TAKEN_OVER
        }
        if not taken:
            return
        try:
            known = await self._idempotency.on_the_tape(list(taken.values()))
        except JobtapeError:
            await self._idempotency.settle(self._owner, let_go=list(taken.values()))
            for index, job_id in taken.items():
                outcomes[index] = Unknown(job_id)
                del to_place[index]
            return
        for index, job_id in taken.items():
            if job_id in known:
                outcomes[index] = Accepted(job_id)
                del to_place[index]
