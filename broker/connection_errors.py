"""Describes why there is no connection to the broker, and what to change.

When the broker refuses a virtual host, aiormq does not pass on its reason: the frame with the reason is found only in
the traceback (seen with aiormq 7.2.4). Otherwise the class of the error is enough.
"""

import re
import shlex
import socket
import ssl
from traceback import walk_tb
from typing import Final

import aiormq.exceptions
from pamqp import commands
from yarl import URL

from jobtape.schemas.urls import without_password

_NO_VHOST: Final = re.compile(r"vhost .*not found", re.DOTALL)
_NO_PERMISSION: Final = re.compile(r"access to vhost .* refused for user [^:]*$", re.DOTALL)
_ASKS_CERTIFICATE: Final = re.compile(
    r"alert (certificate|handshake failure|bad certificate|unknown ca)", re.IGNORECASE
)
_RESET: Final = re.compile("reset by peer|ConnectionResetError|EOF occurred|broken pipe", re.IGNORECASE)
"""With TLS 1.3 the client has finished its part before a broker refuses it, whose reason may not arrive any more."""
_FILES: Final = "?cafile=/path/to/ca.pem&certfile=/path/to/client.pem&keyfile=/path/to/client.key"
_NOT_AMQP: Final = (aiormq.exceptions.InvalidFrameError, aiormq.exceptions.IncompatibleProtocolError)


def reason_of(error: BaseException) -> str:
    """Return the text of an error, on one line of at most 300 characters."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return " ".join(str(error).split())[:300] or type(error).__name__


def vhost_of(url: str) -> str:
    """Return the virtual host of an AMQP URL, as aiormq reads it."""
    return URL(url).path[1:].replace("%2F", "/") or "/"


def describe_connection_error(url: str, error: BaseException) -> str:
    """Return one line that says why connecting to ``url`` raised ``error``, and what to change. It shows no
    password.
    """
    where = without_password(url)
    if (refusal := _refusal(error)) is not None:
        return _refused(url, where, refusal)
    if isinstance(error, aiormq.exceptions.AuthenticationError | aiormq.exceptions.ProbableAuthenticationError):
        reason = reason_of(error).partition(". For ")[0]
        return f"the broker at {where} refuses the login: {_login(url)} ({reason})"
    cause = error.__cause__ or error
    if isinstance(cause, socket.gaierror):
        return f"no broker at {where}: the host name {URL(url).host} cannot be resolved ({reason_of(error)})"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the broker at {where} cannot be verified ({reason_of(error)}): name the file of its "
            "certificate authority in RABBITMQ_URL, as ?cafile=/path/to/ca.pem"
        )
    if _ASKS_CERTIFICATE.search(str(cause)) or _ASKS_CERTIFICATE.search(str(error)):
        return (
            f"the broker at {where} asks for a certificate, or does not accept the one that it got "
            f"({reason_of(error)}): name its files in RABBITMQ_URL, as {_FILES}"
        )
    if isinstance(cause, ssl.SSLError):
        return (
            f"no broker at {where} that speaks TLS ({reason_of(error)}): write amqp:// in RABBITMQ_URL, or use the "
            "broker's TLS port, usually 5671"
        )
    given = URL(url)
    if given.scheme == "amqps" and "certfile" not in given.query and _RESET.search(f"{error} {cause!r}"):
        return (
            f"the broker at {where} ends the TLS connection ({reason_of(error)}): if it asks for a certificate, name "
            f"its files in RABBITMQ_URL, as {_FILES}, otherwise see its log"
        )
    if isinstance(cause, EOFError) or isinstance(error, _NOT_AMQP):
        return (
            f"no broker at {where} that speaks AMQP ({reason_of(error)}): it may be starting or stopping, or the port "
            "is wrong: the TLS port (usually 5671) needs amqps://, and 15672 is the port of the management API"
        )
    return f"no broker at {where} ({reason_of(error)}): start it, or name another one in RABBITMQ_URL"


def _refused(url: str, where: str, refusal: str) -> str:
    vhost, user = vhost_of(url), URL(url).user or "guest"
    quoted = shlex.quote(vhost)
    allow = f"rabbitmqctl set_permissions -p {quoted} {shlex.quote(user)} '.*' '.*' '.*'"
    if _NO_VHOST.search(refusal):
        return (
            f"the vhost {vhost!r} does not exist on the broker at {where}: create it (rabbitmqctl add_vhost {quoted}, "
            f"then {allow}), or name another one in RABBITMQ_URL, after the port (a / alone is the default one)"
        )
    if _NO_PERMISSION.search(refusal):
        return f"the user {user!r} may not use the vhost {vhost!r} of the broker at {where}: allow it ({allow})"
    return f"the broker at {where} refuses the vhost {vhost!r} for the user {user!r}: {refusal}"


def _login(url: str) -> str:
    user = URL(url).user or "guest"
    text = f"user {user!r} or its password is wrong; see RABBITMQ_URL (percent-encode special characters in it)"
    if user == "guest":
        text = f"{text}, and guest may log in from the broker's own machine only"
    return text


def _refusal(error: BaseException) -> str | None:
    """Return the broker's reason for refusing the virtual host; None when it did not refuse it."""
    if isinstance(error, aiormq.exceptions.ConnectionClosed):
        return reason_of(error)
    if isinstance(error, aiormq.exceptions.InvalidFrameError):
        for frame, _ in walk_tb(error.__traceback__):
            received = frame.f_locals.get("frame")
            if isinstance(received, commands.Connection.Close):
                return received.reply_text
        if "Connection.OpenOk" in str(error) and "Connection.Close" in str(error):
            return "it closes the connection without a reason; see its log"
    return None
