"""Which functions can be job types, and how their signatures are read."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, RootModel

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.results import Results
from jobtape.schemas.job_types.job_type import DEFAULT_QUEUE, DEFAULT_TIMEOUT, JobTypeSpec


class Mail(BaseModel):
    to: str
    copies: int = 1


class Names(RootModel[list[str]]): ...


async def fields(x: int, y: int = 2, *, context: Context) -> int:
    """Adds.

    In detail.
    """
    return x + y


def model(mail: Mail, ctx: Context) -> str:
    return mail.to


def root(names: Names) -> None: ...


def test_parameters_become_fields() -> None:
    job = JobTypeSpec(fields, "math.add")
    assert (job.name, job.queue, job.timeout) == ("math.add", DEFAULT_QUEUE, DEFAULT_TIMEOUT)
    assert (job.is_async, job.context_parameter, job.description) == (True, "context", "Adds.")
    schema = job.json_schema()
    assert list(schema["payload"]["properties"]) == ["x", "y"]
    assert schema["payload"]["required"] == ["x"]
    assert schema["payload"]["additionalProperties"] is False
    assert schema["result"] == {"type": "integer"}


def test_single_model_is_whole_payload() -> None:
    job = JobTypeSpec(model, "mail", queue="mail", timeout=5)
    assert (job.is_async, job.context_parameter, job.payload_model) == (False, "ctx", Mail)
    assert (job.queue, job.timeout) == ("mail", 5.0)


def test_root_model_is_field() -> None:
    assert JobTypeSpec(root, "names").payload(["a"]) == {"names": ["a"]}


def test_call_of_job_type_calls_handler() -> None:
    assert JobTypeSpec(lambda x: x + 1, "inc")(1) == 2


def star(*x: int) -> None: ...
def stars(**x: int) -> None: ...
def positional(x: int, /) -> None: ...
def underscore(_x: int) -> None: ...
def taken(model_dump: int) -> None: ...
def unknown(x: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def no_syntax(x: "int |") -> None: ...  # type: ignore[valid-type]  # noqa: F722
def no_attribute(x: "Any.thing.more") -> None: ...  # type: ignore[name-defined]
def no_schema(x: functools.partial[int]) -> None: ...
def no_json(x: Callable[[], int]) -> None: ...
def no_result() -> Iterator[functools.partial[int]]: ...  # type: ignore[empty-body]
def yields() -> Iterator[int]:
    yield 1


async def yields_later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (star, "'x' must be a plain named parameter"),
        (stars, "'x' must be a plain named parameter"),
        (positional, "'x' must be a plain named parameter"),
        (underscore, "'_x'.*rename it"),
        (taken, "'model_dump'.*rename it"),
        (unknown, "annotations cannot be read.*Missing"),
        (no_syntax, "annotations cannot be read"),
        (no_attribute, "annotations cannot be read"),
        (no_schema, "cannot"),
        (no_json, "JSON"),
        (no_result, "cannot"),
        (yields, "this one yields"),
        (yields_later, "this one yields"),
        (functools.partial(fields, 1), "must be a function"),
        (Mail, "must be a function"),
        (3, "must be a function"),
    ],
)
def test_invalid_handler_is_refused(function: Any, says: str) -> None:
    with pytest.raises(JobTypeInvalid, match=f"(?s){says}"):
        JobTypeSpec(function, "bad")


@pytest.mark.parametrize("name", ["", "a b", ".a", "add\n", "ä", "x" * 121])
def test_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(JobTypeInvalid, match="job type name"):
        JobTypeSpec(fields, name)


@pytest.mark.parametrize("queue", ["", "a.b", "mail\n", "x" * 65])
def test_invalid_queue_is_refused(queue: str) -> None:
    with pytest.raises(JobTypeInvalid, match="queue name"):
        JobTypeSpec(fields, "add", queue=queue)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_invalid_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(JobTypeInvalid, match="timeout"):
        JobTypeSpec(fields, "add", timeout=timeout)


def collect(parts: Results[int]) -> int:
    return sum(parts)


def test_results_are_a_list_in_the_payload_and_come_as_results() -> None:
    spec = JobTypeSpec(collect, "collect")
    assert spec.json_schema()["payload"]["properties"]["parts"]["type"] == "array"
    assert spec.payload(parts=[1, 2]) == {"parts": [1, 2]}
    got = spec.arguments({"parts": [1, 2]})["parts"]
    assert isinstance(got, Results) and (list(got), len(got)) == ([1, 2], 2)


@pytest.mark.parametrize("value", [{"$results": {"nodes": [["a", ""]], "as_of": 1, "count": 1}}, {"$results": 1}])
def test_reference_to_results_is_only_for_jobs_of_flows(value: Any) -> None:
    spec = JobTypeSpec(collect, "collect")
    for refuse in (spec.accept, spec.arguments):
        with pytest.raises(PayloadInvalid):
            refuse({"parts": value})


def test_results_by_reference_are_not_read_on_an_event_loop_that_they_would_block() -> None:
    async def handler() -> int:
        reference = {"$results": {"nodes": [["a", ""]], "as_of": 1, "count": 1}}
        return collect(JobTypeSpec(collect, "collect").arguments({"parts": reference}, flow="f")["parts"])

    with pytest.raises(TypeError, match="use `async for` here"):
        asyncio.run(handler())


@pytest.mark.parametrize(("hint", "default"), [(Results, inspect.Parameter.empty), (Results[int], ())])
def test_results_without_a_type_or_with_a_default_are_refused(hint: Any, default: Any) -> None:
    def handler(parts: Any) -> None: ...

    handler.__annotations__["parts"] = hint
    if default != inspect.Parameter.empty:
        handler.__defaults__ = (default,)
    with pytest.raises(JobTypeInvalid, match="'parts'"):
        JobTypeSpec(handler, "collect")
