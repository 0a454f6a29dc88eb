"""Tests that text from jobs cannot control a terminal, and that escaped JSON keeps its value."""

import json
import os
import pty
import unicodedata

import httpx
import pytest

from jobtape import SyncClient
from jobtape.cli import printing as show
from jobtape.cli.commands import repairs
from jobtape.cli.escaping import json_text, lines, one_line
from jobtape.cli.supervisor.child import Output
from jobtape.client.http.answers import Answer

HOSTILE = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *"\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2060\ufeff\u00ad\u180e\ufff9",
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xE0001, 0xE0041, 0xD800, 0xDFFF)),
]
VISIBLE = "ümlaut 漢字\u3000\u00a0עברית عربي e\u0301 👍 [red]not[/red] :smile:"  # noqa: RUF001
EVIL = "no\x1b[31m\x9b2J\u202egnp.exe\u200b\u2066x\r\nway [red]loud[/red] :bomb: ü"


def is_visible(text: str) -> bool:
    """Return whether no character of ``text`` is invisible or controls a terminal."""
    return all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text)


@pytest.mark.parametrize("letter", HOSTILE, ids=ascii)
def test_invisible_characters_are_escaped(letter: str) -> None:
    shown = one_line(f"a{letter}b")
    assert is_visible(shown)
    assert shown == f"a{letter.encode('unicode_escape').decode()}b"
    if letter not in "\t\n":
        assert is_visible(lines(f"a{letter}b").replace("\n", ""))
    document = json.dumps({letter: [letter]}, ensure_ascii=False, indent=2)
    assert is_visible(json_text(document).replace("\n", ""))
    assert json.loads(json_text(document)) == {letter: [letter]}


def test_visible_text_is_unchanged() -> None:
    assert one_line(VISIBLE) == lines(VISIBLE) == json_text(VISIBLE) == VISIBLE


def job(**more: object) -> dict[str, object]:
    """Return a job as the API shows it, with ``EVIL`` in every text."""
    times = dict.fromkeys(("submitted_at", "started_at", "finished_at"), "2026-01-31T12:00:00+00:00")
    texts = dict.fromkeys(("id", "type", "queue", "reason", "correlation_id"), EVIL)
    return {
        **times,
        **texts,
        "state": "failed",
        "labels": {EVIL: EVIL},
        "payload": {EVIL: EVIL},
        "result": EVIL,
        "attempt": 1,
        "max_attempts": 3,
        "progress": {"fraction": 0.5, "message": EVIL},
        "error": {"type": EVIL, "message": EVIL, "traceback": EVIL},
        **more,
    }


EVENT = {
    "cursor": EVIL,
    "type": f"jobtape.job.{EVIL}",
    "subject": EVIL,
    "time": "2026-01-31T12:00:00+00:00",
    "data": {"job_type": EVIL, "run": EVIL, "attempt": 1, "error": {"type": EVIL, "message": EVIL}},
}
SUBSCRIPTION = {"name": EVIL, "position": {"cursor": 1, "idle": 2.0, "owner": EVIL}, "queue": None}
AT = "2026-01-31T12:00:00+00:00"
FAILURE = {
    **dict.fromkeys(("id", "type", "error", "reason", "where"), EVIL),
    **{"last": AT, "failed": 1, "retrying": 2, "jobs": 0},
}
NUMBERS = {"jobs": {EVIL: 1}, "events": {EVIL: 2}, "wait": None, "run": {"n": 1, "p50": 0.1, "p99": 2.0}}
DEAD = {"id": EVIL, "at": "2026-01-31T12:00:00+00:00", "size": EVIL, "reason": EVIL}


def test_all_texts_of_a_job_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_job(job())
    show.print_job(job(state=EVIL))
    show.print_failure(job())
    show.print_jobs({"items": [job()], "next": None})
    show.print_events([EVENT])
    show.print_delivered(EVENT)
    show.print_subscriptions([SUBSCRIPTION])
    show.print_dead({"items": [DEAD], "next": None})
    show.print_failures([FAILURE])
    show.print_stats({"series": {"since": AT, "until": AT}, "types": [{"type": EVIL, **NUMBERS}], "queues": []})
    show.print_json(job()["result"])
    show.print_json_line(job())
    out, err = capsys.readouterr()
    for text in (out, err):
        assert [line for line in text.splitlines() if not is_visible(line)] == []
    assert out.count("[red]loud[/red] :bomb: ü") > 20, "markup is printed as text"


def test_escaped_json_has_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_json(job())
    assert json.loads(capsys.readouterr().out) == job()


def test_supervisor_escapes_output_of_parts(capsys: pytest.CaptureFixture[str]) -> None:
    Output(["worker"]).line("worker", "\tü " + EVIL.replace("\r\n", "\r"), error=False)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("worker  | \tü no\\x1b[31m")
    assert is_visible(line.replace("\t", ""))


def test_binary_body_is_escaped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, the body of a dead message is printed escaped."""
    message = {"at": "then", "size": 4, "reason": "odd", "text": None, "base64": "G1szMW3/"}
    monkeypatch.setattr(SyncClient, "request", lambda *_: Answer(message, httpx.Headers()))
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        repairs.dead_show(7, url="http://127.0.0.1:1")
        terminal.flush()
        assert os.read(ours, 100) == b"\\x1b[31m\\xff\r\n"
    os.close(ours)
