"""A job type: a handler with its name, queue and limits, and the payload and result that its signature defines.

The parameters are the payload, which pydantic checks as FastAPI checks a body: each parameter is a field, or the only
parameter is a pydantic model of the whole payload. A parameter annotated ``Context`` gets the context. The return
annotation defines the result.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, ResultInvalid, described, faults_of, first_fault
from jobtape.schemas.execution.results import Results, reference_in
from jobtape.schemas.execution.retry import RetryPolicy
from jobtape.schemas.job import JOB_TYPE_PATTERN, QUEUE_PATTERN
from jobtape.schemas.job_types import declared
from jobtape.schemas.job_types.batches import Batch, one_job_of
from jobtape.schemas.job_types.declared_gates import Concurrency, Debounce, DeclaredGates, OnFailure, Rate, Unique
from jobtape.schemas.job_types.payload_versions import PayloadUpcaster, PayloadVersions
from jobtape.schemas.job_types.schedules import Times, declared_schedules
from jobtape.schemas.job_types.secrets import SecretFields, secrets_in, without
from jobtape.schemas.job_types.signature import Signature, handler_of, where_of
from jobtape.schemas.job_types.values import NotStorable, PageValues, PayloadValues, ResultValues
from jobtape.schemas.queueing.lanes import LANES, Lane

R = TypeVar("R")
DEFAULT_QUEUE: Final = "default"
DEFAULT_TIMEOUT: Final = 600.0
"""Seconds. With the grace time it is well within RabbitMQ's acknowledgement timeout of 1800 s."""
BUILTIN_PREFIX: Final = "jobtape."
"""Names of job types with this prefix, and ``RESERVED_QUEUES``, are reserved for Jobtape."""
BUILTIN_QUEUE: Final = "jobtape"
WEBHOOK_QUEUE: Final = "jobtape-webhooks"
"""The queue of the deliveries to webhooks. They are many and wait for others, so they have one of their own."""
RESERVED_QUEUES: Final = frozenset({BUILTIN_QUEUE, WEBHOOK_QUEUE})
SMALLEST_MEMORY: Final = 2**20


