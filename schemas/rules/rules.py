"""Rules: jobs that are never run. One is in force from its submission until it is cancelled.

A pause keeps the jobs of a queue or of a job type from beginning. A limit replaces the values of the limits that have
its name and, unless its key is empty, its key. A schedule submits a job at each of its ticks.

As jobs they are on the tape and in its exports, have a history, and are shown as of any time. A rule is ``held`` while
it is in force. The projector finds the rules in the view. Workers read the pauses from the stream of cancellations.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jobtape.schemas.job import JobTypeName, WorkQueueName
from jobtape.schemas.queueing.gates import Limit, NewLimits
from jobtape.schemas.queueing.lanes import lanes_of
from jobtape.schemas.rules.schedule import Schedule

PAUSE: Final = "jobtape.pause"
LIMIT: Final = "jobtape.limit"
SCHEDULE: Final = "jobtape.schedule"


class Pause(BaseModel):
    """While it is in force, no job of the queue with all its lanes, or of the job type, begins. Running jobs go on."""

    model_config = ConfigDict(frozen=True)

    queue: WorkQueueName | None = None
    type: JobTypeName | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "Pause":
        if (self.queue is None) == (self.type is None):
            raise ValueError("a pause has either a queue or a type")
        return self


_MODELS: Final[dict[str, type[Pause] | type[Limit] | type[Schedule]]] = {
    PAUSE: Pause,
    LIMIT: Limit,
    SCHEDULE: Schedule,
}


class RulesInForce:
    """The rules that are in force, by the ids of their jobs. Of two limits or schedules with the same name, the later
    one counts.
    """

    def __init__(self) -> None:
        self._rules: dict[str, Pause | Limit | Schedule] = {}
        self.paused_queues: frozenset[str] = frozenset()
        """With their lanes, whether they exist or not."""
        self.paused_types: frozenset[str] = frozenset()
        self.limits: NewLimits = {}
        self.schedules: dict[str, Schedule] = {}
        """By the id of the rule."""

    @classmethod
    def of(cls, rules: Iterable[tuple[str, str, Mapping[str, Any]]]) -> "RulesInForce":
        """Return the rules with these ids, job types and payloads, in the order in which they were put in force."""
        found = cls()
        for rule in rules:
            found.add(*rule)
        return found

    def add(self, job_id: str, job_type: str, payload: Mapping[str, Any]) -> bool:
        """Put a rule in force. Return whether that changed anything; a rule of a later version does not."""
        model = _MODELS.get(job_type)
        if model is None or job_id in self._rules:
            return False
        try:
            self._rules[job_id] = model.model_validate(payload)
        except ValidationError:
            return False
        self._recompute()
        return True

    def remove(self, job_id: str) -> bool:
        """End a rule, if it is one. Return whether it was in force."""
        if self._rules.pop(job_id, None) is None:
            return False
        self._recompute()
        return True

    def _recompute(self) -> None:
        pauses = [rule for rule in self._rules.values() if isinstance(rule, Pause)]
        queues = [pause.queue for pause in pauses if pause.queue is not None]
        self.paused_queues = frozenset(lane for queue in queues for lane in lanes_of(queue))
        self.paused_types = frozenset(pause.type for pause in pauses if pause.type is not None)
        by_name = {rule.name: (job_id, rule) for job_id, rule in self._rules.items() if isinstance(rule, Schedule)}
        self.schedules = dict(by_name.values())
        limits = [rule for rule in self._rules.values() if isinstance(rule, Limit)]
        self.limits = {(limit.name, limit.key, limit.per is not None): limit for limit in limits}
