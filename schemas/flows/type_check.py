"""Compares what nodes refer to with what the payloads of their job types take, by the JSON Schemas of both.

A fault is found only where no value of the one schema can be one of the other; an empty list is no such value. What is
not known, such as the input of a flow, fits. Payloads are read as pydantic reads JSON, which converts some values.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from jobtape.schemas.flows.flow import FLOW, RecordedFlow, RecordedNode
from jobtape.schemas.flows.references import Location, Reference, steps_of
from jobtape.schemas.job_types.job_type import JobTypeSpec

_DEPTH: Final = 8
"""Levels that are compared: schemas may contain themselves."""
_SCALARS: Final = frozenset({"integer", "number", "boolean", "string"})
_CONVERTED: Final[dict[str, frozenset[str]]] = {
    "integer": _SCALARS,
    "number": _SCALARS,
    "boolean": _SCALARS,
    "string": frozenset({"string"}),
}
"""By the type that is wanted: the types of values that may be read as one."""


class _Unfit(Exception):
    """Why there is no value. The text says it."""


class _Schema(NamedTuple):
    """A part of the schema ``root``, whose definitions it may refer to."""

    root: Mapping[str, Any]
    part: Any

    def to(self, part: Any) -> "_Schema":
        return _Schema(self.root, part)

    def branches(self) -> list["_Schema"]:
        """Return the schemas of which a value fits at least one, without references to definitions."""
        part, seen = self.part, 0
        while isinstance(part, dict) and isinstance(at := part.get("$ref"), str) and seen < _DEPTH:
            part, seen = self.root.get("$defs", {}).get(at.rpartition("/")[2], {}), seen + 1
        if not isinstance(part, dict):
            return [_ANY]
        if isinstance(several := part.get("anyOf") or part.get("oneOf"), list):
            return [branch for each in several for branch in self.to(each).branches()]
        if isinstance(kind := part.get("type"), list):
            return [self.to({**part, "type": each}) for each in kind]
        return [self.to(part)] if "type" in part and "allOf" not in part else [_ANY]


_ANY: Final = _Schema({}, {})
_NULL: Final = _Schema({}, {"type": "null"})


def type_faults(
    nodes: Mapping[str, RecordedNode], job_types: Mapping[str, JobTypeSpec]
) -> Iterator[tuple[Location, str]]:
    """Yield the references of a flow that cannot fit: their locations in the flow, and why."""
    checker = _Checker(nodes, job_types)
    for name, node in nodes.items():
        for at, why in checker.faults(node):
            yield ("nodes", name, *at), why


class _Checker:
    def __init__(self, nodes: Mapping[str, RecordedNode], job_types: Mapping[str, JobTypeSpec]) -> None:
        self._nodes = nodes
        self._job_types = job_types
        self._results: dict[str, list[_Schema]] = {}

    def faults(self, node: RecordedNode) -> Iterator[tuple[Location, str]]:
        items = [_ANY]
        if node.items is not None:
            try:
                items = _items(self._found(node.items, items), node.items)
            except _Unfit as fault:
                yield ("map",), str(fault)
        job_type = self._job_types.get(node.order.type)
        payload = _ANY if job_type is None else _whole(job_type.json_schema()["payload"])
        if node.map is not None and not node.order.payload:
            if (why := _why_unfit(items, [payload])) is not None:
                yield ("map",), f"the items are no payloads of {node.order.type}: {why}"
            return
        for at, reference in node.references():
            try:
                found = self._found(reference, items)
                if node.on != "success" and reference.node is not None:
                    found = [*found, _NULL]  # that node may not have succeeded
                wanted = [payload]
                for step in at if job_type is not None else ():
                    wanted = _step(wanted, str(step), "the payload")
                if (why := _why_unfit(found, wanted)) is not None:
                    raise _Unfit(f"{reference.source}{_where(reference)} does not fit: {why}")
            except _Unfit as fault:
                yield ("payload", *at), str(fault)

    def _found(self, reference: Reference, items: list[_Schema]) -> list[_Schema]:
        """Return the schemas of what a reference stands for. Raises _Unfit if there is never anything."""
        if reference.of_input:
            return [_ANY]
        found = items if reference.node is None else self._result(reference.node)
        for step in steps_of(reference.path):
            found = _step(found, step, f"{reference.source}{_where(reference)}")
        return found

    def _result(self, name: str) -> list[_Schema]:
        if name not in self._nodes:
            return [_ANY]  # the payload of a signal
        if (known := self._results.get(name)) is None:
            node = self._nodes[name]
            known = [_result_of(node, self._job_types)]
            if node.map is not None:
                # Null for each job that has not succeeded fits where a value fits.
                known = [known[0].to({"type": "array", "items": known[0].part})]
            self._results[name] = known
        return known


def _result_of(node: RecordedNode, job_types: Mapping[str, JobTypeSpec]) -> _Schema:
    if node.order.type != FLOW:
        job_type = job_types.get(node.order.type)
        return _ANY if job_type is None else _whole(job_type.json_schema()["result"])
    flow = RecordedFlow.model_validate(node.order.payload)
    last: dict[str, Any] = {name: {} for name in flow.graph.last if name in flow.nodes and flow.nodes[name].map is None}
    return _whole({"type": "object", "properties": last, "additionalProperties": False})


def _whole(schema: Mapping[str, Any]) -> _Schema:
    return _Schema(schema, dict(schema))


def _step(schemas: list[_Schema], step: str, what: str) -> list[_Schema]:
    """Return the schemas of what is at one step of a JSON Pointer. Raises _Unfit if there is never anything."""
    found: list[_Schema] = []
    for schema in (branch for each in schemas for branch in each.branches()):
        part, more = schema.part, schema.part.get("additionalProperties")
        match part.get("type"):
            case None:
                return [_ANY]
            case "object" if step in part.get("properties", {}):
                found.append(schema.to(part["properties"][step]))
            case "object" if isinstance(more, dict):
                found.append(schema.to(more))
            case "object" if more or "patternProperties" in part or (more is None and not part.get("properties")):
                return [_ANY]
            case "array" if step.isascii() and step.isdigit():
                first = part.get("prefixItems", [])
                found.append(schema.to(first[int(step)] if int(step) < len(first) else part.get("items", {})))
    if not found:
        raise _Unfit(f"{what}: there is never anything at {step!r}")
    return found


def _items(schemas: list[_Schema], reference: Reference) -> list[_Schema]:
    """Return the schemas of the items of a list. Raises _Unfit if it is never one."""
    found: list[_Schema] = []
    for schema in (branch for each in schemas for branch in each.branches()):
        if "type" not in schema.part or "prefixItems" in schema.part:
            return [_ANY]
        if schema.part["type"] == "array":
            found.append(schema.to(schema.part.get("items", {})))
    if not found:
        raise _Unfit(f"{reference.source}{_where(reference)} is never a list")
    return found


def _why_unfit(found: list[_Schema], wanted: list[_Schema], depth: int = 0) -> str | None:
    """Return why no value of the schemas ``found`` can be read as one of ``wanted``; None if one may be."""
    why: str | None = None
    for have in (branch for each in found for branch in each.branches()):
        reasons = [_why_not(have, want, depth) for each in wanted for want in each.branches()]
        if None in reasons:
            return None
        # Most results are null only in an exceptional case.
        if why is None or have.part.get("type") != "null":
            why = reasons[0]
    return why


def _why_not(have: _Schema, want: _Schema, depth: int) -> str | None:
    kind, wanted = have.part.get("type"), want.part.get("type")
    if kind is None or wanted is None or depth > _DEPTH:
        return None
    if kind in _SCALARS and wanted in _SCALARS:
        # A string with a format, such as a time, may be read from a number.
        exact = wanted != "string" or want.part.keys() <= {"type", "title", "default", "description", "maxLength"}
        fits = kind in _CONVERTED[wanted] or not exact
    else:
        fits = kind == wanted
    if not fits:
        return f"it is {_named(kind)}, not {_named(wanted)}"
    if kind == "array" and "prefixItems" not in have.part and "prefixItems" not in want.part:
        why = _why_unfit([have.to(have.part.get("items", {}))], [want.to(want.part.get("items", {}))], depth + 1)
        return None if why is None else f"of each item, {why}"
    return _why_not_object(have, want, depth) if kind == "object" else None


def _why_not_object(have: _Schema, want: _Schema, depth: int) -> str | None:
    own, known = have.part.get("properties", {}), want.part.get("properties", {})
    closed = bool(own) and not have.part.get("additionalProperties") and "patternProperties" not in have.part
    for name in want.part.get("required", ()) if closed else ():
        if name not in own:
            return f"it has no field {name}"
    for name in have.part.get("required", ()):
        if name in known:
            if (why := _why_unfit([have.to(own.get(name, {}))], [want.to(known[name])], depth + 1)) is not None:
                return f"of its field {name}, {why}"
        elif known and want.part.get("additionalProperties") is False and "patternProperties" not in want.part:
            return f"it has a field {name}, which is not known there"
    return None


def _where(reference: Reference) -> str:
    return f" at {reference.path!r}" if reference.path else ""


def _named(kind: Any) -> str:
    return {"integer": "an integer", "array": "a list", "object": "an object", "null": "null"}.get(kind, f"a {kind}")
