"""Ask an AMQP server for its product and version, over one short connection that declares nothing."""

import asyncio
import logging
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
    """What a server says about itself: ``version`` like "3.10.8"."""

    product: str
    version: str


class UnreachableError(Exception):
    """There is no usable broker. The text is the reason, in one line and without the password."""


def probe(url: str, timeout: float = 5.0) -> Server:
    """Log in at ``url`` and out again, within ``timeout`` seconds. Raises UnreachableError.

    Blocks. It may be called inside a running event loop, since it uses a thread and a loop of its own.
    """
    if not is_unambiguous(url) or urlsplit(url).scheme not in ("amqp", "amqps"):
        raise UnreachableError(
            f"{without_password(url)} is no AMQP URL: write amqp://user:password@host:5672/, and {ENCODE}"
        )
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(lambda: asyncio.run(_probe(url, timeout))).result()


def too_old(server: Server) -> str | None:
    """Return why this server cannot be used, or None if it can."""
    if server.product != "RabbitMQ":
        return f"it is {server.product} and not RabbitMQ"
    numbers = tuple(int(part) for part in server.version.split("+")[0].split(".")[:2] if part.isdigit())
    return f"it is RabbitMQ {server.version}, but Jobtape needs 3.10 or later" if numbers < OLDEST else None


def identity(url: str) -> str:
    """Return ``url-<8 hex digits>``: the same for all spellings of one broker, user and vhost, with any password."""
    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    vhost = unquote(parts.path[1:]) or "/"
    return "url-" + short_hash(f"{unquote(parts.username or 'guest')}@{parts.hostname}:{port}/{vhost}")


async def _probe(url: str, timeout: float) -> Server:
    # It would log what UnreachableError says.
    logger = logging.getLogger("aiormq.connection")
    logger.disabled = True
    try:
        async with asyncio.timeout(timeout):
            connection = await aiormq.connect(url)
            properties = connection.server_properties
            await connection.close()
    except TimeoutError:
        raise UnreachableError(f"{without_password(url)} gave no AMQP answer within {timeout:g} s") from None
    except (OSError, aiormq.exceptions.AMQPError) as error:
        if "Connect call failed" in str(error):
            raise UnreachableError(f"nothing listens at {without_password(url)}") from None
        raise UnreachableError(describe_connection_error(url, error)) from None
    finally:
        logger.disabled = False
    return Server(product=_text(properties["product"]), version=_text(properties["version"]))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
