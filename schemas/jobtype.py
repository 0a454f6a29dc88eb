"""A job type: a handler's name, queue and time-out, and what its signature says of payload and result.

The parameters are the payload, checked by pydantic as FastAPI checks a body: each parameter a field, or one parameter
that is a pydantic model and then is the payload itself. A parameter annotated ``Context`` is handed in. The return
annotation is the result.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, RootModel, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from jobtape.schemas import plainjson
from jobtape.schemas.context import Context
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, ResultInvalid
from jobtape.schemas.job import JOB_TYPE_PATTERN, QUEUE_PATTERN
from jobtape.schemas.retry import RetryPolicy
from jobtape.schemas.versions import PayloadUpcaster, Versions

DEFAULT_QUEUE: Final = "default"
DEFAULT_TIMEOUT: Final = 600.0
"""Seconds; with the grace time well within RabbitMQ's acknowledgement time-out of 1800 s."""
BUILTIN_PREFIX: Final = "jobtape."
"""Job types of such names, and the queue ``BUILTIN_QUEUE``, are Jobtape's own."""
BUILTIN_QUEUE: Final = "jobtape"
SMALLEST_MEMORY: Final = 2**20


class JobType:
    """One kind of job. Calling it calls the handler itself, for tests of one's own.

    ``isolate``: the handler runs in a process of its own, which may allocate ``memory`` bytes beyond what it has before
    the job (None: no limit). ``concurrency``: at most so many at once in one worker. ``version``: which version of the
    payload the parameters are; ``upcasters``, by version, make an older payload one of the next version.

    Raises JobTypeInvalid, with what to change, when ``function`` cannot be a handler.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = DEFAULT_QUEUE,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        isolate: bool = False,
        memory: int | None = None,
        concurrency: int | None = None,
        version: int = 1,
        upcasters: Mapping[int, PayloadUpcaster] | None = None,
    ) -> None:
        if not (inspect.isfunction(function) or inspect.ismethod(function)):
            raise JobTypeInvalid(f"{function!r}: a handler must be a function, `def` or `async def`")
        where = f"{function.__module__}.{function.__qualname__}"
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise JobTypeInvalid(f"{where}: a handler returns its result; this one yields")
        if not re.fullmatch(JOB_TYPE_PATTERN, name):
            raise JobTypeInvalid(f"{where}: the job type name {name!r} must match {JOB_TYPE_PATTERN}")
        if not re.fullmatch(QUEUE_PATTERN, queue):
            raise JobTypeInvalid(f"{where}: the queue name {queue!r} must match {QUEUE_PATTERN} (no dots)")
        if not 0 < timeout < math.inf:
            raise JobTypeInvalid(f"{where}: the time-out must be a finite number of seconds above 0, not {timeout!r}")
        if memory is not None and not isolate:
            raise JobTypeInvalid(f"{where}: only a process can have a memory limit: say isolate=True as well")
        if memory is not None and memory < SMALLEST_MEMORY:
            raise JobTypeInvalid(f"{where}: memory is in bytes, at least {SMALLEST_MEMORY}, not {memory!r}")
        if concurrency is not None and concurrency < 1:
            raise JobTypeInvalid(f"{where}: concurrency is how many run at once, at least 1, not {concurrency!r}")
        self.function = function
        self.name = name
        self.isolate = isolate
        self.memory = memory
        self.concurrency = concurrency
        self._versions = Versions(version, upcasters or {}, where)
        self.queue = queue
        self.timeout = float(timeout)
        self.retry = retry or RetryPolicy()
        self.description = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        self.is_async = inspect.iscoroutinefunction(function)
        self.context_parameter: str | None = None
        self._model_parameter: str | None = None
        self.payload_model = self._read_parameters(where)
        self._result = self._read_result(where)
        try:
            self.json_schema()
        except PydanticUserError as error:
            raise JobTypeInvalid(f"{where}: what JSON cannot carry: {error}") from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The handler's own result (a coroutine when it is ``async``)."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job type {self.name} on queue {self.queue}>"

    @property
    def version(self) -> int:
        """Which version of the payload the handler takes."""
        return self._versions.newest

    def arguments(self, payload: dict[str, Any], version: int | None = None) -> dict[str, Any]:
        """The handler's keyword arguments for a payload of ``version`` (default: the newest), which is lifted first and
        left as it is. Raises PayloadInvalid with every fault.
        """
        if version is not None:
            payload = self._versions.lift(payload, version)
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
        except PydanticSerializationError as error:
            raise PayloadInvalid(f"the payload of {self.name} is no JSON: {error}") from None
        except Exception as error:
            # A validator of the author's own raised something that pydantic doesn't collect.
            raise PayloadInvalid(
                f"the payload does not fit the job type {self.name}: {type(error).__name__}: {error}"
            ) from error
        if self._model_parameter is not None:
            return {self._model_parameter: model}
        return {name: getattr(model, name) for name in type(model).model_fields}

    def payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The payload for a call with these arguments, as plain JSON. Raises PayloadInvalid."""
        try:
            payload: dict[str, Any] = _plain(self._model_for(args, kwargs).model_dump)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            raise PayloadInvalid(str(error), [dict(fault) for fault in faults]) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise PayloadInvalid(f"the payload of {self.name} cannot be made into JSON: {error}") from None
        if (reason := plainjson.fault(payload)) is not None:
            raise PayloadInvalid(f"the payload of {self.name}: {reason}")
        return payload

    def result(self, value: Any) -> Any:
        """What a handler returned as plain JSON. Raises ResultInvalid."""
        try:
            plain = _plain(partial(self._result.dump_python, self._result.validate_python(value)))
        except (ValidationError, PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            raise ResultInvalid(f"the result of {self.name} cannot be recorded: {error}") from None
        if (reason := plainjson.fault(plain)) is not None:
            raise ResultInvalid(f"the result of {self.name} cannot be recorded: {reason}")
        return plain

    def read_result(self, plain: Any) -> Any:
        """What a handler's recorded result stands for, by its return annotation. Raises ResultInvalid."""
        try:
            return self._result.validate_json(plainjson.dumps(plain))
        except (ValidationError, PydanticSerializationError) as error:
            raise ResultInvalid(
                f"the recorded result of {self.name} does not fit its return annotation: {error}"
            ) from None

    def _model_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BaseModel:
        whole = self._takes_model(args, kwargs)
        names = [str(self._model_parameter)] if whole else list(self.payload_model.model_fields)
        if len(args) > len(names):
            raise TypeError(f"it takes {len(names)} positional arguments, not {len(args)}")
        given = dict(zip(names, args, strict=False))
        if twice := [name for name in given if name in kwargs]:
            raise TypeError(f"{twice[0]!r} is given twice")
        given.update(kwargs)
        if whole and len(given) > 1:
            raise TypeError(f"beside {names[0]!r} it takes nothing")
        # By name too: a call says the parameter's name, whatever the field is called in JSON.
        return self.payload_model.model_validate(given[names[0]] if whole else given, by_name=True, by_alias=True)

    def _takes_model(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the call hands in the payload as one model, not the model's fields."""
        if self._model_parameter is None:
            return False
        return isinstance(args[0] if args else kwargs.get(self._model_parameter), BaseModel)

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
            if (
                isinstance(hint, type)
                and issubclass(hint, BaseModel)
                and not issubclass(hint, RootModel)
                and default is ...
            ):
                self._model_parameter = name
                return hint
        if odd := [name for name in fields if name.startswith("_") or hasattr(BaseModel, name)]:
            raise JobTypeInvalid(f"{where}: a parameter cannot be called {odd[0]!r} (pydantic uses it): rename it")
        try:
            return create_model(
                f"{self.name}.payload", __config__=ConfigDict(extra="forbid", validate_default=True), **fields
            )
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
        except (NameError, TypeError, SyntaxError, AttributeError) as error:
            raise JobTypeInvalid(f"{where}: its annotations cannot be read: {error}") from None


def _plain(dump: Callable[..., Any]) -> Any:
    """Plain JSON by pydantic's ``dump``, which would write NaN as null: a value lost without a word."""
    plain = dump(mode="json", by_alias=True)
    if not plainjson.finite(dump()):
        raise ValueError("NaN and Infinity are no JSON; send null or a string")
    return plain
