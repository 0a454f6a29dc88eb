"""Values as an environment, a secret's file or an orchestrator gives them: trims them, and says what is wrong."""

import re
from typing import Final

_AROUND: Final = re.compile(r"^[\s\ufeff]+|[\s\ufeff]+$")
# What Kubernetes, and Docker's links, put into NAME_PORT for each Service: tcp://10.0.0.1:8000, udp://[fd00::1]:53.
_SERVICE: Final = re.compile(r"(tcp|udp|sctp)://\S*", re.IGNORECASE)
_KEY: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_BROKEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


def trimmed(text: str) -> str:
    """``text`` without white space, line ends and byte order marks around it, as many a secret's file has them."""
    return _AROUND.sub("", text)


def is_service_address(text: str) -> bool:
    """Whether this is the address of a Service, as Kubernetes puts it into ``<NAME>_PORT``, and no port of ours."""
    return _SERVICE.fullmatch(trimmed(text)) is not None


def fault_of_key(key: str) -> str | None:
    """Why ``key`` can be no API key, None when it can. It travels in a header, where only visible ASCII is safe."""
    if _KEY.fullmatch(key):
        return None
    return (
        "an API key has visible ASCII characters only, without spaces and line ends in between: choose another one "
        "(python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one)"
    )


def fault_of_url(url: str) -> str | None:
    """Why ``url`` cannot be one, None when it may be. The text does not show it: it may have a password in it."""
    if _BROKEN.search(url):
        return (
            "there is a line end or a control character within it: a password that was read from a file ends in one, "
            "as a rule; take it away there"
        )
    return None
