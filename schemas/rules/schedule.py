"""Schedules: when a job is submitted again and again, as a rule (``rules``) that contains the order.

Cron expressions are read by cronsim, which follows Debian's cron at changes of the clock: a job at a fixed time runs
once on each day, and one at an interval as often as time passes. Zones are those of the IANA database.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from jobtape.schemas import ids
from jobtape.schemas.job import Order, Utc
from jobtape.schemas.queueing.gates import Gates

SCHEDULE_LABEL: Final = "schedule"
"""The label of a tick's job that has the schedule's name."""
SKIPPED_LABEL: Final = "skipped"
MOST_CAUGHT_UP: Final = 100
ON_TIME: Final = 10.0
"""Seconds for which a tick is not missed yet: as long as it takes until another projector becomes active."""

ScheduleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,120}$")]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"there is no time zone {name!r}: use a name like Europe/Berlin") from None
    return name


def _valid_cron(text: str) -> str:
    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"{text!r} is no cron expression: {error}") from None
    return text


class Ticks(BaseModel):
    """When a schedule submits a job. Either ``cron``, in the zone ``tz``, or ``every``, in seconds since 1970.

    ``overlap``: what a tick does while the job of an earlier one is open: nothing (``skip``), wait for it
    (``queue``), wait unless the job of another one waits already (``queue_one``),
    run beside it (``allow``), or cancel it (``cancel``). ``catch_up``: which ticks are submitted late that were missed
    for up to ``window`` seconds because no projector was active: the latest, none, or all (at most 100). There are
    ticks from ``start`` on and before ``end``. ``spread``: seconds by up to which all ticks are later; how much follows
    from the schedule's name, so that schedules with the same times do not all submit at once.
    """

    model_config = ConfigDict(frozen=True)

    cron: Annotated[str, AfterValidator(_valid_cron)] | None = Field(None, max_length=200)
    every: float | None = Field(None, ge=1, le=366 * 86_400, allow_inf_nan=False)
    tz: Annotated[str, AfterValidator(_known_zone)] = Field("UTC", max_length=100)
    overlap: Literal["skip", "queue_one", "queue", "allow", "cancel"] = "skip"
    catch_up: Literal["last", "none", "all"] = "last"
    window: float = Field(3600.0, ge=0, le=31 * 86_400, allow_inf_nan=False)
    spread: float = Field(0.0, ge=0, le=86_400, allow_inf_nan=False)
    start: Utc | None = None
    end: Utc | None = None
    paused: bool = False

    @model_validator(mode="after")
    def _check_one(self) -> "Ticks":
        if (self.cron is None) == (self.every is None):
            raise ValueError("a schedule has either cron or every")
        return self

    def local(self, tick: datetime) -> datetime:
        """Return a tick in the schedule's zone."""
        return tick.astimezone(ZoneInfo(self.tz))

    def changes_clock(self, day: date) -> bool:
        """Return whether clocks are set forward or back on a local day in the schedule's zone."""
        zone = ZoneInfo(self.tz)
        begin, end = (datetime.combine(each, time(), zone) for each in (day, day + timedelta(days=1)))
        # A change at midnight belongs to the day that it cuts short or prolongs: the offset before decides.
        before = (begin.astimezone(UTC) - timedelta(seconds=1)).astimezone(zone)
        last = (end.astimezone(UTC) - timedelta(seconds=1)).astimezone(zone)
        return before.utcoffset() != last.utcoffset()


class Schedule(Ticks):
    """The ticks of the schedule ``name``, and the order of each tick's job.

    ``origin``: the code that it came from, by ``jobtape schedules sync``; None for one that was made by hand.
    """

    name: ScheduleName
    order: Order
    origin: ScheduleName | None = None

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the ticks after ``moment``, in UTC, without end unless the schedule has one."""
        if self.start is not None:
            moment = max(moment, self.start - timedelta(microseconds=1))
        for tick in self._after(moment - self._later):
            if self.end is not None and tick + self._later >= self.end:
                return
            yield tick + self._later

    def due(self, after: datetime, now: datetime) -> list[datetime]:
        """Return the ticks after ``after`` that are to be submitted at ``now``, by the catch-up policy."""
        earliest = now - timedelta(seconds=max(self.window, ON_TIME))
        if self.every is not None:
            earliest = max(earliest, now - timedelta(seconds=max(self.every * MOST_CAUGHT_UP, ON_TIME)))
        found: deque[datetime] = deque(maxlen=None if self.every else MOST_CAUGHT_UP)
        for tick in self.after(max(after, earliest)):
            if tick > now:
                break
            found.append(tick)
        on_time = [tick for tick in found if tick > now - timedelta(seconds=ON_TIME)]
        if self.catch_up == "all":
            return list(found)[-max(MOST_CAUGHT_UP, len(on_time)) :]
        return on_time if on_time or self.catch_up == "none" else list(found)[-1:]

    def job_id(self, tick: datetime) -> str:
        """Return the id of the tick's job: a UUIDv7 of its time, the same whoever submits it."""
        return ids.derived_id(f"{self.name} {tick.isoformat()}", ids.first_id_at(tick))

    def order_for(self, *, skipped: bool = False) -> Order:
        """Return the order of a tick's job. It has gates, so that its work is placed once however often it is
        submitted; with an ordering key it also waits for the job of an earlier tick.
        """
        labels = {**self.order.labels, SCHEDULE_LABEL: self.name}
        if skipped:
            labels[SKIPPED_LABEL] = "overlap"
        gates = self.order.gates or Gates()
        if self.overlap != "allow" and gates.ordering_key is None:
            gates = gates.model_copy(update={"ordering_key": f"schedule {self.name}"})
        return self.order.model_copy(update={"labels": labels, "gates": gates})

    @property
    def _later(self) -> timedelta:
        """How much later the ticks are than ``cron`` or ``every`` says."""
        if not self.spread:
            return timedelta(0)
        digest = int.from_bytes(hashlib.sha256(f"spread {self.name}".encode()).digest()[:8], "big")
        return timedelta(milliseconds=digest % round(self.spread * 1000 + 1))  # job ids have milliseconds

    def _after(self, moment: datetime) -> Iterator[datetime]:
        if self.every is not None:
            n = math.floor(moment.timestamp() / self.every)
            while True:
                n += 1
                tick = datetime.fromtimestamp(round(n * self.every, 3), UTC)  # job ids have milliseconds
                if tick > moment:
                    yield tick
        assert self.cron is not None
        for tick in CronSim(self.cron, moment.astimezone(ZoneInfo(self.tz))):
            yield tick.astimezone(UTC)
