"""The schedules that a job type declares: ``@job("report", schedule=Cron("0 9 * * MON-FRI", tz="Europe/Berlin"))``.

A declaration submits nothing. ``jobtape schedules sync`` puts the declared schedules in force.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid
from jobtape.schemas.rules.schedule import ScheduleName, Ticks

_NAME: Final = TypeAdapter(ScheduleName)


@dataclass(frozen=True, kw_only=True)
class Times(ABC):
    """What ``Cron`` and ``Every`` have in common. See ``Ticks`` for the meanings.

    ``name``, ``payload`` and ``labels``: those of a schedule in ``@job``. The name is the job type's by default, the
    payload empty.
    """

    overlap: Literal["skip", "queue_one", "queue", "allow", "cancel"] = "skip"
    catch_up: Literal["last", "none", "all"] = "last"
    window: float = 3600.0
    spread: float = 0.0
    start: datetime | None = None
    end: datetime | None = None
    name: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def ticks(self) -> Ticks:
        """Return when the schedule submits a job. Raises ValueError that says what is wrong."""
        shared = ("overlap", "catch_up", "window", "spread", "start", "end")
        try:
            return Ticks.model_validate(self._when() | {name: getattr(self, name) for name in shared})
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise ValueError(f"{where}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")) from None

    @abstractmethod
    def _when(self) -> dict[str, Any]:
        """Return the fields of ``Ticks`` that say when."""


@dataclass(frozen=True)
class Cron(Times):
    """Ticks by a cron expression of five fields (minute, hour, day of the month, month, day of the week) in the time
    zone ``tz``, such as ``Cron("0 9 * * MON-FRI", tz="Europe/Berlin")``.
    """

    expression: str
    tz: str = field(default="UTC", kw_only=True)

    def _when(self) -> dict[str, Any]:
        return {"cron": self.expression, "tz": self.tz}


@dataclass(frozen=True, kw_only=True)
class Every(Times):
    """Ticks at multiples of an interval since 1970, such as ``Every(minutes=5)``: 12:00, 12:05. The parts add up."""

    seconds: float = 0.0
    minutes: float = 0.0
    hours: float = 0.0
    days: float = 0.0

    def _when(self) -> dict[str, Any]:
        return {"every": self.seconds + 60 * self.minutes + 3600 * self.hours + 86_400 * self.days}


@dataclass(frozen=True, slots=True)
class DeclaredSchedule:
    """A schedule in the code: its name, when, and the payload and labels of its jobs."""

    name: str
    ticks: Ticks
    payload: Mapping[str, Any]
    labels: Mapping[str, str]


def declared_schedules(
    job_type: str, given: Times | Sequence[Times], accept: Callable[[dict[str, Any]], Any], where: str
) -> tuple[DeclaredSchedule, ...]:
    """Return the schedules that ``@job`` of ``job_type`` was given. ``accept`` checks a payload. ``where`` begins each
    message. Raises JobTypeInvalid, with what to change.
    """
    found: dict[str, DeclaredSchedule] = {}
    for times in [given] if isinstance(given, Times) else given:
        if not isinstance(times, Times):
            raise JobTypeInvalid(f"{where}: schedule is Cron(...), Every(...) or a list of them, not {times!r}")
        name = job_type if times.name is None else times.name
        try:
            ticks = times.ticks()
            _NAME.validate_python(name)
            accept(dict(times.payload))
        except ValidationError:
            raise JobTypeInvalid(f"{where}: {name!r} cannot be the name of a schedule: use A-Z a-z 0-9 _ . -") from None
        except PayloadInvalid as error:
            raise JobTypeInvalid(
                f"{where}: the schedule {name!r} cannot submit a job: {error}; give the arguments as "
                f"{type(times).__name__}(..., payload={{...}})"
            ) from None
        except ValueError as error:
            raise JobTypeInvalid(f"{where}: the schedule {name!r}: {error}") from None
        if name in found:
            raise JobTypeInvalid(f"{where}: two schedules are called {name!r}: give them different names, name=...")
        found[name] = DeclaredSchedule(name, ticks, dict(times.payload), dict(times.labels))
    return tuple(found.values())


def schedules_to_sync(declared: Mapping[str, Sequence[DeclaredSchedule]]) -> list[dict[str, Any]]:
    """Return the items of ``PUT /schedules`` for the schedules that job types declare, by the type's name.

    Raises JobTypeInvalid for a name that is twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for job_type, schedules in declared.items():
        for each in schedules:
            if each.name in found:
                raise JobTypeInvalid(
                    f"two schedules are called {each.name!r}, of {found[each.name]['type']} and {job_type}: give "
                    "one another name, Cron(..., name=...)"
                )
            when = each.ticks.model_dump(mode="json", exclude_none=True, exclude={"paused"})
            body = {"name": each.name, "type": job_type, "payload": each.payload, "labels": each.labels}
            found[each.name] = {**body, **when}
    return list(found.values())
