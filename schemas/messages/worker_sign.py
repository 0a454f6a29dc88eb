"""The sign of life of a worker: a small message that may be lost, which the active projector collects."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

BUSY_INTERVAL: Final = 2.0
"""Seconds between two signs while what the worker runs changes."""
IDLE_INTERVAL: Final = 10.0
"""Seconds between two signs while nothing changes."""
SILENT_AFTER: Final = 25.0
"""Seconds without a sign after which a worker counts as silent: two signs were lost, or it was killed."""
GONE_AFTER: Final = 60.0
"""Seconds without a sign after which a worker is no longer shown, unless jobs that it ran have begun nowhere else."""
MOST_EXECUTIONS: Final = 20
"""Executions in one sign, the oldest ones."""
MOST_WAITING: Final = 1000
"""Waiting jobs in one sign."""
MOST_JOB_TYPES: Final = 200
"""Names of job types in one sign."""


@dataclass(frozen=True, slots=True)
class RunningExecution:
    """An execution that has a slot. ``settled``: its job has ended or was given back, and the handler still runs."""

    job_id: str
    job_type: str
    run: int
    attempt: int
    since: datetime
    settled: bool


@dataclass(frozen=True, slots=True)
class WorkerSign:
    """What a worker says about itself.

    ``id``: of this start of the worker. ``name``: as in its events. ``state``: ``stopped`` is its last sign. ``fault``:
    why it takes no jobs. ``slots``: how many jobs it runs at the same time. ``running``: how many slots are in use,
    also those of executions that are left out of ``executions``. ``waiting``: the ids of the jobs that it has taken
    from its queues and has no slot for yet.
    """

    id: str
    name: str
    host: str
    pid: int
    version: str
    state: Literal["alive", "draining", "stopped"]
    fault: str | None
    started_at: datetime
    queues: tuple[str, ...]
    job_types: tuple[str, ...]
    slots: int
    running: int
    executions: tuple[RunningExecution, ...]
    waiting: tuple[str, ...]


_ADAPTER: Final = TypeAdapter(WorkerSign)


def encode_sign(sign: WorkerSign) -> bytes:
    """Return the message body."""
    return to_json(sign)


def decode_sign(body: bytes) -> WorkerSign | None:
    """Return the sign in a message body; None for anything else, which any program may publish."""
    try:
        return _ADAPTER.validate_json(body)
    except ValidationError:
        return None