class JobTypeSpec:
    """One kind of job. Calling it calls the handler, which is useful in tests.

    ``lane``: that of its jobs; its queue then has lanes (see ``schemas.queueing.lanes``).
    ``isolate``: the handler runs in its own process, which may allocate ``memory`` bytes more than at the start of the
    job (None: no limit). ``concurrency``: how many jobs run at once in one worker. ``batch``: see ``Batch``.
    ``ordering_key``, ``on_failure``,
    ``limits``, ``unique``, ``debounce``, ``take_turns`` and ``rule``: see ``DeclaredGates``. ``schedule``: see
    ``declared_schedules``. ``version``: the payload version of the parameters. ``upcasters``, by version, turn an older
    payload into the next version.

    Raises JobTypeInvalid, with what to change, if ``function`` cannot be a handler.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = DEFAULT_QUEUE,
        lane: Lane | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        isolate: bool = False,
        memory: int | None = None,
        concurrency: int | None = None,
        batch: Batch | None = None,
        ordering_key: str | None = None,
        on_failure: OnFailure = "continue",
        limits: Sequence[Concurrency | Rate] = (),
        unique: Unique | None = None,
        debounce: Debounce | None = None,
        take_turns: str | None = None,
        rule: bool = False,
        schedule: Times | Sequence[Times] = (),
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
        if lane not in (None, *LANES):
            raise JobTypeInvalid(f"{where}: the lane is one of {', '.join(LANES)}, not {lane!r}")
        if not 0 < timeout < math.inf:
            raise JobTypeInvalid(f"{where}: the timeout must be a finite number of seconds above 0, not {timeout!r}")
        if memory is not None and not isolate:
            raise JobTypeInvalid(f"{where}: only a process can have a memory limit: add isolate=True")
        if memory is not None and memory < SMALLEST_MEMORY:
            raise JobTypeInvalid(f"{where}: memory is in bytes, at least {SMALLEST_MEMORY}, not {memory!r}")
        if concurrency is not None and concurrency < 1:
            raise JobTypeInvalid(
                f"{where}: concurrency is the number of jobs that run at once, at least 1, not {concurrency!r}"
            )
        self.name = name
        self.isolate = isolate
        self.memory = memory
        if batch is not None and (fault := batch.fault()) is not None:
            raise JobTypeInvalid(f"{where}: {fault}")
        if batch is not None and isolate:
            raise JobTypeInvalid(f"{where}: a process runs one job: remove batch= or isolate=True")
        self.concurrency = concurrency
        self.batch = batch
        self._versions = PayloadVersions(version, upcasters or {}, where)
        self.queue = queue
        self.lane: Lane | None = lane
        self.timeout = float(timeout)
        self.retry = retry or RetryPolicy()
        self.description = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        signature = Signature(function if batch is None else one_job_of(function, where), name, where)
        self.context_parameter = signature.context_parameter
        self.payload_model = signature.model
        self._model_parameter = signature.model_parameter
        self.results_parameters = {name: PageValues(hint, name) for name, hint in signature.results.items()}
        self._payloads, self._results = self._values(signature, where)
        self.declared_gates = DeclaredGates(
            name, ordering_key, on_failure, tuple(limits), unique, debounce, take_turns, rule
        )
        self.declared_gates.check(self._payloads.json_schema.get("properties", {}), where)
        self.secrets = SecretFields(self._payloads.json_schema)
        """Where payloads have secrets."""
        self._result_secrets = SecretFields(self._results.json_schema)
        self.schedules = declared_schedules(name, schedule, self.accept, where)
        declared.record(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler and return its result (a coroutine if it is ``async``)."""
        return self._called(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job type {self.name} on queue {self.queue}>"

    @property
    def version(self) -> int:
        """The version of the payload that the handler takes."""
        return self._versions.newest

    def arguments(self, payload: dict[str, Any], version: int | None = None, flow: str | None = None) -> dict[str, Any]:
        """Return the handler's keyword arguments for a payload of ``version`` (default: the newest), which is not
        changed. ``flow``: the id of the flow or job of which the job is a node. Decrypts its
        secrets. Raises PayloadInvalid with every fault, and SecretKeysWrong.
        """
        if version is not None:
            payload = self._versions.upcast(payload, version)
        referred = self._referred(payload, flow) if self.results_parameters else {}
        if referred:
            payload = {**payload, **{name: [] for name in referred}}
        payload = self.secrets.decrypted(payload)
        model = self._read(payload, self._payloads.read)
        if self._model_parameter is not None:
            return {self._model_parameter: model}
        found = {name: getattr(model, name) for name in type(model).model_fields}
        for name in self.results_parameters:
            found[name] = referred[name] if name in referred else Results(found[name])
        return found

    def _referred(self, payload: dict[str, Any], flow: str | None) -> dict[str, Results[Any]]:
        """Return the results that the payload has by reference, by the names of their parameters."""
        found: dict[str, Results[Any]] = {}
        for name, values in self.results_parameters.items():
            try:
                reference = reference_in(payload.get(name), flow)
            except ValueError as error:
                raise PayloadInvalid(f"{name}: {error}", [{"loc": (name,), "msg": str(error)}]) from None
            if reference is None:
                continue
            if flow is None:
                message = "only a job of a flow, or a follow-up, gets results by reference: give it a list"
                raise PayloadInvalid(f"{name}: {message}", [{"loc": (name,), "msg": message}])
            found[name] = Results.referred(reference, values.read)
        return found

    def accept(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the payload to record for one that was sent. Values that default factories or users' validators
        make are computed now, so that every attempt has the same. Raises PayloadInvalid with every fault.
        """
        return self._read(payload, self._payloads.accept)

    def payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the payload for a call with these arguments, as plain JSON. Raises PayloadInvalid, also if the
        handler would get other values.
        """
        return self._payload(args, kwargs)[0]

    def payload_to_send(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Same as ``payload``, without the defaults that ``accept`` computes, so that a repeated call is the same
        submission.
        """
        payload, made = self._payload(args, kwargs)
        return {name: value for name, value in payload.items() if name not in made} if made else payload

    def result(self, value: Any) -> Any:
        """Return the result of a handler as plain JSON. Raises ResultInvalid, also if it could not be read back."""
        if inspect.iscoroutine(value):
            value.close()
            raise ResultInvalid(
                f"the handler of {self.name} returned a coroutine, which is not awaited: make the handler and the "
                "wrappers of its decorators `async def`, or use functools.wraps in the decorators"
            )
        try:
            return self._results.write(value)
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            raise ResultInvalid(f"the result of {self.name} cannot be recorded: {error}") from None

    def result_to_record(self, value: Any) -> Any:
        """Same as ``result``, with a mask instead of each secret: results are not encrypted."""
        return without(secrets_in(value), self._result_secrets.masked(self.result(value)))

    def read_result(self, plain: Any) -> Any:
        """Return the value of a recorded result by the return annotation (see ``ResultValues.read``). Raises
        ResultInvalid.
        """
        try:
            return self._results.read(plain)
        except (ValidationError, PydanticSerializationError) as error:
            raise ResultInvalid(
                f"the recorded result of {self.name} does not fit its return annotation: {error}"
            ) from None

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schemas of payload and result."""
        return {"payload": self._payloads.json_schema, "result": self._results.json_schema}

    def _read(self, payload: dict[str, Any], read: Callable[[dict[str, Any]], R]) -> R:
        try:
            return read(payload)
        except ValidationError as error:
            faults = faults_of(error)
            raise PayloadInvalid(
                f"the payload does not fit the job type {self.name}: {first_fault(faults, 'payload')}", faults
            ) from None
        except PydanticSerializationError as error:
            raise PayloadInvalid(f"the payload of {self.name} is no JSON: {error}") from None
        except NotStorable as error:
            raise self._not_storable(error) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PayloadInvalid(f"the payload does not fit the job type {self.name}: {described(error)}") from error

    def _payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Return the payload, and the names in it whose values are computed defaults."""
        try:
            model, whole = self._model_for(args, kwargs)
            payload = self._payloads.write(model, checked=not whole)
        except ValidationError as error:
            raise PayloadInvalid(str(error), faults_of(error)) from None
        except NotStorable as error:
            raise self._not_storable(error) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise PayloadInvalid(f"the payload of {self.name} cannot be made into JSON: {error}") from None
        unset = () if whole else self._payloads.made.keys() - model.model_fields_set
        return payload, {self._payloads.made[name] for name in unset}

    def _not_storable(self, error: NotStorable) -> PayloadInvalid:
        return PayloadInvalid(
            f"the payload of {self.name} cannot be stored as JSON without change: {error}. Annotate the parameter with "
            "the class of the argument, or let that class read what it writes",
            [{"loc": (), "msg": str(error), "type": "not_storable"}],
        )

    def _model_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[BaseModel, bool]:
        """Return the model of the payload, and whether it is itself the argument."""
        whole = self._takes_model(args, kwargs)
        names = [str(self._model_parameter)] if whole else list(self.payload_model.model_fields)
        if len(args) > len(names):
            raise TypeError(f"it takes {len(names)} positional arguments, not {len(args)}")
        given = dict(zip(names, args, strict=False))
        if twice := [name for name in given if name in kwargs]:
            raise TypeError(f"{twice[0]!r} is given twice")
        given.update(kwargs)
        if whole and len(given) > 1:
            raise TypeError(f"it takes no argument besides {names[0]!r}")
        return self._payloads.check(given[names[0]] if whole else given), whole

    def _takes_model(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the argument is the whole model, and not the model's fields."""
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
