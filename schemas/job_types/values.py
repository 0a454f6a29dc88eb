"""Writes payloads and results as JSON, and reads them back; what would not come back the same is refused."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json

from jobtape.schemas import plainjson
from jobtape.schemas.job_types import wire_schemas
from jobtape.schemas.job_types.difference import difference
from jobtape.schemas.job_types.wire_schemas import Returned


class NotCarried(ValueError):
    """A value that JSON cannot carry, or that would not be the same when it is read. The text says why, without it."""


class PayloadValues:
    """The payloads of one model. ``fault``: why none of them can be sent; None when that is not so."""

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
        self._may_vary = self._makes_values or wire_schemas.runs_users_code(root)
        self.made = {
            name: str(field.get("serialization_alias", name))
            for name, field in wire_schemas.fields_of(wire)
            if wire_schemas.makes_values(field)
        }
        """The fields whose default is made when the payload is accepted, with their names in it."""

    def read(self, payload: Mapping[str, Any]) -> BaseModel:
        """The model in a payload. Raises ValidationError, PydanticSerializationError, or what a validator raises."""
        model: BaseModel = self._validator.validate_json(plainjson.dumps(payload))
        return model

    def check(self, value: Any) -> BaseModel:
        """The model for Python values, its fields by their names or aliases. Raises ValidationError."""
        model: BaseModel = self._validator.validate_python(value, by_name=True, by_alias=True)
        return model

    def write(self, model: BaseModel, *, checked: bool = False) -> dict[str, Any]:
        """The payload that is read as ``model``. ``checked``: ``check`` has made it of values just now. Raises
        NotCarried.
        """
        read = None if checked and self._exact else self.read
        payload: dict[str, Any] = _carried(model, [_dump(writer, round_trip=True) for writer in self._writers], read)
        return payload

    def accept(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What is to be recorded of a payload that somebody sends: itself, or with the values that its defaults have
        now, if another reading might make others. Raises as ``read`` does, and NotCarried.
        """
        model = self.read(payload)
        if not self._may_vary:
            return payload
        try:
            return self.write(model)
        except NotCarried:
            if self._makes_values or difference(model, self.read(payload)) is not None:
                raise
            return payload


class ResultValues:
    """The results of one return annotation."""

    def __init__(self, annotation: Any) -> None:
        root = wire_schemas.root_of(annotation)
        wire = wire_schemas.result_schema(root)
        plain = wire_schemas.result_schema(root, plainly=True)
        self._returned = wire_schemas.validator(wire_schemas.returned_schema(root))
        self._reader = wire_schemas.validator(wire)
        self._writers = [wire_schemas.serializer(wire), *([wire_schemas.serializer(plain)] if plain != wire else ())]
        self.json_schema = wire_schemas.WireJsonSchema().generate(wire, "serialization")

    def write(self, value: Any) -> Any:
        """What a handler returned as JSON. Raises ValidationError and NotCarried."""
        returned = Returned()
        checked = self._returned.validate_python(value)

        def read(plain: Any) -> Any:
            # What is of another class than the annotation says is recorded as that, and cannot be read as that.
            return checked if returned.open else self._reader.validate_json(plainjson.dumps(plain))

        return _carried(checked, [_dump(writer, context=returned) for writer in self._writers], read)

    def read(self, plain: Any) -> Any:
        """What a recorded result stands for. Of a value of a derived class the class of the annotation is made, which
        has what else was recorded as extra attributes; without such a class it is the JSON. Raises ValidationError.
        """
        text = plainjson.dumps(plain)
        try:
            value = self._reader.validate_json(text)
            if self._holds(value, plain):
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

    def _holds(self, value: Any, plain: Any) -> bool:
        for writer in self._writers:
            try:
                if _dump(writer)(value) == plain:
                    return True
            except (PydanticSerializationError, ValueError, TypeError):
                continue
        return False


def _dump(writer: Any, *, context: Returned | None = None, round_trip: bool = False) -> Callable[[Any], Any]:
    def dump(value: Any) -> Any:
        # By way of the text: a config says more about that than about plain values.
        text = writer.to_json(value, by_alias=True, round_trip=round_trip, warnings=False, context=context)
        return from_json(text, allow_inf_nan=True)

    return dump


def _carried(value: Any, writers: list[Callable[[Any], Any]], read: Callable[[Any], Any] | None) -> Any:
    """What the first of ``writers`` makes of the value that ``read`` makes the same value of. Raises NotCarried with
    the first one's reason.
    """
    first: NotCarried | None = None
    for write in writers:
        try:
            return _checked(value, write, read)
        except NotCarried as error:
            first = first or error
    assert first is not None
    raise first


def _checked(value: Any, write: Callable[[Any], Any], read: Callable[[Any], Any] | None) -> Any:
    try:
        plain = write(value)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotCarried(f"it cannot be made into JSON: {error}") from None
    if (reason := plainjson.fault(plain)) is not None:
        raise NotCarried(reason)
    if read is None:
        return plain
    try:
        arrived = read(plain)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in fault["loc"])
        raise NotCarried(
            f"what is written of it cannot be read back: {f'{place}: ' if place else ''}{fault['msg']}"
        ) from None
    except Exception as error:
        raise NotCarried(f"what is written of it cannot be read back: {type(error).__name__}") from error
    if (reason := difference(value, arrived)) is not None:
        raise NotCarried(f"it would not be the same when it is read: {reason}")
    return plain
