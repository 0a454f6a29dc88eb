"""Which addresses webhooks may go to: none of networks that are not public, unless the installation allows them.

Whoever can create a webhook must not be able to reach services that only this machine can reach (server-side request
forgery). So a name is looked up at each attempt, *every* address that it has must be allowed, and the request goes to
one of just these addresses.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import httpx

Network = IPv4Network | IPv6Network
PORTS: Final = frozenset({443, 8443})
MOST_URL: Final = 2000
"""Characters."""

# From the IANA registries of special addresses. Python's `is_global` differs between its versions.
_SPECIAL: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)
_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether the address is one of the public Internet. An IPv6 address that leads to an IPv4 address (mapped,
    6to4, NAT64) is public if that one is.
    """
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & (2**32 - 1))
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    return not any(address.version == network.version and address in network for network in _SPECIAL)


def is_listed(address: IPv4Address | IPv6Address, allowed: Collection[Network]) -> bool:
    """Return whether the address, or the IPv4 address that it is mapped to, is in one of the networks."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in allowed)


def fault_of_url(url: httpx.URL, allowed: Collection[Network]) -> str | None:
    """Return why no webhook may have this URL, without a look-up of its name; None if it may."""
    if len(str(url)) > MOST_URL:
        return f"the URL is longer than {MOST_URL} characters"
    if not url.host or url.scheme not in ("https", "http"):
        return "write the URL as https://host/path"
    if url.userinfo:
        return "the URL contains a user or a password: leave it out, the signature shows who sends"
    if url.fragment:
        return "the URL has a fragment, which is never sent: leave out what follows the #"
    try:
        address = ip_address(url.host)
    except ValueError:
        # The look-up at each attempt says which rules apply.
        return None if allowed else _fault_of_public(url)
    return fault_of_addresses(url, [address], allowed)


def fault_of_addresses(
    url: httpx.URL, found: Collection[IPv4Address | IPv6Address], allowed: Collection[Network]
) -> str | None:
    """Return why a request may not go to this URL, whose host has the addresses ``found``; None if it may.

    Where all of them are in the networks ``allowed``, plain HTTP and any port are allowed too.
    """
    if not found:
        return f"the name {url.host} has no address"
    if all(is_listed(address, allowed) for address in found):
        return None
    for address in found:
        if not is_public(address) and not is_listed(address, allowed):
            return (
                f"{url.host} has the address {address}, which is not public: webhooks may only go there if "
                "JOBTAPE_WEBHOOK_ALLOW contains its network"
            )
    return _fault_of_public(url)


def _fault_of_public(url: httpx.URL) -> str | None:
    if url.scheme != "https":
        return "webhooks go over https only"
    if (url.port or 443) not in PORTS:
        return "webhooks may use the ports 443 and 8443"
    return None
