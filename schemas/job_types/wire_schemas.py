"""Derives the core schemas that write and read payloads and results from those of the users' types.

A payload is written as its type reads it: with the validation aliases, which its JSON Schema has too, without computed
fields, and with excluded fields and secrets. A result is written as its type writes it: with the serialization aliases
and with computed fields, and it is read by these names. A result of a subclass is written by the subclass.
"""

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import date, time
from functools import lru_cache, partial
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator, core_schema, to_jsonable_python

from jobtape.schemas.job_types.core_schemas import (
    CONFIGURED,
    FUNCTIONS,
    Node,
    derive,
    function_of,
    holds_secret,
    is_secret,
    is_users,
    masks,
    nodes,
    unmasked,
)

_FIELDS: Final = ("model-field", "dataclass-field", "typed-dict-field")
_FIELD_SETS: Final = ("model-fields", "dataclass-args", "typed-dict")
_SCALARS: Final = ("int", "float", "str", "bool", "none", "uuid", "date", "datetime", "time")
_NATIVE: Final = (
    *_SCALARS,
    *("bytes", "decimal", "timedelta", "list", "set", "frozenset", "tuple", "dict", "enum", "literal", "nullable"),
    *("default", "union", "tagged-union", "model", "dataclass", "typed-dict", "definition-ref"),
)
"""Kinds that pydantic can write without the user's serializer."""
_EXTRA: Final = "extra_fields_behavior"
_CONFIG: Final = CoreConfig(ser_json_inf_nan="constants")
_READ_AS: Final = "jobtape_read_as"
"""The key in a field's metadata for its original validation alias."""
_PURE_FACTORIES: Final = (list, dict, set, frozenset, tuple)


def payload_schema(root: Node, *, plainly: bool = False) -> Node:
    """Return the schema that writes and reads payloads. Every model refuses unknown fields unless its config says
    otherwise. ``plainly``: without users' serializers where pydantic does not need them.
    """

    def change(node: Node, config: Node) -> Node:
        kind = node.get("type")
        if kind in _FIELDS:
            node.pop("serialization_exclude", None)
            node.pop("serialization_exclude_if", None)
            if node.get("init") is False:  # the class computes it, and takes no argument for it
                node["serialization_exclude"] = True
        if kind in _FIELD_SETS:
            for name, field in _named(node["fields"]):
                _name_as_read(name, field, config)
            node["computed_fields"] = []
            hidden = (None, "ignore") if kind == "typed-dict" else (None,)
            if _EXTRA not in config and node.get("extra_behavior") in hidden:
                node["extra_behavior"] = "forbid"
        if kind in CONFIGURED and (kind == "model" or node.get("config")):
            # As in the JSON Schema: durations are text, and bytes are written as they are read.
            written = {"ser_json_bytes": config.get("val_json_bytes", "utf8"), "ser_json_timedelta": "iso8601"}
            node["config"] = {**node.get("config", {}), **written}
            node["config"].pop("ser_json_temporal", None)
        return _common(node, plainly)

    return derive(root, change)


