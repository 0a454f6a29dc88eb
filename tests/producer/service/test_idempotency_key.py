"""Valid keys, their forms in the header, and which submissions are the same."""

import pytest

from jobtape.producer.service.errors import IdempotencyKeyInvalid
from jobtape.producer.service.submission.idempotency import checked_key, digest_of, key_in_header
from jobtape.schemas.submission import BatchSubmission, Submission, read_submission

UUID = "8e03978e-40d5-43e8-bc93-6894a57f9324"
EVERY = "".join(map(chr, range(0x21, 0x7F)))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        ([UUID], UUID),
        ([f'"{UUID}"'], UUID),
        ([f'  "{UUID}"\t'], UUID),
        (["k"], "k"),
        (["k" * 255], "k" * 255),
        ([f'"{"k" * 255}"'], "k" * 255),
        ([r'"a\"b\\c"'], 'a"b\\c'),
        (['a"b'], 'a"b'),
        ([EVERY], EVERY),
    ],
)
def test_plain_and_quoted_header_are_same_key(values: list[str], key: str | None) -> None:
    assert key_in_header(values) == key


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ['""'],
        ["k" * 256],
        [f'"{"k" * 256}"'],
        ["a b"],
        ['"a b"'],
        ["a, b"],
        ['"open'],
        ['"a"b'],
        ['"a";q=1'],
        [r'"a\b"'],
        ["a\tb"],
        ["a\x00"],
        ["a\n"],
        ["\xe9"],
        [UUID, UUID],
    ],
)
def test_invalid_header_is_refused(values: list[str]) -> None:
    with pytest.raises(IdempotencyKeyInvalid, match=r"without spaces|send one"):
        key_in_header(values)


def test_key_from_python_is_taken_literally() -> None:
    assert checked_key(EVERY) == EVERY
    for wrong in ("", "a b", "k" * 256, "ключ"):
        with pytest.raises(IdempotencyKeyInvalid):
            checked_key(wrong)


def submission(**more: object) -> Submission:
    return read_submission({"type": "add", "payload": {"x": 1, "deep": {"b": [1, 2], "a": None}}} | more, Submission)


def test_equal_submissions_have_equal_digests() -> None:
    first = digest_of(submission())
    assert digest_of(submission(payload={"deep": {"a": None, "b": [1, 2]}, "x": 1})) == first
    assert digest_of(submission(queue=None, labels={}, correlation_id=None)) == first
    item = {"type": "add", "payload": {"x": 1, "deep": {"b": [1, 2], "a": None}}, "idempotency_key": "k"}
    assert digest_of(read_submission(item, BatchSubmission)) == first
    at, same = "2030-01-31T12:00:00Z", "2030-01-31T13:00:00.000+01:00"
    assert digest_of(submission(run_at=at)) == digest_of(submission(run_at=same))


@pytest.mark.parametrize(
    "more",
    [
        {"type": "sub"},
        {"payload": {"x": 2, "deep": {"b": [1, 2], "a": None}}},
        {"payload": {"x": 1, "deep": {"b": [2, 1], "a": None}}},
        {"payload": {"x": 1.0, "deep": {"b": [1, 2], "a": None}}},
        {"payload": {"x": "1", "deep": {"b": [1, 2], "a": None}}},
        {"payload": {"x": True, "deep": {"b": [1, 2], "a": None}}},
        {"payload": {"x": 1, "deep": {"b": [1, 2]}}},
        {"queue": "default"},
        {"delay": 1.0},
        {"labels": {"a": "b"}},
        {"correlation_id": "c"},
        {"timeout": 5.0},
        {"max_attempts": 2},
    ],
)
def test_different_submissions_have_different_digests(more: dict[str, object]) -> None:
    assert digest_of(submission(**more)) != digest_of(submission())
