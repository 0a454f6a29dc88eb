"""Trims and checks values as an environment, a file with a secret or an orchestrator gives them."""

import ipaddress
import re
from typing import Final

_AROUND: Final = re.compile(r"^[\s\ufeff]+|[\s\ufeff]+$")
# Kubernetes, and Docker's links, set NAME_PORT for each Service: tcp://10.0.0.1:8000, udp://[fd00::1]:53.
_SERVICE: Final = re.compile(r"(tcp|udp|sctp)://\S*", re.IGNORECASE)
_KEY: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


def trimmed(text: str) -> str:
    """Return ``text`` without the white space, line ends and byte order marks around it."""
    return _AROUND.sub("", text)


def is_service_address(text: str) -> bool:
    """Return whether ``text`` is the address of a Service that Kubernetes sets as ``<NAME>_PORT``, not a port."""
    return _SERVICE.fullmatch(trimmed(text)) is not None


def fault_of_key(key: str) -> str | None:
    """Return why ``key`` cannot be an API key, or None. A header can only carry visible ASCII safely."""
    if _KEY.fullmatch(key):
        return None
    return (
        "an API key may contain only visible ASCII characters, without spaces and line ends: choose another one "
        "(python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one)"
    )


def fault_of_url(url: str) -> str | None:
    """Return why ``url`` cannot be a URL, or None. The text does not contain it, because it may have a password."""
    if _CONTROL.search(url):
        return (
            "it contains a line end or a control character: a password that was read from a file often ends in one; "
            "remove it there"
        )
    return None


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
