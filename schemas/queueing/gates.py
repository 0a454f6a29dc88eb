"""Gates: what has to be free before the work of a job is placed.

An **ordering key** is free when no other job with the key has a slot; jobs get it in the tape's order. A **limit**
gives slots to ``at_most`` jobs at once or, with ``per``, allows ``at_most`` placements in any ``per`` seconds. A
**unique key** is free when no other job with the key has a slot, a **debounce key** when no other job with the key has
come for a time; ``schemas.keyed_runs`` says which jobs are cancelled. A job keeps its slots from its first placement in
a run until the run has ended, also while it waits for a retry. So nothing has to expire: the slots that are taken
follow from the jobs in the view (``Job.has_slots``).

The rates follow the generic cell rate algorithm (GCRA; ITU-T I.371, annex A): placements are due at even spaces, and
one that comes late does not delay the next ones, up to ``CATCH_UP``. So they may come closer together for a while.
Therefore the last ``at_most`` placements of each rate are remembered, and the next one waits until the first of them is
``per`` seconds old. The spacing is a little longer than ``per / at_most``. Otherwise no lateness could be made up: a
rate that is used fully has no window with one placement less.
"""

import hashlib
import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

KEY_LENGTH: Final = 200
"""Characters of an ordering key, and of the key of a limit."""
MAX_LIMITS: Final = 8
CATCH_UP: Final = 0.5
"""Seconds of lateness that a rate makes up."""
SLACK: Final = 0.01
"""Seconds by which ``at_most`` placements take longer than ``per``: so much lateness is made up in each ``per``."""
CLOCK_DRIFT: Final = 0.001
"""Seconds by which the tape's times of two placements may be closer than those of the monotonic clock."""
_TIMES: Final = 250
"""Different times in ``per`` seconds that are remembered, so that a large ``at_most`` needs no more memory."""
REMEMBERED_FROM: Final = 1.0
"""Seconds: rates whose placements are spaced further apart are noted in the view, for a projector that takes over."""
_RATES_KEPT: Final = 10_000
"""Rates that are remembered before the first look at which of them are not needed any more."""
LONGEST_RATE: Final = 30 * 86_400.0
"""Seconds: the largest ``per``. The view keeps notes a little longer."""
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
    values take turns where they wait for the same limit. ``rule`` and ``flow``: the job is never placed (see
    ``schemas.rules`` and ``schemas.flows``).
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
            return key_group(self.ordering_key)
        waits = self.unique is not None and self.unique.conflict == "replace"
        left_out = {"hold"} if waits else {"hold", "unique"}
        return _hash(f"{job_type} {self.model_dump_json(exclude=left_out)}")

    def slots(self, *, ended: bool = False, awaits_follow_ups: bool = False) -> tuple[Gate, ...]:
        """Return the gates of which a job has a slot. ``ended``: its run has ended, so it has the ordering key only.
        ``awaits_follow_ups``: it waits for its follow-ups, which may need the slots of its limits.
        """
        order = () if self.ordering_key is None else (("", self.ordering_key),)
        if ended:
            return order
        unique = () if self.unique is None else (self.unique.gate,)
        if awaits_follow_ups:
            return (*order, *unique)
        return (*order, *unique, *(limit.gate for limit in self.limits if limit.per is None))

    def waits_for(self) -> tuple[str, ...]:
        """Return what a held job may have to wait for, each once and without its key: the names of its limits,
        "ordering key", "unique key" and "debounce key". No limit has a name with a space.
        """
        keys = {
            "ordering key": self.ordering_key is not None,
            "unique key": self.unique is not None and self.unique.conflict == "replace",
            "debounce key": self.debounce is not None,
        }
        named = dict.fromkeys(limit.name for limit in self.limits)
        return (*(key for key, waits in keys.items() if waits), *named)

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


