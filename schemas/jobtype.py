"""A job type: a handler's name, queue and time-out, and what its signature says of payload and result.

The parameters are the payload, checked by pydantic as FastAPI checks a body: each parameter a field, or one parameter
that is a pydantic model and then is the payload itself. A parameter annotated ``Context`` is handed in. The return
annotation is the result.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from jobtape.schemas import plainjson
from jobtape.schemas.context import Context
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, ResultInvalid
from jobtape.schemas.job import JOB_TYPE_PATTERN, QUEUE_PATTERN

DEFAULT_QUEUE: Final = "default"
DEFAULT_TIMEOUT: Final = 600.0
"""Seconds; with the grace time well within RabbitMQ's acknowledgement time-out of 1800 s."""


class JobType:
    """One kind of job. Calling it calls the handler itself, for tests of one's own.

    Raises JobTypeInvalid, with what to change, when ``function`` cannot be a handler.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = DEFAULT_QUEUE,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        where = f"{function.__module__}.{function.__qualname__}"
        if not re.match(JOB_TYPE_PATTERN, name):
            raise JobTypeInvalid(f"{where}: the job type name {name!r} must match {JOB_TYPE_PATTERN}")
        if not re.match(QUEUE_PATTERN, queue):
            raise JobTypeInvalid(f"{where}: the queue name {queue!r} must match {QUEUE_PATTERN} (no dots)")
        if not timeout > 0:
            raise JobTypeInvalid(f"{where}: the time-out must be more than 0 seconds, not {timeout!r}")
        self.function = function
        self.name = name
        self.queue = queue
        self.timeout = float(timeout)
        self.description = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        self.is_async = inspect.iscoroutinefunction(function)
        self.context_parameter: str | None = None
        self._model_parameter: str | None = None
        self.payload_model = self._read_parameters(where)
        self._result = self._read_result(where)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The handler's own result (a coroutine when it is ``async``)."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job type {self.name} on queue {self.queue}>"

    def arguments(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The handler's keyword arguments for a payload. Raises PayloadInvalid with every fault."""
        try:
            model = self.payload_model.model_validate_json(plainjson.dumps(payload))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            first = faults[0]
            place = ".".join(str(part) for part in first["loc"]) or "payload"
            raise PayloadInvalid(
                f"the payload does not fit the job type {self.name}: {place}: {first['msg']}",
                [dict(fault) for fault in faults],
            ) from None
        if self._model_parameter is not None:
            return {self._model_parameter: model}
        return {name: getattr(model, name) for name in type(model).model_fields}

    def payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The payload for a call with these arguments, as plain JSON. Raises PayloadInvalid."""
        try:
            if self._model_parameter is not None and args and isinstance(args[0], BaseModel):
                (model,) = args
            else:
                names = list(self.payload_model.model_fields)
                model = self.payload_model.model_validate({**dict(zip(names, args, strict=False)), **kwargs})
            payload: dict[str, Any] = model.model_dump(mode="json")
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            raise PayloadInvalid(str(error), [dict(fault) for fault in faults]) from None
        except (ValueError, TypeError) as error:
            raise PayloadInvalid(f"the payload of {self.name} cannot be made into JSON: {error}") from None
        if (reason := plainjson.fault(payload)) is not None:
            raise PayloadInvalid(f"the payload of {self.name}: {reason}")
        return payload

    def result(self, value: Any) -> Any:
        """What a handler returned as plain JSON. Raises ResultInvalid."""
        try:
            plain = self._result.dump_python(self._result.validate_python(value), mode="json")
        except (ValidationError, PydanticSerializationError, ValueError, TypeError) as error:
            raise ResultInvalid(f"the result of {self.name} cannot be recorded: {error}") from None
        if (reason := plainjson.fault(plain)) is not None:
            raise ResultInvalid(f"the result of {self.name} cannot be recorded: {reason}")
        return plain

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schemas of payload and result."""
        return {
            "payload": self.payload_model.model_json_schema(),
            "result": self._result.json_schema(mode="serialization"),
        }

    def _read_parameters(self, where: str) -> type[BaseModel]:
        hints = self._hints(where)
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise JobTypeInvalid(f"{where}: parameter {parameter.name!r} must be a plain named one")
            hint = hints.get(parameter.name, Any)
            if hint is Context:
                self.context_parameter = parameter.name
                continue
            fields[parameter.name] = (hint, ... if parameter.default is parameter.empty else parameter.default)
        if len(fields) == 1:
            ((name, (hint, default)),) = fields.items()
            if isinstance(hint, type) and issubclass(hint, BaseModel) and default is ...:
                self._model_parameter = name
                return hint
        if odd := [name for name in fields if name.startswith("_") or hasattr(BaseModel, name)]:
            raise JobTypeInvalid(f"{where}: a parameter cannot be called {odd[0]!r} (pydantic uses it): rename it")
        try:
            return create_model(f"{self.name}.payload", __config__=ConfigDict(extra="forbid"), **fields)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise JobTypeInvalid(f"{where}: pydantic cannot check these parameters: {error}") from None

    def _read_result(self, where: str) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(self._hints(where).get("return", Any))
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise JobTypeInvalid(f"{where}: pydantic cannot check the return annotation: {error}") from None

    def _hints(self, where: str) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, include_extras=True)
        except (NameError, TypeError) as error:
            raise JobTypeInvalid(f"{where}: its annotations cannot be read: {error}") from None
