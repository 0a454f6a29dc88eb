"""A job type: a handler's name, queue and time-out, and what its signature says of payload and result.

The parameters are the payload, checked by pydantic as FastAPI checks a body: each parameter a field, or one parameter
that is a pydantic model and then is the payload itself. A parameter annotated ``Context`` is handed in. The return
annotation is the result.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, ResultInvalid
from jobtape.schemas.job import JOB_TYPE_PATTERN, QUEUE_PATTERN
from jobtape.schemas.job_types import declared
from jobtape.schemas.job_types.payload_versions import PayloadUpcaster, PayloadVersions
from jobtape.schemas.job_types.signature import Signature, handler_of, where_of
from jobtape.schemas.job_types.values import NotCarried, PayloadValues, ResultValues
from jobtape.schemas.retry import RetryPolicy

R = TypeVar("R")
DEFAULT_QUEUE: Final = "default"
DEFAULT_TIMEOUT: Final = 600.0
"""Seconds; with the grace time well within RabbitMQ's acknowledgement time-out of 1800 s."""
BUILTIN_PREFIX: Final = "jobtape."
"""Job types of such names, and the queue ``BUILTIN_QUEUE``, are Jobtape's own."""
BUILTIN_QUEUE: Final = "jobtape"
SMALLEST_MEMORY: Final = 2**20


class JobTypeSpec:
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
        self._called, self.function, self.is_async = handler_of(function)
        function = self._called
        where = where_of(function)
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
        self.name = name
        self.isolate = isolate
        self.memory = memory
        self.concurrency = concurrency
        self._versions = PayloadVersions(version, upcasters or {}, where)
        self.queue = queue
        self.timeout = float(timeout)
        self.retry = retry or RetryPolicy()
        self.description = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        signature = Signature(function, name, where)
        self.context_parameter = signature.context_parameter
        self.payload_model = signature.model
        self._model_parameter = signature.model_parameter
        self._payloads, self._results = self._values(signature, where)
        declared.note(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The handler's own result (a coroutine when it is ``async``)."""
        return self._called(*args, **kwargs)

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
        model = self._read(payload, self._payloads.read)
        if self._model_parameter is not None:
            return {self._model_parameter: model}
        return {name: getattr(model, name) for name in type(model).model_fields}

    def accept(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload to record for one that was sent. Where a default is made by a factory, or validators of the
        author's own run, it has the values that these make now, so that every attempt has the same. Raises
        PayloadInvalid with every fault.
        """
        return self._read(payload, self._payloads.accept)

    def payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The payload for a call with these arguments, as plain JSON. Raises PayloadInvalid, also when the handler
        would not be handed the same values.
        """
        return self._payload(args, kwargs)[0]

    def payload_to_send(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As ``payload``, without the defaults that ``accept`` makes: so the same call is the same submission when it
        is repeated.
        """
        payload, made = self._payload(args, kwargs)
        return {name: value for name, value in payload.items() if name not in made} if made else payload

    def result(self, value: Any) -> Any:
        """What a handler returned as plain JSON. Raises ResultInvalid, also when it could not be read back."""
        if inspect.iscoroutine(value):
            value.close()
            raise ResultInvalid(
                f"the handler of {self.name} returned a coroutine, which nobody awaits: make it an `async def`, and "
                "the wrappers of its decorators too, or give them functools.wraps"
            )
        try:
            return self._results.write(value)
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            raise ResultInvalid(f"the result of {self.name} cannot be recorded: {error}") from None

    def read_result(self, plain: Any) -> Any:
        """What a handler's recorded result stands for, by its return annotation. What was returned of a derived class
        is one of the annotation's class, with what else was recorded as extra attributes; where the annotation is no
        class to make one of, it is plain JSON. Raises ResultInvalid.
        """
        try:
            return self._results.read(plain)
        except (ValidationError, PydanticSerializationError) as error:
            raise ResultInvalid(
                f"the recorded result of {self.name} does not fit its return annotation: {error}"
            ) from None

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schemas of payload and result."""
        return {"payload": self._payloads.json_schema, "result": self._results.json_schema}

    def _read(self, payload: dict[str, Any], read: Callable[[dict[str, Any]], R]) -> R:
        try:
            return read(payload)
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
        except NotCarried as error:
            raise self._not_carried(error) from None
        except Exception as error:
            # A validator of the author's own raised something that pydantic doesn't collect.
            raise PayloadInvalid(
                f"the payload does not fit the job type {self.name}: {type(error).__name__}: {error}"
            ) from error

    def _payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """The payload, and the names in it whose value is a default that was made for it."""
        try:
            model, whole = self._model_for(args, kwargs)
            payload = self._payloads.write(model, checked=not whole)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            raise PayloadInvalid(str(error), [dict(fault) for fault in faults]) from None
        except NotCarried as error:
            raise self._not_carried(error) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise PayloadInvalid(f"the payload of {self.name} cannot be made into JSON: {error}") from None
        unset = () if whole else self._payloads.made.keys() - model.model_fields_set
        return payload, {self._payloads.made[name] for name in unset}

    def _not_carried(self, error: NotCarried) -> PayloadInvalid:
        return PayloadInvalid(
            f"the payload of {self.name} would not reach the handler as it is: {error}. Annotate the parameter with "
            "the class that is handed in, or let its class read what it writes",
            [{"loc": (), "msg": str(error), "type": "not_carried"}],
        )

    def _model_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[BaseModel, bool]:
        """The payload's model, and whether the call hands it in."""
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
        return self._payloads.check(given[names[0]] if whole else given), whole

    def _takes_model(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the call hands in the payload as one model, not the model's fields."""
        if self._model_parameter is None:
            return False
        return isinstance(args[0] if args else kwargs.get(self._model_parameter), BaseModel)

    def _values(self, signature: Signature, where: str) -> tuple[PayloadValues, ResultValues]:
        try:
            payloads = PayloadValues(signature.model)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise JobTypeInvalid(f"{where}: no JSON can carry these parameters: {error}") from None
        if payloads.fault is not None:
            raise JobTypeInvalid(f"{where}: {payloads.fault}")
        try:
            return payloads, ResultValues(signature.returns)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise JobTypeInvalid(
                f"{where}: pydantic cannot check the return annotation, or no JSON can carry it: {error}"
            ) from None
