"""Chooses the proxy between the client and the API from the environment's variables.

httpx can do this too, but its NO_PROXY knows no networks (10.0.0.0/8), and a malformed entry for any address ends in a
traceback. A client uses one address only, so the proxy is chosen once, when the client is made.
"""

import ipaddress
import re
from typing import Final
from urllib.request import getproxies

import httpx

from jobtape.client.errors import WrongAddress
from jobtape.environment import trimmed

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


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Return whether NO_PROXY contains the URL's host.

    Read as curl does: names with their subdomains, addresses, and networks (10.0.0.0/8), each with or without a port.
    """
    host, address = url.host.lower().rstrip("."), _address(url.host)
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    for each in (part.strip().lower() for part in no_proxy.replace(" ", ",").split(",")):
        if each == "*":
            return True
        name = each.rpartition("://")[2]
        bare, colon, digits = name.rpartition(":")
        if colon and digits.isdecimal() and (":" not in bare or bare.endswith("]")):
            if int(digits) != port:
                continue
            name = bare
        name = name.removeprefix("*").strip("[].")
        if address is not None and _holds(name, address):
            return True
        if address is None and name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _holds(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:  # a name, or empty
        return False
