"""Asks an AMQP server who it is, in one short connection that declares nothing."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aiormq

from jobtape.broker.connection_errors import describe_connection_error
from jobtape.schemas.urls import ENCODE, is_unambiguous, without_password
from tools.clone import short_hash

# Streams exist from 3.9, at-least-once dead-lettering from 3.10.
OLDEST = (3, 10)


@dataclass(frozen=True)
class Server:
    """What a server says of itself: `version` as "3.10.8"."""

    product: str
    version: str


class UnreachableError(Exception):
    """No usable broker there; the text is the reason, in one line and without the password."""


def probe(url: str, timeout: float = 5.0) -> Server:
    """Logs in at `url` and out again, within `timeout` seconds; raises UnreachableError.

    Works inside a running event loop as well: it brings a thread and a loop of its own.
    """
    if not _is_amqp(url):
        raise UnreachableError(
            f"{without_password(url)} is no AMQP URL: write amqp://user:password@host:5672/, and {ENCODE}"
        )
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(lambda: asyncio.run(_probe(url, timeout))).result()


def too_old(server: Server) -> str | None:
    """The reason why this server can't be used, None when it can."""
    if server.product != "RabbitMQ":
        return f"it is {server.product} and not RabbitMQ"
    numbers = tuple(int(part) for part in server.version.split("+")[0].split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return f"it is RabbitMQ {server.version}, and 3.10 is the oldest that will do"
    return None


def identity(url: str) -> str:
    """`url-<8 hex digits>`: the same for spellings of one broker, user and vhost, whatever the password."""
    parts = urlsplit(url)
    vhost = unquote(parts.path[1:]) or "/"
    return "url-" + short_hash(f"{unquote(parts.username or 'guest')}@{parts.hostname}:{_port(url)}/{vhost}")


def _is_amqp(url: str) -> bool:
    return is_unambiguous(url) and urlsplit(url).scheme in ("amqp", "amqps")


def _port(url: str) -> int:
    """The port, with AMQP's default; raises ValueError when the URL holds something else there."""
    parts = urlsplit(url)
    return parts.port or (5671 if parts.scheme == "amqps" else 5672)


async def _probe(url: str, timeout: float) -> Server:
    where = without_password(url)
    try:
        async with asyncio.timeout(timeout):
            await _listens(url)
            with _quiet(logging.getLogger("aiormq.connection")):
                connection = await aiormq.connect(url)
            properties = connection.server_properties
            await connection.close()
    except TimeoutError:
        raise UnreachableError(f"{where} gave no AMQP answer within {timeout:g} s") from None
    except (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError):
        raise UnreachableError(f"{where} refuses this user and password") from None
    except aiormq.exceptions.ProtocolSyntaxError as error:
        raise UnreachableError(f"{where} refuses this virtual host: {describe_connection_error(url, error)}") from None
    except (OSError, aiormq.exceptions.AMQPError) as error:
        raise UnreachableError(f"{where} can't be connected to: {_text(error)}") from None
    return Server(product=_field(properties, "product"), version=_field(properties, "version"))


async def _listens(url: str) -> None:
    """A plain connection first: its error says what is wrong, without a log line of the AMQP library."""
    _, writer = await asyncio.open_connection(urlsplit(url).hostname, _port(url))
    writer.close()


def _text(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "nothing listens there"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _field(properties: object, name: str) -> str:
    value = properties.get(name, "unknown") if isinstance(properties, dict) else "unknown"
    return value.decode() if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
