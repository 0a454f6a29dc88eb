"""Writes payloads and results as JSON and reads them back. A value that would change on the way is refused."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json

from jobtape.schemas import plainjson
from jobtape.schemas.errors import PayloadInvalid, faults_of, first_fault
from jobtape.schemas.job_types import wire_schemas
from jobtape.schemas.job_types.difference import difference
from jobtape.schemas.job_types.secrets import SecretFields
from jobtape.schemas.job_types.wire_schemas import ResultNotes


class NotStorable(ValueError):
    """JSON cannot carry the value, or it would change. The text gives the reason, but not the value."""


class PayloadValues:
    """Reads and writes the payloads of one model. ``fault``: why none of them can be sent, or None."""

    def __init__(self, model: type[BaseModel]) -> None:
        root = wire_schemas.root_of(model)
        wire = wire_schemas.payload_schema(root)
        plain = wire_schemas.payload_schema(root, plainly=True)
        self.fault = wire_schemas.fault(root)
        self.json_schema = wire_schemas.WireJsonSchema().generate(wire)
        self._validator = wire_schemas.validator(wire)
        self._writers = [*([wire_schemas.serializer(plain)] if plain != wire else ()), wire_schemas.serializer(wire)]
        self._exact = wire_schemas.is_exact(wire)
        self._makes_values = wire_schemas.makes_values(root)
        # A secret may be sent under any alias of its field, and is found under the first one.
        self._has_secrets = SecretFields(self.json_schema).any
        self._may_vary = self._makes_values or self._has_secrets or wire_schemas.runs_users_code(root)
        self.made = {
            name: str(field.get("serialization_alias", name))
            for name, field in wire_schemas.fields_of(wire)
            if wire_schemas.makes_values(field)
        }
        """The fields whose default is computed when the payload is accepted, with their names in the payload."""

    def read(self, payload: Mapping[str, Any]) -> BaseModel:
        """Return the model of a payload. Raises ValidationError, PydanticSerializationError, or an error of a user's
        validator.
        """
        model: BaseModel = self._validator.validate_json(plainjson.dumps(payload))
        return model

    def check(self, value: Any) -> BaseModel:
        """Return the model of Python values, with fields by name or alias. Raises ValidationError."""
        model: BaseModel = self._validator.validate_python(value, by_name=True, by_alias=True)
        return model

    def write(self, model: BaseModel, *, checked: bool = False) -> dict[str, Any]:
        """Return the payload of ``model``. ``checked``: ``check`` has just made the model. Raises NotStorable."""
        read = None if checked and self._exact else self.read
        payload: dict[str, Any] = _write(model, [_dump(writer, round_trip=True) for writer in self._writers], read)
        return payload

    def accept(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the payload to record for one that was sent: itself, or with the defaults computed now if they may
        differ at the next reading. Raises as ``read`` does, and NotStorable.
        """
        model = self.read(payload)
        if not self._may_vary:
            return payload
        try:
            return self.write(model)
        except NotStorable:
            if self._makes_values or self._has_secrets or difference(model, self.read(payload)) is not None:
                raise
            return payload


class PageValues:
    """Reads pages of the list ``annotation``, whose items the parameter ``name`` gets."""

    def __init__(self, annotation: Any, name: str) -> None:
        self._name = name
        self._validator = wire_schemas.validator(wire_schemas.payload_schema(wire_schemas.root_of(annotation)))

    def read(self, page: list[Any]) -> list[Any]:
        """Return the items of a page, converted from JSON as those of a payload. Raises PayloadInvalid."""
        try:
            found: list[Any] = self._validator.validate_json(plainjson.dumps(page))
        except ValidationError as error:
            faults = faults_of(error)
            raise PayloadInvalid(f"a result for {self._name} does not fit: {first_fault(faults)}", faults) from None
        return found


class ResultValues:
    """Reads and writes the results of one return annotation."""

    def __init__(self, annotation: Any) -> None:
        root = wire_schemas.root_of(annotation)
        wire = wire_schemas.result_schema(root)
        plain = wire_schemas.result_schema(root, plainly=True)
        self._checker = wire_schemas.validator(wire_schemas.returned_schema(root))
        self._reader = wire_schemas.validator(wire)
        self._writers = [wire_schemas.serializer(wire), *([wire_schemas.serializer(plain)] if plain != wire else ())]
        self.json_schema = wire_schemas.WireJsonSchema().generate(wire, "serialization")

    def write(self, value: Any) -> Any:
        """Return the JSON of a result. Raises ValidationError and NotStorable."""
        notes = ResultNotes()
        checked = self._checker.validate_python(value)

        def read(plain: Any) -> Any:
            # A value of a subclass is recorded whole, and cannot be read back as that class.
            return checked if notes.by_own_class else self._reader.validate_json(plainjson.dumps(plain))

        return _write(checked, [_dump(writer, context=notes) for writer in self._writers], read)

    def read(self, plain: Any) -> Any:
        """Return the value of a recorded result. A result of a subclass becomes an object of the annotation's class
        with the other fields as extra attributes, or plain JSON if the annotation is no class. Raises
        ValidationError.
        """
        text = plainjson.dumps(plain)
        try:
            value = self._reader.validate_json(text)
            if self._is_written_as(value, plain):
                return value
        except ValidationError as error:
            try:
                return self._reader.validate_json(text, extra="allow")
            except ValidationError:
                raise error from None
        try:
            return self._reader.validate_json(text, extra="allow")
        except ValidationError:
            return value

    def _is_written_as(self, value: Any, plain: Any) -> bool:
        for writer in self._writers:
            try:
                if _dump(writer)(value) == plain:
                    return True
            except (PydanticSerializationError, ValueError, TypeError):
                continue
        return False


def _dump(writer: Any, *, context: ResultNotes | None = None, round_trip: bool = False) -> Callable[[Any], Any]:
    def dump(value: Any) -> Any:
        # Through JSON text, because some settings of a config apply to text only.
        text = writer.to_json(value, by_alias=True, round_trip=round_trip, warnings=False, context=context)
        return from_json(text, allow_inf_nan=True)

    return dump


def _write(value: Any, writers: list[Callable[[Any], Any]], read: Callable[[Any], Any] | None) -> Any:
    """Return the output of the first of ``writers`` that ``read`` turns back into ``value``. Raises NotStorable with
    the reason of the first writer.
    """
    first: NotStorable | None = None
    for write in writers:
        try:
            return _checked(value, write, read)
        except NotStorable as error:
            first = first or error
    assert first is not None
    raise first


def _checked(value: Any, write: Callable[[Any], Any], read: Callable[[Any], Any] | None) -> Any:
    try:
        plain = write(value)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotStorable(f"it cannot be made into JSON: {error}") from None
    if (reason := plainjson.fault(plain)) is not None:
        raise NotStorable(reason)
    if read is None:
        return plain
    try:
        arrived = read(plain)
    except ValidationError as error:
        raise NotStorable(f"its JSON cannot be read back: {first_fault(faults_of(error))}") from None
    except Exception as error:
        raise NotStorable(f"its JSON cannot be read back: {type(error).__name__}") from error
    if (reason := difference(value, arrived)) is not None:
        raise NotStorable(f"it would change: {reason}")
    return plain
