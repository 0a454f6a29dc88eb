"""Which databases a URL names. No error shows a password."""

import traceback

import pytest

from jobtape.schemas.errors import JobtapeError
from jobtape.view.sql.urls import parse_url
from jobtape.view.store import Store
from tests.schemas.test_urls import MALFORMED, SECRETS

MORE = [
    "postgresql://me:hun@ter2@host/x",
    "postgresql://me:@hunter2@host/x",
    "postgresql://me:hunter2@@host/x",
    "postgresql://me:hun@ter2/w@host/x",
    "postgresql://me:hun@ter2?w@host/x",
    "postgresql://me:hun@ter2?w=1@host/x",
    "postgresql://me:hun@ter2#w@host/x",
    "postgresql://me:hun@ter2:w@host/x",
    "postgresql://me:x@host:hunter2/x",
    "postgresql://me:x@host/x?hunter2",
    "postgresql://me:x@host/x#hunter2",
    "hunter2://me@host/x",
    "mysql://me:hunter2@host/x",
    "sqlite://me:hunter2@host",
]
UNAMBIGUOUS = [
    # SQLAlchemy accepts these passwords as they are.
    ("postgresql://me:hun/ter2@host/x", "hun/ter2"),
    ("postgresql://me:hun#ter2@host/x", "hun#ter2"),
    ("postgresql://me:hun?ter2@host/x", "hun?ter2"),
    ("postgresql://me:hun:ter2@host/x", "hun:ter2"),
    ("postgresql://me:hun%ter2@host/x", "hun%ter2"),
    ("postgresql://me:hun%40ter2@host/x", "hun@ter2"),
    ("postgres://me@cloud:hunter2@host,other/x", "hunter2"),
    (" postgresql://me:hunter2@[::1]:5433/x?sslmode=require\n", "hunter2"),
    ("postgresql://me:hunter2@/x?host=a:1&host=b:2", "hunter2"),
    ("postgresql:///x?host=/run/postgresql&password=hunter2", None),
]


@pytest.mark.parametrize("url", [*(each.format(scheme="postgresql") for each in MALFORMED), *MORE])
def test_url_error_shows_no_password(url: str) -> None:
    try:
        shown = Store(url).url_for_messages
    except JobtapeError as error:
        shown = "".join(traceback.format_exception(error)).partition("JobtapeError: ")[2]
        assert "percent-encode" in shown or "postgresql://user:password@host/database" in shown
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(("url", "password"), UNAMBIGUOUS)
def test_unambiguous_url_is_accepted(url: str, password: str | None) -> None:
    assert parse_url(url).password == password
    shown = Store(url).url_for_messages
    assert not any(secret in shown for secret in SECRETS)
