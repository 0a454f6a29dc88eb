"""A mail server for experiments: it accepts every mail, forwards none, and keeps each one as an ``.eml`` file.

``python -m examples.mail_catcher`` runs it until Ctrl-C or SIGTERM. It has no authentication and no encryption, so it
listens on the loopback interface only. Needs aiosmtpd, a development dependency.
"""

import asyncio
import email
import re
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from aiosmtpd.smtp import SMTP, Envelope, Session

from examples.settings import Settings

MAX_MAIL_BYTES = 10_000_000


class MailCatcher:
    """An SMTP server on 127.0.0.1 that keeps mails in ``folder``; it runs inside ``async with``.

    With ``port`` 0 it chooses a free port and sets ``port``. Raises OSError when the port is taken.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "MailCatcher":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = await asyncio.get_running_loop().create_server(
            # Without a hostname it would look one up in the DNS, which blocks the event loop.
            lambda: SMTP(self, data_size_limit=MAX_MAIL_BYTES, hostname="mail-catcher.localhost"),
            "127.0.0.1",
            self.port,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail, then answer the client. aiosmtpd calls this for each mail."""
        content: Any = envelope.content
        await asyncio.to_thread(keep, self.folder, bytes(content))
        return "250 kept"


def keep(folder: Path, content: bytes) -> Path:
    """Write a mail to ``<message-id>.eml``; another one with this message-id to ``<message-id>.2.eml``, and so on."""
    message_id = email.message_from_bytes(content).get("Message-ID", "no-message-id")
    stem = re.sub(r"[^A-Za-z0-9@-]+", ".", message_id).strip(".")[:120] or "no-message-id"
    part = folder / f".{uuid4().hex}.part"
    part.write_bytes(content)
    count = 1
    while True:
        path = folder / (f"{stem}.eml" if count == 1 else f"{stem}.{count}.eml")
        try:
            # A link fails when the name exists, so no mail is overwritten, and no file is ever incomplete.
            path.hardlink_to(part)
        except FileExistsError:
            count += 1
        else:
            part.unlink()
            return path


async def _serve(folder: Path, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with MailCatcher(folder, port) as catcher:
        print(f"catching mail on 127.0.0.1:{catcher.port}, keeping it in {folder}", flush=True)
        await stop.wait()


def main() -> int:
    """Run on JOBTAPE_EXAMPLE_SMTP_PORT and keep mails in JOBTAPE_EXAMPLE_MAILS. Returns 1 when the port is taken."""
    settings = Settings()
    try:
        asyncio.run(_serve(settings.mails, settings.smtp_port))
    except OSError as error:
        print(f"the mail catcher can't start: {error}; set JOBTAPE_EXAMPLE_SMTP_PORT", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
