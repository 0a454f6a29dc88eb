"""A tape in a file: lines of JSON with a header first and an end line last, which shows that the file is complete.

    {"format": "jobtape-tape", "version": 1, "id": "…", "namespace": "…", "after": 0, "until": 281474976710700}
    {"cursor": 281474976710656, "event": {"specversion": "1.0", …}}
    {"cursor": 281474976710657, "raw": "bm8gZXZlbnQ="}
    {"end": true, "events": 2}

Events are as they were read from the tape. Messages that are no events are in base64.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobtapeError

FORMAT: Final = "jobtape-tape"
VERSION: Final = 1


class TapeFileInvalid(JobtapeError):
    """The file is no tape, is incomplete, or has a newer version than this program reads."""


@dataclass(frozen=True, slots=True)
class TapeHeader:
    """The header. ``id`` identifies the export; it has the messages after cursor ``after`` up to and including
    ``until``.
    """

    id: str
    namespace: str
    after: int
    until: int


@dataclass(frozen=True, slots=True)
class TapeLine:
    """A line after the header, numbered from 1. ``event`` is None for a message that is no CloudEvent."""

    number: int
    body: bytes
    event: dict[str, Any] | None


def header_line(header: TapeHeader) -> bytes:
    return _line({"format": FORMAT, "version": VERSION, **asdict(header)})


def entry_line(cursor: int, body: bytes) -> bytes:
    """Format the line of a message on the tape."""
    try:
        event = plainjson.loads(body)
    except plainjson.NotJson:
        event = None
    if isinstance(event, dict) and plainjson.fault(event, max_depth=plainjson.MAX_DEPTH + 3) is None:
        return _line({"cursor": cursor, "event": event})
    return _line({"cursor": cursor, "raw": base64.b64encode(body).decode()})


def end_line(events: int) -> bytes:
    return _line({"end": True, "events": events})


def read_header(line: bytes) -> TapeHeader:
    """Parse the first line. Raises TapeFileInvalid."""
    match _parsed(line, 0):
        case {"format": "jobtape-tape", "version": int(version)} if version > VERSION:
            raise TapeFileInvalid(f"the file has version {version}, which is newer than {VERSION}: update Jobtape")
        case {
            "format": "jobtape-tape",
            "id": str(key),
            "namespace": str(name),
            "after": int(after),
            "until": int(until),
        }:
            return TapeHeader(key, name, after, until)
    raise TapeFileInvalid("the first line is no tape header: was the file written by `jobtape export`?")


def read_lines(lines: Iterable[bytes]) -> Iterator[TapeLine]:
    """Parse the lines after the header. Raises TapeFileInvalid at an invalid line, or when the file is incomplete."""
    number = 0
    for text in lines:
        number += 1
        match _parsed(text, number):
            case {"end": True, "events": int(events)}:
                if events != number - 1:
                    raise TapeFileInvalid(
                        f"the file has {number - 1} events, but its last line says {events}: export it again"
                    )
                return
            case {"cursor": int(), "event": dict(event)}:
                yield TapeLine(number, plainjson.dumps(event), event)
            case {"cursor": int(), "raw": str(raw)}:
                yield TapeLine(number, _decoded(raw, number), None)
            case _:
                raise TapeFileInvalid(f"line {number} is no line of a tape: export it again")
    raise TapeFileInvalid(f"the file is incomplete, it ends after {number} events: export it again")


def marked(line: TapeLine, export: str) -> bytes:
    """Return the message to publish: the event marked as imported, or the unchanged message if it is no event."""
    if line.event is None:
        return line.body
    return plainjson.dumps({**line.event, "imported": export, "importline": line.number})


def _line(value: dict[str, Any]) -> bytes:
    return plainjson.dumps(value) + b"\n"


def _parsed(line: bytes, number: int) -> Any:
    try:
        return plainjson.loads_sent(line)
    except plainjson.NotJson:
        raise TapeFileInvalid(f"line {number} of the file is no JSON: export it again") from None


def _decoded(raw: str, number: int) -> bytes:
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        raise TapeFileInvalid(f"line {number} of the file is no base64: export it again") from None
