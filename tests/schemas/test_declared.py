"""Every job type that a module declares is loaded, or refused with the reason."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from uuid import uuid4

import pytest

from jobtape.jobs import JobType
from jobtape.loading import load_job_types
from jobtape.schemas.errors import JobTypeInvalid, ResultInvalid

Load = Callable[[str], dict[str, JobType]]

BEGIN = """
import functools
from typing import Annotated, Optional
from fastapi import Depends, Security
import jobtape
from jobtape import Context, job


def traced(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner


def bare(function):
    return lambda *args, **kwargs: function(*args, **kwargs)

"""


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Write a module and load its job types."""
    made: list[str] = []

    def write_and_load(source: str) -> dict[str, JobType]:
        made.append(f"jobs_{uuid4().hex}")
        (tmp_path / f"{made[-1]}.py").write_text(BEGIN + dedent(source))
        return load_job_types([made[-1]], tmp_path)

    yield write_and_load
    for name in made:
        sys.modules.pop(name, None)
    sys.path.remove(str(tmp_path.resolve()))


def test_job_types_in_classes_and_collections_are_loaded(load: Load) -> None:
    loaded = load(
        """
        class Mails:
            @job("class")
            def send(to: str) -> str: return to

            @staticmethod
            @job("static")
            def static(to: str) -> str: return to

            @job("static-below")
            @staticmethod
            def below(to: str) -> str: return to

            class Inner:
                @job("inner")
                def send(to: str) -> str: return to

        def make(name):
            @job(name)
            def times(to: str) -> str: return to * 2
            return times

        LIST = [make("list-0"), make("list-1")]
        DICT = {"a": {"b": [make("dict")]}}
        pair = (make("tuple"), 1)
        short = job("lambda")(lambda to: to)
        """
    )
    expected = {"class", "static", "static-below", "inner", "list-0", "list-1", "dict", "tuple", "lambda"}
    assert set(loaded) == expected
    assert {job_type.function(to="x") for job_type in loaded.values()} == {"x", "xx"}


def test_coroutine_of_plain_decorator_is_awaited(load: Load) -> None:
    (loaded,) = load(
        """
        @job("traced")
        @traced
        @traced
        async def add(x: int, ctx: "Context | None" = None) -> int:
            return x + 1
        """
    ).values()
    assert (loaded.is_async, loaded.context_parameter) == (True, "ctx")
    assert asyncio.run(loaded.function(x=1)) == 2
    assert asyncio.run(loaded(x=1)) == 2


def test_result_refuses_unawaited_coroutine(load: Load) -> None:
    (loaded,) = load(
        """
        async def add(x: int) -> int: return x

        @job("hidden")
        def hidden(x: int): return add(x)
        """
    ).values()
    with pytest.raises(ResultInvalid, match=r"functools\.wraps"):
        loaded.result(loaded.function(x=1))


@pytest.mark.parametrize(
    "annotation",
    [
        "Context",
        '"Context"',
        "Optional[Context]",
        "Context | None",
        '"Context | None"',
        'Annotated[Context, "note"]',
        'Annotated[Optional["Context"], 1]',
        "Optional[Annotated[Context, 1]]",
        "jobtape.Context",
    ],
)
@pytest.mark.parametrize("default", ["", " = None"])
def test_context_parameter_is_found_in_any_annotation(load: Load, annotation: str, default: str) -> None:
    (loaded,) = load(f'@job("a")\ndef a(*, ctx: {annotation}{default}, n: int) -> int: return n').values()
    assert loaded.context_parameter == "ctx"
    assert list(loaded.payload_model.model_fields) == ["n"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('@traced\n@job("lost")\ndef lost(x: int): ...', "put @job above the other"),
        ('@bare\n@job("lost")\ndef lost(x: int): ...', "put @job above the other"),
        ('@functools.lru_cache\n@job("lost")\ndef lost(x: int): ...', "put @job above the other"),
        ('@job("a")\ndef f(x: int): ...\n@job("b")\ndef f(x: int): ...', "another definition of f"),
        ('@job("a")\ndef f(x: int): ...\n@job("a")\ndef f(x: int, y: int): ...', "another definition of f"),
        ('@job("a")\ndef f(x: int): ...\ndef f(x: int): ...', "rename one"),
        ('@job("a")\ndef f(x: int): ...\n@job("a")\ndef g(x: int): ...', "two job types are called 'a'"),
        ('for n in "ab":\n    def f(x: int): ...\n    last = job(n)(f)', "declared in"),
        (
            'class T:\n    def __init__(self): self.job = job("a")(self.run)\n    def run(self, x: int): ...\nt = T()',
            "assign it to a variable",
        ),
        ('class T:\n    @job("a")\n    def run(self, x: int): ...', "'self': make the handler a function"),
        ('class T:\n    @classmethod\n    @job("a")\n    def run(cls, x: int): ...', "'cls': make the handler"),
        ('class T:\n    def __call__(self, x: int): ...\na = job("a")(T())', "must be a function"),
        ('def f(x: int): ...\na = job("a")(functools.partial(f, 1))', "must be a function"),
        ('def db(): ...\n@job("a")\ndef a(x: int, c=Depends(db)): ...', "no dependencies.*'c'"),
        ('def db(): ...\n@job("a")\ndef a(x: int, c: int = Security(db)): ...', "no dependencies.*'c'"),
        ('def db(): ...\n@job("a")\ndef a(x: int, c: Annotated[int, Depends(db)]): ...', "no dependencies.*'c'"),
        ('@job("a")\ndef a(x: Context, y: Context): ...', "both a Context"),
        ('@job("a")\ndef a(x: Context | int): ...', "can only be a jobtape.Context"),
        ('class C(Context): ...\n@job("a")\ndef a(x: C): ...', "can only be a jobtape.Context"),
        ('@job("a")\ndef a(x: list[Context]): ...', "pydantic cannot check"),
        ('@job("a")\n@bare\nasync def a(x: int): ...', "plain named parameter"),
        ('@job("a")\nasync def a(x: int):\n    yield x', "yields"),
    ],
)
def test_unloadable_job_type_is_refused(load: Load, source: str, says: str) -> None:
    with pytest.raises(JobTypeInvalid, match=f"(?s){says}"):
        load('@job("sound")\ndef sound(): ...\n' + source)


def test_reloaded_module_gives_new_job_types(load: Load, tmp_path: Path) -> None:
    import importlib

    (loaded,) = load('@job("a")\ndef a(x: int): ...').values()
    module = sys.modules[loaded.function.__module__]
    again = load_job_types([importlib.reload(module).__name__], tmp_path)["a"]
    assert again is not loaded
