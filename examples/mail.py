"""Mail over SMTP.

A job may be executed more than once (a worker dies between the server's "accepted" and its own report), and no mail
server undoes a mail. So the message-id is made from the job's idempotency key: mail programs and many servers show
two mails of one message-id as one, and a test can tell a repeat from a second mail.
"""

import re
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import Annotated

from pydantic import BaseModel, Field

from examples.settings import Settings
from jobtape import Context, job

# One line each: a line break would begin a header of the caller's own. Whether the mailbox exists, its server knows.
Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=254)]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$", max_length=900)]
Text = Annotated[str, Field(max_length=200_000)]


class MailServerUnreachable(Exception):
    """Nobody answers at the address of the mail server."""


class MailRefused(Exception):
    """The mail server answered, and said no."""


class Sent(BaseModel):
    """What the server accepted: the message-id with its angle brackets, and who took it (``host:port``)."""

    message_id: str
    server: str


@job("email.send", queue="mail", timeout=60)
def send_email(ctx: Context, to: Address, subject: Line, text: Text) -> Sent:
    """Send one plain-text mail through the server that the JOBTAPE_EXAMPLE_SMTP_... variables name.

    Raises MailServerUnreachable with what to start or set, and MailRefused with the server's own words.
    """
    settings = Settings()
    message = compose(ctx.idempotency_key, settings.smtp_sender, to, subject, text)
    server = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        with _connect(settings) as smtp:
            if settings.smtp_user is not None and settings.smtp_password is not None:
                smtp.login(settings.smtp_user, settings.smtp_password.get_secret_value())
            smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        code, words = next(iter(error.recipients.values()))
        raise MailRefused(f"{server} does not take mail for {to}: {code} {words.decode(errors='replace')}") from error
    except smtplib.SMTPException as error:
        raise MailRefused(f"{server} did not take the mail: {error}") from error
    except OSError as error:
        raise MailServerUnreachable(
            f"no mail server answers on {server} ({error}): start the local catcher with "
            "`python -m examples.mail_catcher`, or name your own server with JOBTAPE_EXAMPLE_SMTP_HOST and "
            "JOBTAPE_EXAMPLE_SMTP_PORT"
        ) from error
    ctx.log.info("mail %s taken by %s", message["Message-ID"], server)
    return Sent(message_id=message["Message-ID"], server=server)


def message_id(idempotency_key: str, sender: str) -> str:
    """The message-id of the mail of one run, the same for all its attempts and executions."""
    return f"<{re.sub(r'[^A-Za-z0-9-]', '.', idempotency_key)}@{sender.rpartition('@')[2]}>"


def compose(idempotency_key: str, sender: str, to: str, subject: str, text: str) -> EmailMessage:
    """The mail as it goes over the wire, dated now."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = message_id(idempotency_key, sender)
    message.set_content(text)
    return message


def _connect(settings: Settings) -> smtplib.SMTP:
    """A connection, secured as the settings want it. Raises OSError and SMTPException."""
    host, port, timeout = settings.smtp_host, settings.smtp_port, settings.smtp_timeout
    if settings.smtp_tls == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout, context=ssl.create_default_context())
    smtp = smtplib.SMTP(host, port, timeout=timeout)
    if settings.smtp_tls == "starttls":
        try:
            smtp.starttls(context=ssl.create_default_context())
        except BaseException:
            smtp.close()
            raise
    return smtp
