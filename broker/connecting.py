"""Says why there is no connection to the broker, in words that name what to change.

aiormq keeps the broker's own words to itself where it refuses a virtual host: the frame that has them is only found in
the traceback (aiormq 7.2.4, *tried*). The kind of the error says the rest.
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
_MAY_NOT: Final = re.compile(r"access to vhost .* refused for user [^:]*$", re.DOTALL)
_FROM_ELSEWHERE: Final = (
    aiormq.exceptions.InvalidFrameError,
    aiormq.exceptions.IncompatibleProtocolError,
)


def reason_of(error: BaseException) -> str:
    """An error in one short line."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return " ".join(str(error).split())[:300] or type(error).__name__


def vhost_of(url: str) -> str:
    """The virtual host that an AMQP URL names, as aiormq reads it."""
    return URL(url).path[1:].replace("%2F", "/") or "/"


def why_not_connected(url: str, error: BaseException) -> str:
    """Why no connection could be made to the broker at ``url``, in one line that says what to change."""
    where = without_password(url)
    if (refusal := _refusal(error)) is not None:
        return _refused(url, where, refusal)
    if isinstance(error, aiormq.exceptions.AuthenticationError | aiormq.exceptions.ProbableAuthenticationError):
        return f"no broker at {where} for this user: {_login(url)} ({reason_of(error).partition('. For ')[0]})"
    cause = error.__cause__ or error
    if isinstance(cause, socket.gaierror):
        return f"no broker at {where}: the name {URL(url).host} is not known here ({reason_of(error)})"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"no broker at {where} that can be trusted: its certificate is refused ({reason_of(error)}); name the "
            "authority's file in RABBITMQ_URL, as ?cafile=/path/to/ca.pem"
        )
    if isinstance(cause, ssl.SSLError):
        return (
            f"no broker at {where} that speaks TLS ({reason_of(error)}): write amqp:// in RABBITMQ_URL, or name the "
            "broker's port for TLS, 5671 as a rule"
        )
    if isinstance(cause, EOFError) or isinstance(error, _FROM_ELSEWHERE):
        return (
            f"no broker at {where} that answers as one ({reason_of(error)}): it may be starting or stopping, or the "
            "port is another one's: that for TLS wants amqps:// (5671 as a rule), and 15672 is the management API's"
        )
    return f"no broker at {where}: {reason_of(error)}"


def _refused(url: str, where: str, refusal: str) -> str:
    vhost, user = vhost_of(url), URL(url).user or "guest"
    quoted = shlex.quote(vhost)
    allow = f"rabbitmqctl set_permissions -p {quoted} {shlex.quote(user)} '.*' '.*' '.*'"
    if _NO_VHOST.search(refusal):
        return (
            f"the vhost {vhost!r} does not exist on the broker at {where}: make it (rabbitmqctl add_vhost {quoted}, "
            f"then {allow}), or name another one in RABBITMQ_URL, behind the port (a / alone is the default one)"
        )
    if _MAY_NOT.search(refusal):
        return f"the user {user!r} may not use the vhost {vhost!r} of the broker at {where}: allow it ({allow})"
    return f"the broker at {where} refuses the vhost {vhost!r} for the user {user!r}: {refusal}"


def _login(url: str) -> str:
    user = URL(url).user or "guest"
    text = f"it does not know {user!r} with this password; see RABBITMQ_URL (what is special in it is percent-encoded)"
    if user == "guest":
        text = f"{text}, and guest is let in from the broker's own machine only"
    return text


def _refusal(error: BaseException) -> str | None:
    """What the broker said when it refused to open the virtual host; None when it has not."""
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
