"""Tests ``email.send`` with a real SMTP server on this machine."""

import email
import email.policy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from examples.jobs import send_email
from examples.mail import MailRefused, MailServerUnreachable, Sent
from jobtape import Context, PayloadInvalid
from tools.processes.ports import free_port

JOB = "0198c0de-0000-7000-8000-000000000001"
LETTER = {"to": "ada@example.org", "subject": "Grüße", "text": "One line.\nÄnother — line.\n.\nAfter a lone dot.\n"}


def context(run: int = 1, attempt: int = 1) -> Context:
    return Context(JOB, "email.send", run, attempt, logging.getLogger(__name__), lambda progress: None)


def read(path: Path) -> Any:
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


@contextmanager
def server(handler: object) -> Iterator[int]:
    """Run an SMTP server for the block, and give its port."""
    controller = Controller(handler, "127.0.0.1", free_port(), server_hostname="localhost")
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def send(monkeypatch: pytest.MonkeyPatch, port: int, ctx: Context, **letter: str) -> Sent:
    monkeypatch.setenv("JOBTAPE_EXAMPLE_SMTP_PORT", str(port))
    sent = send_email(ctx, **(LETTER | letter))
    assert isinstance(sent, Sent)
    return sent


def test_mail_arrives_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(Mailbox(tmp_path / "mails")) as port:
        sent = send(monkeypatch, port, context())
    (path,) = (tmp_path / "mails" / "new").iterdir()
    mail = read(path)
    assert (mail["To"], mail["Subject"], mail["From"]) == ("ada@example.org", "Grüße", "jobtape@example.org")
    assert mail["Message-ID"] == sent.message_id
    assert mail.get_content().splitlines() == LETTER["text"].splitlines()  # on the wire, lines end in CR LF


def test_message_id_is_the_same_for_each_execution_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(Mailbox(tmp_path / "mails")) as port:
        first, again, redriven = (
            send(monkeypatch, port, ctx) for ctx in (context(), context(attempt=2), context(run=2))
        )
    assert first.message_id == again.message_id != redriven.message_id
    assert len(list((tmp_path / "mails" / "new").iterdir())) == 3


def test_missing_mail_server_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with pytest.raises(MailServerUnreachable, match=rf"127\.0\.0\.1:{port}.*python -m aiosmtpd -n -l 127.0.0.1:{port}"):
        send(monkeypatch, port, context())


def test_refusal_contains_the_servers_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        async def handle_RCPT(self, *_: object) -> str:
            return "550 no such mailbox here"

    with server(Refusing()) as port, pytest.raises(MailRefused, match=r"ada@example\.org: 550 no such mailbox here"):
        send(monkeypatch, port, context())


def test_server_without_encryption_is_refused_when_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_EXAMPLE_SMTP_TLS", "starttls")
    with server(Mailbox(tmp_path / "mails")) as port, pytest.raises(MailRefused, match="STARTTLS"):
        send(monkeypatch, port, context())
    assert not list((tmp_path / "mails" / "new").iterdir())


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
