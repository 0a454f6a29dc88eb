"""The body of a batch, taken apart: a fault of one item is that item's own problem."""

from typing import Any

from jobtape.producer.http import request_body as reading
from jobtape.producer.http.problems import Problem, problem_of
from jobtape.schemas import plainjson
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.submission import BatchSubmission, read_submission


def items_of(body: bytes, kind: str, most: int) -> list[BatchSubmission | Problem]:
    """The submissions in the order given, or what is wrong with each.

    Raises Problem when the whole cannot be taken apart, is empty, or has more than ``most`` items. A line of NDJSON
    that is not JSON is that item's problem, since the other lines are still readable.
    """
    items = _lines(body, most) if kind == reading.NDJSON else _array(body)
    if not items:
        raise Problem("invalid-batch", "a batch has at least one submission")
    if len(items) > most:
        raise _too_many(most)
    return [item if isinstance(item, Problem) else _submission(item) for item in items]


def _array(body: bytes) -> list[Any]:
    value = _json(body, "the body")
    if isinstance(value, Problem):
        raise value
    if not isinstance(value, list):
        raise Problem("invalid-batch", f"a batch is an array of submissions, or {reading.NDJSON} with one a line")
    return value


def _lines(body: bytes, most: int) -> list[Any]:
    # Files that were put together may each have begun with a mark.
    lines = [line for line in body.split(b"\n") if line.removeprefix(plainjson.MARK).strip()]
    if len(lines) > most:
        raise _too_many(most)
    return [_json(line, "the line") for line in lines]


def _json(text: bytes, what: str) -> Any:
    try:
        return plainjson.loads_sent(text)
    except plainjson.NotJson as error:
        return Problem("not-json", f"{what} is not JSON: {error}")


def _submission(value: Any) -> BatchSubmission | Problem:
    try:
        return read_submission(value, BatchSubmission)
    except SubmissionInvalid as error:
        return problem_of(error)


def _too_many(most: int) -> Problem:
    return Problem("invalid-batch", f"a batch may have {most} submissions (JOBTAPE_MAX_BATCH); send several")
