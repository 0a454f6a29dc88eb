"""Collects the jobs of batch handlers: a batch begins when it is full, or some time after its first job."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jobtape.schemas.job_types.batches import Batch

M = TypeVar("M")


@dataclass(slots=True)
class _Open(Generic[M]):
    timer: asyncio.TimerHandle
    members: list[M] = field(default_factory=list)


class OpenBatches(Generic[M]):
    """The batches that have not begun, one for each job type. ``begin`` is called with the members of one, on the
    loop on which this was made.
    """

    def __init__(self, begin: Callable[[list[M]], object]) -> None:
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, _Open[M]] = {}

    def add(self, job_type: str, batch: Batch, member: M) -> None:
        """Add a member to the batch of its job type, which begins as ``batch`` says."""
        found = self._open.get(job_type)
        if found is None:
            found = self._open[job_type] = _Open(self._loop.call_later(batch.within, self._end, job_type))
        found.members.append(member)
        if len(found.members) >= batch.size:
            found.timer.cancel()
            self._end(job_type)

    def remove(self, job_type: str, member: M) -> bool:
        """Remove a member. Return whether its batch had not begun."""
        found = self._open.get(job_type)
        if found is None or member not in found.members:
            return False
        found.members.remove(member)
        if not found.members:
            found.timer.cancel()
            del self._open[job_type]
        return True

    def _end(self, job_type: str) -> None:
        self._begin(self._open.pop(job_type).members)
