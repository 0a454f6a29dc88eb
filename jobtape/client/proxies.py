"""Which proxy of the environment stands between the client and its API, if any.

A client speaks to one address. So this is settled once, when it is made: what the environment says of other addresses,
or of this machine's own, can do no harm.
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
    """What carries requests to ``url``: directly to this machine and to what NO_PROXY names, otherwise through
    HTTP_PROXY, HTTPS_PROXY or ALL_PROXY where they are set.

    Raises WrongAddress for a proxy that cannot be used, and for certificates that SSL_CERT_FILE names and nobody finds.
    """
    variable, proxy = _proxy_to(url)
    # Certificates are read from the disk at once, also where none is needed.
    secure = url.scheme == "https"
    try:
        return httpx.AsyncHTTPTransport(proxy=proxy, trust_env=secure, verify=secure)
    except ImportError:
        raise _unusable(variable, url, "for SOCKS the package httpx needs its extra: install httpx[socks]") from None
    except OSError as error:  # also ssl.SSLError
        raise WrongAddress(
            f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read ({error}): mend that variable"
        ) from None


def _proxy_to(url: httpx.URL) -> tuple[str, httpx.Proxy | None]:
    """The variable that names the proxy, and the proxy."""
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
        pass  # what the parser says may show a password
    raise _unusable(variable, url, f"its value is none of {', '.join(f'{each}://host:port' for each in SCHEMES)}")


def _unusable(variable: str, url: httpx.URL, why: str) -> WrongAddress:
    return WrongAddress(
        f"the proxy of {variable} cannot be used to reach {url.host} ({why}): mend {variable}, or name {url.host} in "
        "NO_PROXY to go there directly"
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine itself."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """As curl reads NO_PROXY: names with all below them, addresses, networks (10.0.0.0/8), each with a port or not."""
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
    except ValueError:  # a name, or nothing at all
        return False
