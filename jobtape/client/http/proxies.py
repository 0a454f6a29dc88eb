"""Chooses the proxy between the client and the API from the environment's variables.

httpx can do this too, but a malformed entry for any address ends in a traceback. A client uses one address only, so the
proxy is chosen once, when the client is made.
"""

import ipaddress
import re
from contextlib import suppress
from typing import Final
from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import httpx

from jobtape.client.errors import WrongAddress
from jobtape.environment import is_loopback, trimmed

SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_HOST: Final = re.compile(r"[^\s/\[\]@%]+")


def transport_to(url: httpx.URL) -> httpx.AsyncHTTPTransport:
    """Return the transport for requests to ``url``.

    It connects directly to this machine and to the hosts in NO_PROXY, otherwise through HTTP_PROXY, HTTPS_PROXY or
    ALL_PROXY if set. Raises WrongAddress when the proxy cannot be used, or the certificates of SSL_CERT_FILE or
    SSL_CERT_DIR cannot be read.
    """
    variable, proxy = _proxy_to(url)
    # httpx would read certificates from disk here even for http://, where none are needed.
    secure = url.scheme == "https"
    try:
        return httpx.AsyncHTTPTransport(proxy=proxy, trust_env=secure, verify=secure)
    except ImportError:
        raise _unusable(variable, url, "for SOCKS the package httpx needs its extra: install httpx[socks]") from None
    except OSError as error:  # also ssl.SSLError
        raise WrongAddress(
            f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read ({error}): correct that variable"
        ) from None


def _proxy_to(url: httpx.URL) -> tuple[str, httpx.Proxy | None]:
    """Return the variable that names the proxy, and the proxy; ("", None) for a direct connection."""
    proxies = {name: trimmed(value) for name, value in getproxies().items()}
    scheme = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    if scheme is None or is_loopback(url.host) or _is_exempt(url, proxies.get("no", "")):
        return "", None
    variable, given = f"{scheme.upper()}_PROXY", proxies[scheme]
    try:
        proxy = httpx.URL(given if "://" in given else f"http://{given}")
        if proxy.scheme in SCHEMES and _HOST.fullmatch(proxy.host):
            return variable, httpx.Proxy(proxy)
    except (httpx.InvalidURL, ValueError):
        pass  # the parser's message may contain a password
    raise _unusable(variable, url, f"its value is not one of {', '.join(f'{each}://host:port' for each in SCHEMES)}")


def _unusable(variable: str, url: httpx.URL, why: str) -> WrongAddress:
    return WrongAddress(
        f"the proxy of {variable} cannot be used to reach {url.host} ({why}): correct {variable}, or add {url.host} to "
        "NO_PROXY to connect directly"
    )


def _is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Return whether NO_PROXY contains the URL's host: its name or a parent's, its address, or a network with it."""
    if proxy_bypass_environment(url.netloc.decode(), {"no": no_proxy}):
        return True
    for each in no_proxy.split(","):
        with suppress(ValueError):  # a name, or malformed
            if ipaddress.ip_address(url.host) in ipaddress.ip_network(each.strip(), strict=False):
                return True
    return False
