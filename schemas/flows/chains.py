"""Chains that are submitted as one job with `then`: they are flows, whose nodes have the names of their job types."""

from collections.abc import Container, Mapping
from typing import Any, Final

from jobtape.schemas.errors import PayloadInvalid, SubmissionInvalid, first_fault
from jobtape.schemas.flows.flow import FLOW, INPUT_FIELD
from jobtape.schemas.flows.references import FROM, PATH, Location
from jobtape.schemas.flows.submission import NODE_OPTIONS
from jobtape.schemas.submission import NextStep, Submission

PREVIOUS: Final = "$previous"
_OF_THE_FIRST: Final = {name: None for name in NODE_OPTIONS if name != "labels"}
"""The options of a submission that are those of its first job. Labels are those of the flow."""


def free_name(wanted: str, taken: Container[str]) -> str:
    """Return the name of a node whose job type is ``wanted``: with a number if there is such a node already."""
    name, n = wanted[:60], 1
    while name in taken:
        n += 1
        name = f"{wanted[:58]}-{n}"
    return name


class Chain:
    """The flow that ``submission``, which has next steps, becomes. Raises SubmissionInvalid for a broken reference."""

    def __init__(self, submission: Submission) -> None:
        self._names: list[str] = []
        nodes: dict[str, dict[str, Any]] = {}
        steps: list[Submission | NextStep] = [submission, *submission.then]
        for n, step in enumerate(steps):
            name = free_name("flow" if step.type == FLOW else step.type, nodes)
            options = {each: getattr(step, each) for each in NODE_OPTIONS}
            node = {"type": step.type, "payload": self._payload(n, step)}
            node |= {each: value for each, value in options.items() if value is not None}
            if n == 0:
                del node["labels"]
            else:
                node["after"] = [self._names[-1]]
            nodes[name] = node
            self._names.append(name)
        self.submission = submission.model_copy(
            update={**_OF_THE_FIRST, "type": FLOW, "payload": {"nodes": nodes}, "then": []}
        )
        """The submission of the flow."""

    def fault(self, error: PayloadInvalid) -> SubmissionInvalid:
        """Return what is wrong with the chain as a submission, for an error of its flow."""
        faults = [{**fault, "loc": self._location(fault["loc"])} for fault in error.errors]
        return _invalid(faults) if faults else SubmissionInvalid(f"not a chain: {error}", [])

    def _location(self, loc: Location) -> Location:
        if len(loc) < 2 or loc[0] != "nodes" or loc[1] not in self._names:
            return ("then",)
        n = self._names.index(str(loc[1]))
        # It comes after others because its payload refers to them.
        within = ("payload",) if loc[2:] == ("after",) else loc[2:]
        return within if n == 0 else ("then", n - 1, *within)

    def _payload(self, n: int, step: Submission | NextStep) -> dict[str, Any]:
        try:
            if step.type != FLOW:
                found: dict[str, Any] = self._referring(step.payload, ())
                return found
            if INPUT_FIELD not in step.payload:
                return step.payload
            given = self._referring(step.payload[INPUT_FIELD], (INPUT_FIELD,))
            return {**step.payload, INPUT_FIELD: given}
        except ValueError as error:
            message, at = error.args
            where = ("payload", *at) if n == 0 else ("then", n - 1, "payload", *at)
            raise _invalid([{"loc": where, "msg": message}]) from None

    def _referring(self, value: Any, at: Location) -> Any:
        """Return ``value`` with references to the step before by its name. Raises ValueError with the location."""
        if isinstance(value, Mapping) and PREVIOUS in value:
            path = value[PREVIOUS]
            if len(value) > 1 or not isinstance(path, str) or (path and not path.startswith("/")):
                raise ValueError(
                    f'a reference to the step before is {{"{PREVIOUS}": JSON Pointer}}; a pointer is empty, or it '
                    "begins with a slash",
                    at,
                )
            if not self._names:
                raise ValueError("the first job has no step before it", at)
            return {FROM: self._names[-1], PATH: path}
        if isinstance(value, Mapping):
            return {key: self._referring(child, (*at, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [self._referring(child, (*at, index)) for index, child in enumerate(value)]
        return value


def _invalid(faults: list[dict[str, Any]]) -> SubmissionInvalid:
    return SubmissionInvalid(f"not a chain: {first_fault(faults, 'then')}", faults)