def key_group(ordering_key: str) -> str:
    """Return the ``Job.gate_group`` of all jobs with this ordering key, whatever their types are."""
    return _hash(f"ordering_key {ordering_key}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Placements:
    """The latest placements of one rate. ``due``: when the last of them was due, at most ``CATCH_UP`` before it."""

    __slots__ = ("_n", "_times", "due", "needed_until")

    def __init__(self, due: float) -> None:
        self.due = due
        self.needed_until = due + LONGEST_RATE
        """After that a further placement is due at once, as if there had been none."""
        self._times: deque[tuple[float, float, int]] = deque()
        """The first and the last time of placements close together, and how many. All of them count as the last."""
        self._n = 0

    def add(self, now: float, per: float) -> None:
        self._n += 1
        if self._times and now - self._times[-1][0] < per / _TIMES:
            first, last, n = self._times[-1]
            self._times[-1] = first, max(now, last), n + 1
        else:
            self._times.append((now, now, 1))

    def delay(self, now: float) -> None:
        """Note that the last placements come only now."""
        self.due = max(self.due, now - CATCH_UP)
        if self._times:
            first, last, n = self._times[-1]
            self._times[-1] = first, max(now, last), n

    def opens_at(self, limit: Limit) -> float:
        """Return when a window of the limit has room again."""
        assert limit.per is not None
        while self._times and self._n - self._times[0][2] >= limit.at_most:
            self._n -= self._times.popleft()[2]
        return self._times[0][1] + limit.per + CLOCK_DRIFT if self._n >= limit.at_most else -math.inf


class GateState:
    """Which slots are taken, and when each rate allows the next placement. Times are in seconds of one clock.

    ``start``: now. Placements before that are not known, so each fast rate waits from then on as if one had just come
    as late as can be.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self.new_limits: NewLimits = {}
        self._taken: Counter[Gate] = Counter()
        self._slots: dict[str, tuple[Gate, ...]] = {}
        self._rates: dict[Gate, _Placements] = {}
        self._most_rates = _RATES_KEPT

    def has_slots(self, job_id: str) -> bool:
        """Return whether the job has slots, or has been placed without needing one."""
        return job_id in self._slots

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
            elif now < (opens := self._opens_at(limit)):
                return limit.gate, opens
        return None

    def take_slots(self, job_id: str, gates: Gates, now: float, *, since: float | None = None) -> None:
        """Take the slots of a job that is placed now, and count it for its rates.

        ``since``: from when on it has waited, by default now. What it is late is made up later.
        """
        self.set_slots(job_id, gates.slots())
        self.charge(gates, now, since=since)

    def set_slots(self, job_id: str, slots: tuple[Gate, ...]) -> list[Gate]:
        """Note that the job has exactly these slots, and return those that it had and has no more."""
        freed = self.free(job_id)
        self._slots[job_id] = slots
        self._taken.update(slots)
        return [gate for gate in freed if gate not in slots]

    def free(self, job_id: str) -> tuple[Gate, ...]:
        """Free the slots of the job, and return them."""
        slots = self._slots.pop(job_id, ())
        for gate in slots:
            self._taken[gate] -= 1
            if not self._taken[gate]:
                del self._taken[gate]
        return slots

    def latest_of_slow_rates(self, gates: Gates) -> dict[Gate, float]:
        """Return when the latest placements of those rates were due whose placements are far apart."""
        slow = (each for each in gates.limits if each.per and _spacing(self._now(each)) > REMEMBERED_FROM)
        return {limit.gate: self._rates[limit.gate].due for limit in slow if limit.gate in self._rates}

    def note_latest(self, gate: Gate, due: float) -> None:
        """Note when a placement of a rate by another projector was due. It may have come as late as can be."""
        rate = self._rates.setdefault(gate, _Placements(due + CATCH_UP))
        rate.due = max(rate.due, due + CATCH_UP)

    def charge(self, gates: Gates, now: float, *, since: float | None = None) -> None:
        """Count a placement for its rates. Call it also for a further attempt, which does not wait for the rates."""
        for limit in gates.limits:
            if limit.per is not None:
                due = max(self._due_at(limit), now if since is None else min(since, now), now - CATCH_UP)
                rate = self._rates.setdefault(limit.gate, _Placements(due))
                rate.due = due
                per = self._now(limit).per or limit.per
                rate.add(now, per)
                rate.needed_until = max(due, now) + per + SLACK + CATCH_UP
        if len(self._rates) > self._most_rates:
            self._rates = {gate: rate for gate, rate in self._rates.items() if rate.needed_until > now}
            self._most_rates = max(_RATES_KEPT, 2 * len(self._rates))

    def delay(self, gates: Gates, now: float) -> None:
        """Note that the placements that were counted last for the rates of a job are only published now."""
        for limit in gates.limits:
            if (rate := self._rates.get(limit.gate)) is not None:
                rate.delay(now)

    def _opens_at(self, limit: Limit) -> float:
        rate = self._rates.get(limit.gate)
        due = self._due_at(limit)
        return due if rate is None else max(due, rate.opens_at(self._now(limit)))

    def _due_at(self, limit: Limit) -> float:
        """Return when the next placement of a rate is due."""
        spacing = _spacing(self._now(limit))
        if (rate := self._rates.get(limit.gate)) is not None:
            return rate.due + spacing
        # Slow rates are noted for other projectors. A fast one may have been used just now.
        return self._start + CATCH_UP + spacing if spacing <= REMEMBERED_FROM else -math.inf

    def _now(self, limit: Limit) -> Limit:
        rate = limit.per is not None
        new = self.new_limits
        return new.get((limit.name, limit.key, rate)) or new.get((limit.name, "", rate)) or limit


def _spacing(limit: Limit) -> float:
    assert limit.per is not None
    return (limit.per + SLACK) / limit.at_most
