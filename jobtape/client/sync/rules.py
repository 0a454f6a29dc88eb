"""``SyncClient.limits`` and ``SyncClient.schedules``."""

import builtins
from datetime import datetime
from typing import Any

from jobtape.client.rules import Backfilled, ChangedLimit, Limits, ScheduleInfo, Schedules, Tick
from jobtape.client.sync.portal import Portal
from jobtape.jobs import JobType
from jobtape.schemas.job import Job
from jobtape.schemas.job_types.schedules import Times
from jobtape.schemas.submission import Options


class SyncLimits:
    """See ``Limits``."""

    def __init__(self, limits: Limits, portal: Portal) -> None:
        self._limits = limits
        self._portal = portal

    def list(self) -> builtins.list[ChangedLimit]:
        """See ``Limits.list``."""
        return self._portal.call(self._limits.list)

    def put(self, name: str, at_most: int, *, per: float | None = None, key: str = "") -> Job:
        """See ``Limits.put``."""
        return self._portal.call(self._limits.put, name, at_most, per=per, key=key)

    def delete(self, name: str, *, key: str = "") -> bool:
        """See ``Limits.delete``."""
        return self._portal.call(self._limits.delete, name, key=key)


class SyncSchedules:
    """See ``Schedules``."""

    def __init__(self, schedules: Schedules, portal: Portal) -> None:
        self._schedules = schedules
        self._portal = portal

    def list(self) -> builtins.list[ScheduleInfo]:
        """See ``Schedules.list``."""
        return self._portal.call(self._schedules.list)

    def get(self, name: str) -> ScheduleInfo:
        """See ``Schedules.get``."""
        return self._portal.call(self._schedules.get, name)

    def put(self, name: str, when: Times, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """See ``Schedules.put``."""
        return self.put_with(Options(), name, when, job_type, *args, **kwargs)

    def put_with(
        self, options: Options, name: str, when: Times, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any
    ) -> Job:
        """See ``Schedules.put_with``."""
        return self._portal.call(self._schedules.put_with, options, name, when, job_type, *args, **kwargs)

    def replace(
        self, known: ScheduleInfo, when: Times, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any
    ) -> Job:
        """See ``Schedules.replace``."""
        return self._portal.call(self._schedules.replace, known, when, job_type, *args, **kwargs)

    def delete(self, name: str) -> None:
        """See ``Schedules.delete``."""
        self._portal.call(self._schedules.delete, name)

    def pause(self, name: str) -> Job:
        """See ``Schedules.pause``."""
        return self._portal.call(self._schedules.pause, name)

    def resume(self, name: str) -> Job:
        """See ``Schedules.resume``."""
        return self._portal.call(self._schedules.resume, name)

    def trigger(self, name: str) -> Job:
        """See ``Schedules.trigger``."""
        return self._portal.call(self._schedules.trigger, name)

    def ticks(self, name: str, n: int = 10) -> builtins.list[Tick]:
        """See ``Schedules.ticks``."""
        return self._portal.call(self._schedules.ticks, name, n)

    def backfill(self, name: str, since: datetime, until: datetime | None = None, *, limit: int = 100) -> Backfilled:
        """See ``Schedules.backfill``."""
        return self._portal.call(self._schedules.backfill, name, since, until, limit=limit)