def result_schema(root: Node, *, plainly: bool = False) -> Node:
    """Return the schema that writes and reads results. ``plainly`` is as in ``payload_schema``."""
    definitions = {node["ref"]: node for node in nodes(root) if "ref" in node}

    def change(node: Node, config: Node) -> Node:
        kind = node.get("type")
        if kind in _FIELDS:
            node["metadata"] = {**node.get("metadata", {}), _READ_AS: node.pop("validation_alias", None)}
            if (alias := node.get("serialization_alias")) is not None:
                node["validation_alias"] = alias
            node.pop("serialization_exclude", None)
            node.pop("serialization_exclude_if", None)
        if kind == "typed-dict" and node.get("extra_behavior") == "ignore" and _EXTRA not in config:
            node["extra_behavior"] = "allow"  # a subclass of a TypedDict has more keys
        elif kind in _FIELD_SETS and node.get("computed_fields") and config.get(_EXTRA) == "forbid":
            node["extra_behavior"] = "ignore"
        if kind in CONFIGURED and (kind == "model" or node.get("config")):
            written = {"val_json_bytes": config.get("ser_json_bytes", "utf8")}
            if (unit := config.get("ser_json_temporal")) in ("seconds", "milliseconds"):
                written["val_temporal_unit"] = unit
            node["config"] = {**node.get("config", {}), **written}
        if kind == "json":
            inner = dict(node.get("schema", {"type": "any"}))
            node = {**inner, **({"ref": node["ref"]} if "ref" in node else {})}
        if kind == "tagged-union":
            node["discriminator"] = _written_discriminator(node, definitions)
        node = _common(node, plainly)
        match node.get("type"):
            case "float" if config.get("ser_json_inf_nan") == "strings" and "serialization" not in node:
                # pydantic does not apply the setting to values that a function has written.
                node["serialization"] = {"type": "function-plain", "function": _infinite_text}
            case "any" if "serialization" not in node:
                node["serialization"] = _ANY
            case "model-fields" | "typed-dict" if "allow" in (node.get("extra_behavior"), config.get(_EXTRA)):
                node.setdefault("extras_schema", {"type": "any", "serialization": _ANY})
            case "list" | "set" | "frozenset":
                node.setdefault("items_schema", {"type": "any", "serialization": _ANY})
            case "dict":
                node.setdefault("values_schema", {"type": "any", "serialization": _ANY})
            case "model" if node["cls"] is BaseModel or getattr(node["cls"], "__abstractmethods__", None):
                # There are no instances of it, so the result is read as plain JSON.
                node = {"type": "any", "serialization": _ANY, **({"ref": node["ref"]} if "ref" in node else {})}
            case "model" | "dataclass":
                inner = {key: value for key, value in node.items() if key != "ref"}
                node["serialization"] = {
                    "type": "function-wrap",
                    "function": partial(_by_its_class, node["cls"]),
                    "info_arg": True,
                    "schema": inner,
                }
        return node

    return derive(root, change)


def returned_schema(root: Node) -> Node:
    """Return the schema that checks a returned value. It keeps unknown keys of a TypedDict."""

    def change(node: Node, config: Node) -> Node:
        if node.get("type") == "typed-dict" and node.get("extra_behavior") == "ignore" and _EXTRA not in config:
            node["extra_behavior"] = "allow"
        return node

    return derive(root, change)


def root_of(annotation: Any) -> Node:
    """Return the core schema of a type. Raises PydanticSchemaGenerationError or PydanticUserError if there is none."""
    return dict(TypeAdapter(annotation).core_schema)


def validator(schema: Node) -> SchemaValidator:
    """Build it from ``schema`` alone (see ``core_schemas``)."""
    return SchemaValidator(schema, _CONFIG, False)


def serializer(schema: Node) -> SchemaSerializer:
    """Build it from ``schema`` alone (see ``core_schemas``)."""
    return SchemaSerializer(schema, _CONFIG, False)


class WireJsonSchema(GenerateJsonSchema):
    """Makes JSON Schemas of derived core schemas, with their rule for unknown fields, and without the defaults of
    secrets. Marks all secrets as pydantic marks SecretStr: also those of the type ``Secret``.
    """

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        made = super().generate_inner(schema)
        return {**made, "format": "password", "writeOnly": True} if is_secret(schema) else made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner: Any = schema["schema"]
        return self.generate_inner(inner) if holds_secret(inner) else super().default_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        inner: Any = schema
        while inner.get("type") != "model-fields" and isinstance(inner.get("schema"), dict):
            inner = inner["schema"]
        if inner.get("extra_behavior") == "forbid":
            found.setdefault("additionalProperties", False)
        return found


