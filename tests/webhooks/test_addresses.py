"""Where webhooks may go."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobtape.webhooks.addresses import fault_of_addresses, fault_of_url, is_public

V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)
EDGES = st.sampled_from(
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1"),
        *("198.18.0.1", "224.0.0.1", "255.255.255.255", "8.8.8.8", "1.1.1.1"),
    ]
).map(IPv4Address)


@given(V4 | V6)
@example(ip_address("224.0.0.1"))
@example(ip_address("ff0e::1"))
def test_public_address_is_global_for_python_too(address: IPv4Address | IPv6Address) -> None:
    if is_public(address) and not (isinstance(address, IPv6Address) and _inner(address)):
        assert address.is_global
        assert not address.is_multicast


@given(V4 | EDGES)
def test_ipv6_address_of_ipv4_address_is_as_public_as_that(address: IPv4Address) -> None:
    public = is_public(address)
    number = int(address)
    assert is_public(IPv6Address((0xFFFF << 32) | number)) is public  # mapped
    assert is_public(IPv6Address((0x2002 << 112) | (number << 80))) is public  # 6to4
    assert is_public(IPv6Address((0x0064FF9B << 96) | number)) is public  # NAT64


def _inner(address: IPv6Address) -> bool:
    return bool(address.ipv4_mapped or address.sixtofour or address in ip_network("64:ff9b::/96"))


@pytest.mark.parametrize(
    "text",
    [
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "64:ff9b:1::7f00:1", "2001::1", "2001:db8::1"),
        *("3fff::1", "::127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "100::1", "192.0.0.8", "203.0.113.5"),
    ],
)
def test_special_address_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["93.184.215.14", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_ordinary_address_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://example.org/hook?a=1", None),
        ("https://example.org:8443/", None),
        ("http://example.org/", "https only"),
        ("https://example.org:22/", "443 and 8443"),
        ("https://user:pass@example.org/", "user or a password"),
        ("https://user@example.org/", "user or a password"),
        ("ftp://example.org/", "https://host/path"),
        ("https:///nothing", "https://host/path"),
        ("/hook", "https://host/path"),
        ("https://example.org/#part", "fragment"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::ffff:169.254.169.254]/", "not public"),
        ("https://8.8.8.8/", None),
        (f"https://example.org/{'x' * 2000}", "longer"),
    ],
)
def test_url_is_checked_without_look_up(url: str, fault: str | None) -> None:
    found = fault_of_url(httpx.URL(url), [])
    assert found is None if fault is None else found is not None and fault in found


def test_allowed_networks_may_be_reached_by_any_port_without_tls() -> None:
    allowed = [ip_network("10.0.0.0/8")]
    inside, outside, public = (ip_address(text) for text in ("10.0.0.1", "192.168.0.1", "8.8.8.8"))
    plain, secure = httpx.URL("http://a.test:8080/"), httpx.URL("https://a.test/")
    assert fault_of_url(plain, allowed) is None
    assert fault_of_addresses(plain, [inside], allowed) is None
    assert fault_of_addresses(plain, [ip_address("::ffff:10.0.0.1")], allowed) is None
    # One address that is not allowed is enough, and what is public keeps the rules for public addresses.
    assert "192.168.0.1" in (fault_of_addresses(secure, [inside, outside], allowed) or "")
    assert fault_of_addresses(plain, [inside, public], allowed) == "webhooks go over https only"
    assert fault_of_addresses(secure, [inside, public], allowed) is None
    assert fault_of_addresses(secure, [], allowed) == "the name a.test has no address"
