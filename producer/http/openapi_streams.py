"""What the OpenAPI document says of streams, and of requests that wait."""

from typing import Any, Final

from jobtape.producer.http.openapi import Answers
from jobtape.producer.http.stream_parameters import LAST_EVENT_ID
from jobtape.producer.live.event_stream import MEDIA_TYPE
from jobtape.producer.live.prefer import APPLIED, HEADER

_EXAMPLE: Final = (
    'retry: 2000\nevent: hello\nid: 281474976710690\ndata: {"cursor":281474976710690}\n\n'
    "id: 281474976710702\nevent: succeeded\n"
    'data: {"specversion":"1.0","type":"jobtape.job.succeeded","subject":"0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90",'
    '"data":{"job_type":"add","run":1,"attempt":1,"result":7},"cursor":281474976710702}\n\n'
    ": keep-alive\nid: 281474976710745\n\n"
)

LAST_EVENT: Final[dict[str, Any]] = {
    "name": LAST_EVENT_ID,
    "description": "The id of the last event that was received; goes before `lastEventId` and `after`. "
    "Empty is as if it were not there.",
    "schema": {"type": "integer", "minimum": 0},
}
"""The header of a client that resumes."""
PREFER: Final[dict[str, Any]] = {
    "name": HEADER,
    "description": "`wait=10` (RFC 7240): answer when the job has ended, after 10 seconds at the latest. "
    f"`{APPLIED}` says how long was granted; it is missing where too many wait already, and the answer comes at once.",
    "schema": {"type": "string"},
    "example": "wait=10",
}


def stream(description: str) -> Answers:
    """A stream as the good answer."""
    return {200: {"description": description, "content": _content()}}


def also_stream(answers: Answers) -> Answers:
    """The answers of a route that gives a page, or a stream to who asks for one."""
    answers[200]["content"] |= _content()
    return answers


def _content() -> dict[str, Any]:
    return {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}}
