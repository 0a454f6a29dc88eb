"""The group of a failure: which texts are the same cause."""

import traceback

import pytest

from jobtape.schemas.execution.failure_group import FailureGroup, group_of
from jobtape.schemas.job import ErrorInfo

HEAD = "Traceback (most recent call last):\n"
OWN = '  File "/srv/v1/app/images.py", line 12, in shrink\n    pillow.resize()\n'
MOVED = '  File "/opt/release 2/app/images.py", line 99, in shrink\n    pillow.resize()\n'
OTHER = '  File "/srv/v1/app/store.py", line 3, in save\n    write()\n'
LIBRARY = '  File "/venv/lib/python3.11/site-packages/PIL/image.py", line 7, in resize\n    raise x\n'
STDLIB = '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode\n'
FROZEN = '  File "<frozen importlib._bootstrap>", line 1, in _gcd_import\n'
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"


def group(trace: str | None, error: str = "ValueError") -> FailureGroup:
    return group_of("resize", "error", ErrorInfo(type=error, message="m", traceback=trace))


@pytest.mark.parametrize(
    ("trace", "where"),
    [
        (None, None),
        ("no frames", None),
        (HEAD + OTHER + OWN + LIBRARY + "ValueError: m\n", "app/images.py in shrink"),
        (HEAD + OWN + STDLIB + FROZEN, "app/images.py in shrink"),
        (HEAD + LIBRARY + STDLIB, "json/decoder.py in raw_decode"),
        (HEAD + OWN + "KeyError\n" + CAUSE + HEAD + OTHER + LIBRARY, "app/store.py in save"),
        (HEAD + OWN + "KeyError\n" + CAUSE + HEAD + LIBRARY, "app/images.py in shrink"),
        ('…\n  File "C:\\srv\\app\\images.py", line 1, in shrink\n', "app/images.py in shrink"),
        (HEAD + '  File "one.py", line 1, in <lambda>\n', "one.py in <lambda>"),
    ],
)
def test_where_is_innermost_frame_of_own_code(trace: str | None, where: str | None) -> None:
    assert group(trace).where == where


def test_group_of_a_real_traceback() -> None:
    try:
        int("x")
    except ValueError as error:
        found = group("".join(traceback.format_exception(error)))
    assert found.where == "schemas/test_failure_group.py in test_group_of_a_real_traceback"


def test_group_survives_a_release_and_differs_by_cause() -> None:
    same = {group(HEAD + OWN).id, group(HEAD + MOVED).id}
    assert len(same) == 1
    others = [group(HEAD + OTHER), group(HEAD + OWN, "KeyError"), group(None)]
    others.append(group_of("other", "error", ErrorInfo(type="ValueError", message="m", traceback=HEAD + OWN)))
    assert len(same | {other.id for other in others}) == 5


def test_texts_of_a_group_are_bounded() -> None:
    found = group(f'  File "/{"x" * 5000}/{"y" * 5000}", line 1, in {"z" * 5000}\n', "E" * 5000)
    assert len(found.error) + len(found.where or "") < 700
