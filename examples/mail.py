"""Sends mail over SMTP.

A job may be executed more than once, for example when a worker dies after the mail server has accepted the mail, and a
mail cannot be taken back. So the message-id is made from the job's idempotency key: mail programs and many servers show
two mails with the same message-id as one.
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

# One line each: a line break would add a header. Only the mail server knows whether the mailbox exists.
Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=254)]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$", max_length=900)]
Text = Annotated[str, Field(max_length=200_000)]


class MailServerUnreachable(Exception):
    """No mail server answers at the address."""


class MailRefused(Exception):
    """The mail server refused the mail."""


class Sent(BaseModel):
    """The accepted mail: its message-id with angle brackets, and the server (``host:port``)."""

    message_id: str
    server: str


@job("email.send", queue="mail", timeout=60)
def send_email(ctx: Context, to: Address, subject: Line, text: Text) -> Sent:
    """Send one plain-text mail through the server that the JOBTAPE_EXAMPLE_SMTP_... variables name.

    Raises MailServerUnreachable, which says what to start or set, and MailRefused with the server's message.
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
            f"no mail server answers on {server} ({error}): start one that keeps the mails in the folder mails with "
            f"`python -m aiosmtpd -n -l {server} -c aiosmtpd.handlers.Mailbox mails`, or name your own with "
            "JOBTAPE_EXAMPLE_SMTP_HOST and JOBTAPE_EXAMPLE_SMTP_PORT"
        ) from error
    ctx.log.info("mail %s accepted by %s", message["Message-ID"], server)
    return Sent(message_id=message["Message-ID"], server=server)


def message_id(idempotency_key: str, sender: str) -> str:
    """Return the message-id of a run's mail, the same for all its attempts and executions."""
    return f"<{re.sub(r'[^A-Za-z0-9-]', '.', idempotency_key)}@{sender.rpartition('@')[2]}>"


def compose(idempotency_key: str, sender: str, to: str, subject: str, text: str) -> EmailMessage:
    """Return the mail, with the current date."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = message_id(idempotency_key, sender)
    message.set_content(text)
    return message


def _connect(settings: Settings) -> smtplib.SMTP:
    """Connect with the encryption of the settings. Raises OSError and SMTPException."""
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
