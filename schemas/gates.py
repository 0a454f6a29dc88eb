"""Gates: what has to be free before the work of a job is placed.

An **ordering key** is free when no other job with the key has a slot; jobs get it in the tape's order. A **limit**
gives slots to ``at_most`` jobs at once or, with ``per``, allows ``at_most`` placements in any ``per`` seconds. A
**unique key** is free when no other job with the key has a slot, a **debounce key** when no other job with the key has
come for a time; ``schemas.claims`` says which jobs are cancelled. A job keeps its slots from its first placement in a
run until the run has ended, also while it waits for a retry. So nothing has to expire: the slots that are taken follow
from the jobs in the view (``Job.holds_slots``).

The rates follow the generic cell rate algorithm (GCRA; ITU-T I.371, annex A): placements are spaced evenly, and one may
come up to ``TOLERANCE`` early, so that a late one does not lower the rate. The spacing is longer by as much, so that no
window of ``per`` seconds has more than ``at_most`` placements.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

KEY_LENGTH: Final = 200
"""Characters of an ordering key, and of the key of a limit."""
MAX_LIMITS: Final = 8
TOLERANCE: Final = 0.01
"""Seconds, far longer than a timer is late and far shorter than anybody notices."""
REMEMBERED_FROM: Final = 1.0
"""Seconds: rates whose placements are spaced further apart are noted in the view, for a projector that takes over."""
_MOST_RATES: Final = 10_000
_FORGOTTEN: Final = 86_400.0
LONGEST_DEBOUNCE: Final = 30 * 86_400.0
"""Seconds."""
RULE_GROUP: Final = "rule"
"""The ``Job.gate_group`` of rules."""
FLOW_GROUP: Final = "flow"
"""The ``Job.gate_group`` of flows."""

LimitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,120}$")]
GateKey = Annotated[str, Field(max_length=KEY_LENGTH)]
NewLimits = Mapping[tuple[str, str, bool], "Limit"]
"""Limits with other values than those of the jobs: by name, key (empty for every key) and whether it is a rate."""
Gate = tuple[str, str]
"""The name and the key of a limit; for an ordering key the name is empty, for a unique key it begins with "unique "."""
Conflict = Literal["return", "replace"]
"""Which of two jobs with the same unique key goes: the later one, or the earlier one that is not running."""


class Limit(BaseModel):
    """A limit that a job is subject to. ``per``: seconds; None for a limit of the jobs that have a slot at once."""

    model_config = ConfigDict(frozen=True)

    name: LimitName
    key: GateKey = ""
    at_most: int = Field(ge=1, lt=2**31)
    per: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def gate(self) -> Gate:
        """What jobs share that are counted together."""
        return (self.name if self.per is None else f"{self.name} per {self.per:g} s"), self.key


class UniqueKey(BaseModel):
    """A key that one open job has at a time. ``name``: job types with the same name share their keys."""

    model_config = ConfigDict(frozen=True)

    name: LimitName
    key: GateKey = ""
    conflict: Conflict = "return"

    @property
    def gate(self) -> Gate:
        """What the jobs with the key share."""
        return f"unique {self.name}", self.key


class DebounceKey(BaseModel):
    """A key of whose jobs the last one is placed, when none has come for ``seconds``, and at the latest ``at_most``
    seconds after the first. ``name``: job types with the same name share their keys.
    """

    model_config = ConfigDict(frozen=True)

    name: LimitName
    key: GateKey = ""
    seconds: float = Field(gt=0, le=LONGEST_DEBOUNCE, allow_inf_nan=False)
    at_most: float | None = Field(default=None, gt=0, le=LONGEST_DEBOUNCE, allow_inf_nan=False)

    @property
    def gate(self) -> Gate:
        """What the jobs with the key share."""
        return f"debounce {self.name}", self.key


class Gates(BaseModel):
    """All gates of one job.

    ``hold``: a failed run keeps the ordering key until the job is redriven or released. ``turn``: jobs with different
    values take turns where they wait for the same limit. ``rule`` and ``flow``: the job is
    never placed (see ``schemas.rules`` and ``schemas.flows``).
    """

    model_config = ConfigDict(frozen=True)

    ordering_key: GateKey | None = None
    hold: bool = False
    limits: tuple[Limit, ...] = Field(default=(), max_length=MAX_LIMITS)
    unique: UniqueKey | None = None
    debounce: DebounceKey | None = None
    turn: GateKey = ""
    rule: bool = False
    flow: bool = False

    def group(self, job_type: str) -> str:
        """Return the name of the jobs that are placed one after the other: those with the same ordering key, or else of
        the same type and with the same gates.

        A hash, because it is indexed and the gates may be long. A unique key is left out where no job ever waits for
        it, so that jobs with different keys take turns by ``turn``.
        """
        if self.ordering_key is not None:
            text = f"ordering_key {self.ordering_key}"
        else:
            waits = self.unique is not None and self.unique.conflict == "replace"
            left_out = {"hold"} if waits else {"hold", "unique"}
            text = f"{job_type} {self.model_dump_json(exclude=left_out)}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def slots(self, *, ended: bool = False) -> tuple[Gate, ...]:
        """Return the gates of which a job has a slot. ``ended``: its run has ended, so it has the ordering key only."""
        order = () if self.ordering_key is None else (("", self.ordering_key),)
        if ended:
            return order
        unique = () if self.unique is None else (self.unique.gate,)
        return (*order, *unique, *(limit.gate for limit in self.limits if limit.per is None))

    def texts(self) -> list[str]:
        """Return the gates as texts for people."""
        order = [] if self.ordering_key is None else [f"ordering key {self.ordering_key}"]
        if self.unique is not None:
            order.append(f"unique key {self.unique.name}{self.unique.key and f' for {self.unique.key}'}")
        if self.debounce is not None:
            key = self.debounce.key and f" for {self.debounce.key}"
            order.append(f"{self.debounce.seconds:g} s without another {self.debounce.name}{key}")
        limits = [(*limit.gate, limit.at_most) for limit in self.limits]
        return order + [f"limit {name}{key and f' for {key}'}, at most {n}" for name, key, n in limits]


class GateState:
    """Which slots are taken, and when each rate allows the next placement. Times are in seconds of one clock.

    ``start``: now. Placements before that are not known, so each fast rate waits for one spacing from then on.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self.new_limits: NewLimits = {}
        self._taken: Counter[Gate] = Counter()
        self._holders: dict[str, tuple[Gate, ...]] = {}
        self._latest: dict[Gate, float] = {}
        """When the latest placement of each rate was, or should have been."""

    def has_slots(self, job_id: str) -> bool:
        """Return whether the job has slots, or has been placed without needing one."""
        return job_id in self._holders

    def closed_gate(self, gates: Gates, now: float) -> tuple[Gate, float | None] | None:
        """Return a gate that is closed for the job, and when it opens if that is known; None if all are open."""
        if gates.ordering_key is not None and self._taken["", gates.ordering_key]:
            return ("", gates.ordering_key), None
        if gates.unique is not None and self._taken[gates.unique.gate]:
            return gates.unique.gate, None
        for limit in gates.limits:
            if limit.per is None:
                if self._taken[limit.gate] >= self._now(limit).at_most:
                    return limit.gate, None
            elif now < (opens := self._allowed_at(limit) - TOLERANCE):
                return limit.gate, opens
        return None

    def place(self, job_id: str, gates: Gates, now: float) -> None:
        """Take the slots of a job that is placed now, and count it for its rates."""
        self.hold(job_id, gates.slots())
        self.charge(gates, now)

    def hold(self, job_id: str, slots: tuple[Gate, ...]) -> list[Gate]:
        """Note that the job has exactly these slots, and return those that it had and has no more."""
        freed = self.free(job_id)
        self._holders[job_id] = slots
        self._taken.update(slots)
        return [gate for gate in freed if gate not in slots]

    def free(self, job_id: str) -> tuple[Gate, ...]:
        """Free the slots of the job, and return them."""
        slots = self._holders.pop(job_id, ())
        for gate in slots:
            self._taken[gate] -= 1
            if not self._taken[gate]:
                del self._taken[gate]
        return slots

    def latest_of_slow_rates(self, gates: Gates) -> dict[Gate, float]:
        """Return the times of the latest placements of those rates whose placements are far apart."""
        slow = (each for each in gates.limits if each.per and _spacing(self._now(each)) > REMEMBERED_FROM)
        return {limit.gate: self._latest[limit.gate] for limit in slow if limit.gate in self._latest}

    def note_latest(self, gate: Gate, time: float) -> None:
        """Note the time of a placement of a rate by another projector."""
        self._latest[gate] = max(time, self._latest.get(gate, time))

    def charge(self, gates: Gates, now: float) -> None:
        """Count a placement for its rates that did not ask for them: that of a further attempt."""
        for limit in gates.limits:
            if limit.per is not None:
                self._latest[limit.gate] = max(self._allowed_at(limit), now)
        if len(self._latest) > _MOST_RATES:
            self._latest = {gate: at for gate, at in self._latest.items() if at > now - _FORGOTTEN}

    def _allowed_at(self, limit: Limit) -> float:
        spacing = _spacing(self._now(limit))
        latest = self._latest.get(limit.gate)
        if latest is None:
            # Slow rates are noted for other projectors. A fast one may have been used just now.
            latest = self._start + TOLERANCE if spacing <= REMEMBERED_FROM else -math.inf
        return latest + spacing

    def _now(self, limit: Limit) -> Limit:
        rate = limit.per is not None
        new = self.new_limits
        return new.get((limit.name, limit.key, rate)) or new.get((limit.name, "", rate)) or limit


def _spacing(limit: Limit) -> float:
    assert limit.per is not None
    return (limit.per + TOLERANCE) / limit.at_most