def is_exact(root: Node) -> bool:
    """Return whether every checked payload of this derived schema arrives unchanged, so that it need not be
    compared.
    """
    fields, config = root.get("schema", {}), root.get("config", {})
    if root.get("type") != "model" or fields.get("type") != "model-fields" or "serialization" in root:
        return False
    if root.get("custom_init") or root.get("post_init") or config.get("validate_by_name"):
        return False
    if config.get(_EXTRA, "forbid") != "forbid":
        return False
    named = fields["fields"].items()
    if len({field.get("serialization_alias", name) for name, field in named}) < len(named):
        return False
    return all(isinstance(field.get("validation_alias", ""), str) and _is_plain(field) for _, field in named)


def fields_of(root: Node) -> list[tuple[str, Node]]:
    """Return the names and fields of a model."""
    return _fields_of(root, {node["ref"]: node for node in nodes(root) if "ref" in node})


def makes_values(root: Node) -> bool:
    """Return whether a default differs in each process or attempt: it comes from a factory, or is a time or an id."""
    for node in nodes(root):
        if node.get("type") == "default":
            if "default_factory" in node and node["default_factory"] not in _PURE_FACTORIES:
                return True
            if isinstance(node.get("default"), date | time | UUID):
                return True
    return False


def runs_users_code(root: Node) -> bool:
    """Return whether reading a value runs validators or constructors of users."""
    return any(
        (node.get("type") in FUNCTIONS and is_users(function_of(node)))
        or (node.get("type") in ("model", "dataclass") and bool(node.get("post_init") or node.get("custom_init")))
        for node in nodes(root)
    )


def fault(root: Node) -> str | None:
    """Return why no payload of this schema can be written, or None if some can."""
    for node in nodes(root):
        if node.get("init_only") and node["schema"].get("type") != "default":
            return (
                f"the dataclass does not keep the value of the InitVar {node['name']!r}, so it cannot be sent: give it "
                "a default, or make it a field"
            )
    return None


class ResultNotes:
    """Facts about a result, collected while it is written."""

    def __init__(self) -> None:
        self.by_own_class = False
        """Whether some value was written by its own class, because the annotation does not define it."""


