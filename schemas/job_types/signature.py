"""Reads a handler's signature: the parameters of the payload, the one for the context, and the return annotation.

Signatures that Jobtape does not support are refused with the reason, so that every loaded job type does what its author
wrote.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, RootModel, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.results import Results


class Signature:
    """The signature of ``function``, the handler of the job type ``name``; error texts begin with ``where``.

    ``model`` is the model of the payload. ``model_parameter`` is the name of the parameter whose model is the whole
    payload, or None. Raises JobTypeInvalid with what to change.
    """

    def __init__(self, function: Callable[..., Any], name: str, where: str) -> None:
        self._where = where
        self._hints = hints_of(function, where)
        self.context_parameter: str | None = None
        self.model_parameter: str | None = None
        self.results: dict[str, Any] = {}
        """The parameters annotated ``Results``, with the types of the lists in the payload."""
        self.model = self._payload_model(function, name)
        self.returns: Any = self._hints.get("return", Any)

    def _payload_model(self, function: Callable[..., Any], name: str) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for n, parameter in enumerate(inspect.signature(function).parameters.values()):
            self._check(parameter, function, first=n == 0)
            hint = self._hints.get(parameter.name, Any)
            if self._is_context(parameter.name, hint):
                if self.context_parameter is not None:
                    raise JobTypeInvalid(
                        f"{self._where}: {self.context_parameter!r} and {parameter.name!r} are both a Context: keep one"
                    )
                self.context_parameter = parameter.name
                continue
            if hint is Results:
                raise JobTypeInvalid(f"{self._where}: {parameter.name!r}: say what results, such as Results[int]")
            if get_origin(hint) is Results:
                if parameter.default is not parameter.empty:
                    raise JobTypeInvalid(
                        f"{self._where}: {parameter.name!r} is annotated Results, which has no default: remove it"
                    )
                hint = list[get_args(hint)[0]]  # type: ignore[misc]  # a type that is known only now
                self.results[parameter.name] = hint
            fields[parameter.name] = (hint, ... if parameter.default is parameter.empty else parameter.default)
        if len(fields) == 1:
            ((only, (hint, default)),) = fields.items()
            if _is_model(hint) and default is ...:
                self.model_parameter = only
                return hint  # type: ignore[no-any-return]
        if odd := [each for each in fields if each.startswith("_") or hasattr(BaseModel, each)]:
            raise JobTypeInvalid(
                f"{self._where}: a parameter cannot have the name {odd[0]!r}, which pydantic uses: rename it"
            )
        try:
            return create_model(
                f"{name}.payload", __config__=ConfigDict(extra="forbid", validate_default=True), **fields
            )
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise JobTypeInvalid(f"{self._where}: pydantic cannot check these parameters: {error}") from None

    def _check(self, parameter: inspect.Parameter, function: Callable[..., Any], *, first: bool) -> None:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise JobTypeInvalid(f"{self._where}: parameter {parameter.name!r} must be a plain named parameter")
        if first and parameter.name in ("self", "cls") and _is_in_class(function):
            raise JobTypeInvalid(
                f"{self._where}: there is no value for {parameter.name!r}: make the handler a function of the module, "
                "or of the class without this parameter"
            )
        hint = self._hints.get(parameter.name, Any)
        metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        for each in (parameter.default, *metadata):
            # FastAPI's Depends, its subclass Security, and classes of the same name in other libraries.
            if any(kind.__name__.endswith("Depends") for kind in type(each).__mro__):
                raise JobTypeInvalid(
                    f"{self._where}: a worker resolves no dependencies, so there is no value for {parameter.name!r}: "
                    f"remove {type(each).__name__}, and call its function in the handler"
                )

    def _is_context(self, name: str, hint: Any) -> bool:
        kinds = list(_alternatives(hint))
        contexts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Context)]
        if not contexts:
            return False
        if set(kinds) <= {Context, types.NoneType}:
            return True
        raise JobTypeInvalid(f"{self._where}: {name!r} can only be a jobtape.Context: annotate it so")


def handler_of(function: Any) -> tuple[Callable[..., Any], Callable[..., Any], bool]:
    """Return the author's function, the function that a worker calls, and whether it is awaited. Raises JobTypeInvalid.

    A plain ``def`` decorator around an ``async def`` returns a coroutine, so it is awaited too.
    """
    if isinstance(function, staticmethod):
        function = function.__func__
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise JobTypeInvalid(f"{function!r}: a handler must be a function, `def` or `async def`")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise JobTypeInvalid(f"{where_of(function)}: a handler must return its result, and this one yields")
    if inspect.iscoroutinefunction(function) or not any(map(inspect.iscoroutinefunction, _unwrapped(function))):
        return function, function, inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    return function, awaited, True


def where_of(function: Callable[..., Any]) -> str:
    """Return the name of a handler in error texts."""
    return f"{function.__module__}.{function.__qualname__}"


def hints_of(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """Return the annotations of a function, evaluated. Raises JobTypeInvalid."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise JobTypeInvalid(f"{where}: its annotations cannot be read: {error}") from None


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel) and not issubclass(hint, RootModel)


def _is_in_class(function: Callable[..., Any]) -> bool:
    outer = function.__qualname__.rpartition(".")[0]
    return inspect.isfunction(function) and outer != "" and not outer.endswith("<locals>")


def _alternatives(hint: Any) -> Iterator[Any]:
    """Return the types that an annotation allows, without ``Annotated`` metadata."""
    if get_origin(hint) is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif get_origin(hint) in (typing.Union, types.UnionType):
        for each in get_args(hint):
            yield from _alternatives(each)
    elif hasattr(hint, "__value__"):  # `type Ctx = Context`
        yield from _alternatives(hint.__value__)
    else:
        yield hint


def _unwrapped(function: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = getattr(function, "__wrapped__", None)
