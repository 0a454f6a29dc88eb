"""Tests ``email.send`` with a real SMTP server on this machine."""

import asyncio
import email
import email.policy
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from examples.jobs import send_email
from examples.mail import MailRefused, MailServerUnreachable, Sent
from examples.mail_catcher import MailCatcher, keep
from jobtape import Context, PayloadInvalid
from tools.processes.ports import free_port

JOB = "0198c0de-0000-7000-8000-000000000001"
LETTER = {"to": "ada@example.org", "subject": "Grüße", "text": "One line.\nÄnother — line.\n.\nAfter a lone dot.\n"}


def context(run: int = 1, attempt: int = 1) -> Context:
    return Context(JOB, "email.send", run, attempt, logging.getLogger(__name__), lambda progress: None)


def read(path: Path) -> Any:
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


def send(monkeypatch: pytest.MonkeyPatch, port: int, ctx: Context, **letter: str) -> Sent:
    monkeypatch.setenv("JOBTAPE_EXAMPLE_SMTP_PORT", str(port))
    sent = send_email(ctx, **(LETTER | letter))
    assert isinstance(sent, Sent)
    return sent


def test_mail_arrives_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> Sent:
        async with MailCatcher(tmp_path) as catcher:
            return await asyncio.to_thread(send, monkeypatch, catcher.port, context())

    sent = asyncio.run(scenario())
    (path,) = tmp_path.iterdir()
    mail = read(path)
    assert (mail["To"], mail["Subject"], mail["From"]) == ("ada@example.org", "Grüße", "jobtape@example.org")
    assert mail["Message-ID"] == sent.message_id
    assert mail.get_content().splitlines() == LETTER["text"].splitlines()  # on the wire, lines end in CR LF


def test_message_id_is_the_same_for_each_execution_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[Sent]:
        async with MailCatcher(tmp_path) as catcher:
            return [
                await asyncio.to_thread(send, monkeypatch, catcher.port, ctx)
                for ctx in (context(), context(attempt=2), context(run=2))
            ]

    first, again, redriven = asyncio.run(scenario())
    assert first.message_id == again.message_id != redriven.message_id
    stem = first.message_id.strip("<>")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([f"{stem}.eml", f"{stem}.2.eml", f"{redriven.message_id.strip('<>')}.eml"])


def test_missing_mail_server_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with pytest.raises(MailServerUnreachable, match=rf"127\.0\.0\.1:{port}.*python -m examples\.mail_catcher"):
        send(monkeypatch, port, context())


def test_refusal_contains_the_servers_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        async def handle_RCPT(self, *_: object) -> str:
            return "550 no such mailbox here"

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Refusing(), hostname="localhost"), "127.0.0.1", 0)
        async with server:
            await asyncio.to_thread(send, monkeypatch, server.sockets[0].getsockname()[1], context())

    with pytest.raises(MailRefused, match=r"ada@example\.org: 550 no such mailbox here"):
        asyncio.run(scenario())


def test_server_without_encryption_is_refused_when_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_EXAMPLE_SMTP_TLS", "starttls")

    async def scenario() -> None:
        async with MailCatcher(tmp_path) as catcher:
            await asyncio.to_thread(send, monkeypatch, catcher.port, context())

    with pytest.raises(MailRefused, match="STARTTLS"):
        asyncio.run(scenario())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fault",
    [
        {"to": "nobody"},
        {"to": "a@b.org\r\nBcc: all@b.org"},
        {"subject": "one\r\nBcc: all@b.org"},
        {"text": "x" * 200_001},
    ],
)
def test_malformed_mail_is_refused_before_sending(fault: dict[str, str]) -> None:
    with pytest.raises(PayloadInvalid):
        send_email.arguments(LETTER | fault)


def test_message_id_cannot_choose_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    folder.mkdir()
    path = keep(folder, b"Message-ID: <../../escaped/x@y>\r\n\r\nhello")
    assert path.parent == folder
    assert [entry.name for entry in tmp_path.iterdir()] == ["mails"]
    assert keep(folder, b"no header at all").name == "no-message-id.eml"


def test_catcher_runs_until_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"JOBTAPE_EXAMPLE_SMTP_PORT": "0", "JOBTAPE_EXAMPLE_MAILS": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "examples.mail_catcher"],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(",")[0].rpartition(":")[2])
        send(monkeypatch, port, context())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert len(list(tmp_path.glob("*.eml"))) == 1
