"""A byte order mark at the start of what a client sends is ignored; anywhere else it is not JSON."""

import io
import json
from pathlib import Path

import httpx
import pytest

from jobtape.cli.errors import WrongUse
from jobtape.cli.values import payload_of
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.request_body import JSON, NDJSON
from jobtape.producer.http.routes.jobs.submit import batch_items
from jobtape.producer.http.websocket.requests import InvalidRequest, request_of
from jobtape.schemas import plainjson
from jobtape.schemas.access import ANYBODY
from jobtape.schemas.messages.tape_file import (
    TapeFileInvalid,
    TapeHeader,
    end_line,
    entry_line,
    header_line,
    read_header,
    read_lines,
)
from jobtape.schemas.submission import BatchSubmission
from tests.producer.running_api import Api, problem

MARK = b"\xef\xbb\xbf"
ADD = b'{"type": "add", "payload": {"x": 1}}'


@pytest.mark.parametrize("value", [{"a": ["ü"]}, [], 1, "\ufeff"])
def test_leading_mark_is_ignored(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    assert plainjson.loads_sent(MARK + text) == plainjson.loads_sent(text) == value


@pytest.mark.parametrize(
    "text",
    [
        MARK,
        MARK + b" ",
        MARK + MARK + b"{}",
        b" " + MARK + b"{}",
        b"{}" + MARK,
        b"{" + MARK + b"}",
        b"\xef\xbb{}",
        "{}".encode("utf-16"),  # which begins with the mark of UTF-16
        "{}".encode("utf-32"),
        b"\xff\xfe{}",
    ],
)
def test_mark_elsewhere_is_not_json(text: bytes) -> None:
    with pytest.raises(plainjson.NotJson):
        plainjson.loads_sent(text)


def test_mark_on_tape_is_not_json() -> None:
    with pytest.raises(plainjson.NotJson):
        plainjson.loads(MARK + b"{}")


def kinds(items: list[BatchSubmission | Problem]) -> list[str]:
    return [item.kind if isinstance(item, Problem) else item.type for item in items]


@pytest.mark.parametrize(
    ("body", "kind", "found"),
    [
        (MARK + b"[" + ADD + b"," + ADD + b"]", JSON, ["add", "add"]),
        (MARK + ADD + b"\n" + ADD, NDJSON, ["add", "add"]),
        (MARK + ADD + b"\r\n" + ADD + b"\r\n", NDJSON, ["add", "add"]),
        (MARK + b"\n" + ADD, NDJSON, ["add"]),
        (MARK + b"\r\n\r\n" + ADD, NDJSON, ["add"]),
        (MARK + ADD + b"\n" + MARK + ADD, NDJSON, ["add", "add"]),  # two files, joined
        (b"{\n" + MARK + ADD, NDJSON, ["not-json", "add"]),
        (ADD + b"\n{" + MARK + b"}", NDJSON, ["add", "not-json"]),
    ],
)
def test_mark_in_batch(body: bytes, kind: str, found: list[str]) -> None:
    assert kinds(batch_items(body, kind, 10, ANYBODY)) == found


@pytest.mark.parametrize(("body", "kind"), [(MARK, NDJSON), (MARK + b"\n", NDJSON), (MARK, JSON)])
def test_batch_of_only_a_mark_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(Problem):
        batch_items(body, kind, 10, ANYBODY)


def test_mark_in_websocket_message() -> None:
    text = '{"type": "unsubscribe", "id": "a"}'
    assert request_of({"text": "\ufeff" + text}) == request_of({"text": text})
    for wrong in ("\ufeff", "\ufeff\ufeff" + text, text + "\ufeff"):
        with pytest.raises(InvalidRequest):
            request_of({"text": wrong})


def test_mark_in_imported_file() -> None:
    header = TapeHeader("id", "shop", 0, 9)
    event = b'{"specversion":"1.0"}'
    assert read_header(MARK + header_line(header)) == header
    lines = [entry_line(1, event), MARK + entry_line(2, event), end_line(2)]
    assert [line.body for line in read_lines(lines)] == [event, event]
    with pytest.raises(TapeFileInvalid):
        read_header(MARK + MARK + header_line(header))


def test_mark_in_payload_of_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "payload.json"
    file.write_bytes(MARK + b'{"x": 1}\r\n')
    assert payload_of(f"@{file}") == {"x": 1}
    monkeypatch.setattr("sys.stdin", io.StringIO('\ufeff{"x": 1}'))
    assert payload_of("-") == {"x": 1}
    assert payload_of('\ufeff{"x": 1}') == {"x": 1}
    with pytest.raises(WrongUse):
        payload_of("\ufeff")


@pytest.mark.anyio
async def test_mark_in_request_bodies(projected: Api) -> None:
    async def post(path: str, body: bytes, kind: str = JSON, **headers: str) -> httpx.Response:
        return await projected.client.post(path, content=body, headers={"Content-Type": kind, **headers})

    keyed = {"Idempotency-Key": "order-7"}
    first = await post("/jobs", ADD, **keyed)
    marked = await post("/jobs", MARK + ADD, **keyed)
    assert (marked.status_code, marked.json()["id"]) == (202, first.json()["id"]), "it is the same submission"
    for body, kind in ((b"[" + ADD + b"," + ADD + b"]", JSON), (ADD + b"\n" + ADD, NDJSON)):
        assert (await post("/jobs/batch", MARK + body, kind)).json()["accepted"] == 2
    assert (await post("/replays", MARK + b'{"queue": "audit"}')).status_code == 202
    assert (await post("/redrives", MARK + b'{"dry_run": true}')).json()["matched"] == 0
    for action in ("cancel", "redrive"):  # which do not read a body
        assert (await post(f"/jobs/{first.json()['id']}/{action}", MARK + b"{}")).status_code in (202, 409)
    for path in ("/jobs", "/jobs/batch", "/replays", "/redrives", "/cancels"):
        problem(await post(path, MARK), 400, "not-json")
        problem(await post(path, "{}".encode("utf-16")), 400, "not-json")