def to_plain(value: Any, notes: ResultNotes | None = None) -> Any:
    """Return the JSON of ``value`` by its own type, not by an annotation. Raises PydanticSerializationError."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if notes is not None and not (kind in (list, tuple) or (kind is dict and all(type(key) is str for key in value))):
        notes.by_own_class = True
    if isinstance(value, dict):
        return {_key(key): to_plain(item, notes) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item, notes) for item in value]
    if isinstance(value, BaseModel) or is_dataclass(kind):
        return _write(_writer_of(kind), value, notes)
    if hasattr(value, "get_secret_value"):
        return to_plain(value.get_secret_value(), notes)
    return to_jsonable_python(value, by_alias=True, inf_nan_mode="constants", fallback=None)


def _key(key: Any) -> Any:
    return key if type(key) is str else next(iter(to_jsonable_python({key: None})))


def _write(writer: SchemaSerializer, value: Any, notes: ResultNotes | None) -> Any:
    return writer.to_python(value, mode="json", by_alias=True, warnings=False, context=notes)


def _make_writer(kind: type) -> SchemaSerializer:
    return serializer(result_schema(root_of(kind)))


_writer_of: Final[Callable[[type], SchemaSerializer]] = lru_cache(maxsize=1024)(_make_writer)


def _by_its_class(declared: type, value: Any, handler: Callable[[Any], Any], info: Any) -> Any:
    if type(value) is declared or not isinstance(value, declared):
        return handler(value)
    if isinstance(info.context, ResultNotes):
        info.context.by_own_class = True
    return _write(_writer_of(type(value)), value, info.context)


def _infinite_text(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _by_its_type(value: Any, info: Any) -> Any:
    return to_plain(value, info.context)


_ANY: Final[Node] = {"type": "function-plain", "function": _by_its_type, "info_arg": True}


def _common(node: Node, plainly: bool) -> Node:
    """The changes for payloads and results alike."""
    if node.get("type") in CONFIGURED and (node["type"] == "model" or node.get("config")):
        config = dict(node.get("config", {}))
        if config.get("ser_json_inf_nan") != "strings":
            config["ser_json_inf_nan"] = "constants"  # null would lose the value silently
        config.pop("validate_by_alias", None)
        node["config"] = config
    if masks(node):
        node["serialization"] = unmasked(node)
    elif plainly and _is_left_out(node):
        del node["serialization"]
    return node


def _is_left_out(node: Node) -> bool:
    serialization = node.get("serialization")
    if not isinstance(serialization, dict) or not serialization["type"].startswith("function-"):
        return False
    inner = node
    while inner.get("type") in ("function-before", "function-after", "function-wrap") and "schema" in inner:
        inner = inner["schema"]
    return inner.get("type") in _NATIVE and is_users(function_of(serialization))


def _named(fields: Any) -> list[tuple[str, Node]]:
    """Names and fields: models and TypedDicts have a dict of fields, dataclasses a list of fields with names."""
    return list(fields.items()) if isinstance(fields, dict) else [(field["name"], field) for field in fields]


def _name_as_read(name: str, field: Node, config: Node) -> None:
    """Write a field by a name that it is read by. One that has only paths is also read by its own name, as in its JSON
    Schema.
    """
    alias = field.get("validation_alias")
    if config.get("validate_by_alias") is False:
        field.pop("validation_alias", None)
        alias = None
    field.pop("serialization_alias", None)
    if isinstance(alias, str):
        field["serialization_alias"] = alias
    elif isinstance(alias, list):
        paths = alias if alias and isinstance(alias[0], list) else [alias]
        names = [path[0] for path in paths if len(path) == 1]
        if names:
            field["serialization_alias"] = names[0]
        else:
            field["validation_alias"] = [*paths, [name]]


def _written_discriminator(union: Node, definitions: dict[str, Node]) -> Any:
    """Return the discriminator of a union by the names that its members are written by."""
    discriminator = union["discriminator"]
    if callable(discriminator):
        return discriminator
    paths = [[discriminator]] if isinstance(discriminator, str) else list(discriminator)
    wanted = {path[0] for path in paths if len(path) == 1}
    found: list[list[Any]] = []
    for choice in union["choices"].values():
        for name, field in _fields_of(choice, definitions):
            read = field.get("metadata", {}).get(_READ_AS, field.get("validation_alias")) or name
            names = {read} if isinstance(read, str) else {path if isinstance(path, str) else path[0] for path in read}
            written = [field.get("serialization_alias", name)]
            if names & wanted and written not in found:
                found.append(written)
    return [*found, *(path for path in paths if path not in found)]


def _fields_of(choice: Any, definitions: dict[str, Node]) -> list[tuple[str, Node]]:
    while isinstance(choice, dict):
        if choice.get("type") == "definition-ref":
            choice = definitions.get(choice["schema_ref"])
        elif choice.get("type") in _FIELD_SETS:
            return _named(choice["fields"])
        elif choice.get("type") == "tagged-union":
            return [each for inner in choice["choices"].values() for each in _fields_of(inner, definitions)]
        else:
            choice = choice.get("schema")
    return []


def _is_plain(node: Node) -> bool:
    if "serialization" in node:
        return False
    match node.get("type"):
        case "model-field" | "default" | "nullable":
            return _is_plain(node["schema"])
        case "list" | "set" | "frozenset":
            return "items_schema" in node and _is_plain(node["items_schema"])
        case "dict":
            keys = node.get("keys_schema", {})
            return keys.get("type") == "str" and "values_schema" in node and _is_plain(node["values_schema"])
        case kind:
            return kind in _SCALARS
