"""No URL is shown with a password, however it is written."""

import pytest

from jobtape.schemas.urls import HIDDEN, each_url, is_unambiguous, without_password

SECRETS = ("hun", "ter2")
"""The two parts of a password; neither may be shown."""
MALFORMED = [
    "{scheme}://me:hun/ter2@host/x",
    "{scheme}://me:hun#ter2@host/x",
    "{scheme}://me:hun?ter2@host/x",
    "{scheme}://me:hun?ter2=1@host/x",
    "{scheme}://me:1/hun@ter2@host/x",
    "{scheme}://me:1?hunter2@host/x",
    "{scheme}://me:1#hunter2@host/x",
    "{scheme}://me:hun[ter2@host/x",
    "{scheme}://me:hun]ter2@host/x",
    "{scheme}://me:hun ter2@host/x",
    "{scheme}://me:hun\nter2@host/x",
    "{scheme}:me:hunter2@host/x",
    "{scheme}:/me:hunter2@host/x",
    "{scheme}//me:hunter2@host/x",
    "me:hunter2@host/x",
    "://me:hunter2@host/x",
    "hun ter2",
    "host=host user=me password=hunter2",
    "me:hun@ter2:5672",
]
READABLE = [
    ("{scheme}://me:hunter2@host:5672/x", "{scheme}://me@host:5672/x"),
    ("{scheme}://me:hun@ter2@host/x", "{scheme}://me@host/x"),
    ("{scheme}://me:hun:ter2@host/x", "{scheme}://me@host/x"),
    ("{scheme}://me:hun%ter2@host/x", "{scheme}://me@host/x"),
    ("{scheme}://me:hun%40ter2@host/%2Fx", "{scheme}://me@host/%2Fx"),
    ("{scheme}://host/x?password=hunter2", "{scheme}://host/x"),
    ("{scheme}://:hunter2@[::1]:5672/", "{scheme}://@[::1]:5672/"),
]


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "http"])
@pytest.mark.parametrize("url", MALFORMED)
def test_ambiguous_url_is_hidden(url: str, scheme: str) -> None:
    given = url.format(scheme=scheme)
    assert not is_unambiguous(given)
    assert without_password(given) == HIDDEN


@pytest.mark.parametrize(("url", "shown"), READABLE)
def test_url_is_shown_without_password(url: str, shown: str) -> None:
    assert is_unambiguous(url.format(scheme="amqp"))
    assert without_password(url.format(scheme="amqp")) == shown.format(scheme="amqp")


@pytest.mark.parametrize(
    ("urls", "found"),
    [
        ("amqp://a:5672/", ["amqp://a:5672/"]),
        ("amqp://u:p@a:1,b,c:2/v?heartbeat=5", [f"amqp://u:p@{each}/v?heartbeat=5" for each in ("a:1", "b", "c:2")]),
        ("amqp://u:p,w@a,b", ["amqp://u:p,w@a", "amqp://u:p,w@b"]),
        ("amqps://u:p@a/v, amqp://b:1/", ["amqps://u:p@a/v", "amqp://b:1/"]),
        ("amqp://u:p@[::1]:1,[::2]:2/", ["amqp://u:p@[::1]:1/", "amqp://u:p@[::2]:2/"]),
        ("amqps://a,b/v?cafile=/x,y.pem", ["amqps://a/v?cafile=/x,y.pem", "amqps://b/v?cafile=/x,y.pem"]),
    ],
)
def test_each_host_has_a_url(urls: str, found: list[str]) -> None:
    assert each_url(urls) == found
