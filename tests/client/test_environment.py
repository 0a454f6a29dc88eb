"""Tests proxies, keys and addresses from the environment, for both clients."""

import os

import pytest

from jobtape import Client, SyncClient
from jobtape.app import create_app
from jobtape.client import Invalid, WrongAddress, WrongKey
from jobtape.schemas.errors import JobtapeError
from tests.client.jobs import add
from tests.producer.running_api import serve, without_broker

KEY = "a-key-for-tests"
SOCKS = {"ALL_PROXY": "socks5://me:secret@proxy:1080"}
ELSEWHERE = "http://api.example:8000"
pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "variables",
    [
        SOCKS,
        {"HTTP_PROXY": "socks5h://127.0.0.1:1"},
        {"http_proxy": "ftp://127.0.0.1:1"},
        {"ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": "[::1,fe80::/:bad,,://"},
        {"HTTPS_PROXY": "://", "HTTP_PROXY": "http://[", "ALL_PROXY": "http://h:many"},
        {"SSL_CERT_FILE": "/nowhere/ca.pem"},
    ],
)
async def test_proxy_is_not_used_for_this_machine(
    variables: dict[str, str], sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for host in ("localhost", "127.0.0.2", "[::1]", "api.localhost"):
        await Client(f"http://{host}:8000").close()
    app = create_app(without_broker(sqlite_url), [add])
    async with serve(app) as port, Client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Invalid, match="nope"):
            await client.submit("nope", {})


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (SOCKS, "ALL_PROXY cannot be used .*httpx.socks"),
        ({"http_proxy": "socks5h://proxy:1080\n"}, "HTTP_PROXY cannot be used .*httpx.socks"),
        ({"HTTP_PROXY": "ftp://me:secret@proxy"}, "HTTP_PROXY .* not one of http://host:port"),
        ({"ALL_PROXY": "http://me:secret@proxy:many"}, "ALL_PROXY .* not one of http://host:port"),
        ({"ALL_PROXY": "http://["}, "ALL_PROXY .* not one of http://host:port"),
        (SOCKS | {"NO_PROXY": "other.example,[::1,10.0.0.0/8"}, "ALL_PROXY cannot be used"),
    ],
)
def test_unusable_proxy_is_wrong_address(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for kind in (Client, SyncClient):
        with pytest.raises(WrongAddress, match=message) as refused:
            kind(ELSEWHERE)
        assert "NO_PROXY" in str(refused.value)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        (ELSEWHERE, "*"),
        (ELSEWHERE, "api.example"),
        (ELSEWHERE, "a.b, .example"),
        (ELSEWHERE, "API.EXAMPLE:8000"),
        ("http://10.1.2.3:8000", "10.0.0.0/8"),
        ("http://[fd00::5]:8000", "[fd00::5]:8000,x"),
        ("http://[fd00::5]:8000", "fd00::/8"),
    ],
)
async def test_no_proxy_hosts_are_reached_directly(url: str, no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", SOCKS["ALL_PROXY"])
    monkeypatch.setenv("NO_PROXY", no_proxy)
    await Client(url).close()


async def test_newline_after_url_and_key_is_removed(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secured = create_app(without_broker(sqlite_url, api_key=f"\ufeff{KEY}\r\n"), [add])
    async with serve(secured) as port:
        monkeypatch.setenv("JOBTAPE_URL", f"http://127.0.0.1:{port}/\n")
        for end in ("\n", "\r\n", " "):
            monkeypatch.setenv("JOBTAPE_API_KEY", f"{KEY}{end}")
            async with Client() as client:
                with pytest.raises(Invalid, match="nope"):
                    await client.submit("nope", {})


@pytest.mark.parametrize("key", ["sésame-öffne-dich", "ключ-от-всех", "two words", "two\nlines"])
def test_key_that_no_header_can_carry_is_refused(key: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients and API refuse the key when they are created, and not later with a 401."""
    for kind in (Client, SyncClient):
        with pytest.raises(WrongKey, match="visible ASCII"):
            kind(api_key=key)
    monkeypatch.setenv("JOBTAPE_API_KEY", key)
    with pytest.raises(WrongKey, match="visible ASCII"):
        Client()
    with pytest.raises(JobtapeError, match="visible ASCII"):
        create_app(without_broker(sqlite_url, api_key=KEY).model_copy(update={"api_key": key}), [add])


@pytest.mark.parametrize("url", ["http://a b/", "http://a\nb/", "http://\udcff/", "http:///jobs", "http://host:port"])
def test_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(WrongAddress, match="JOBTAPE_URL"):
        Client(url)
