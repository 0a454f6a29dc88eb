"""Tests settings from environments of orchestrators and secret files: each part starts, or reports the reason."""

import logging
import signal

import pytest

from jobtape.cli.errors import CannotStart
from jobtape.cli.parts.start import settings_with
from jobtape.environment import trimmed
from jobtape.schemas.errors import JobtapeError
from jobtape.settings import Settings, read_settings
from jobtape.view.sql.urls import parse_url
from tests.cli.installation import Installation

KEY = "sesame-open"
# The variables that Kubernetes sets for Services named jobtape, jobtape-api, jobtape-db and rabbitmq.
SERVICE_LINKS = {
    "JOBTAPE_SERVICE_HOST": "10.0.0.1",
    "JOBTAPE_SERVICE_PORT": "8000",
    "JOBTAPE_SERVICE_PORT_HTTP": "8000",
    "JOBTAPE_PORT": "tcp://10.0.0.1:8000",
    "JOBTAPE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "JOBTAPE_PORT_8000_TCP_PROTO": "tcp",
    "JOBTAPE_PORT_8000_TCP_PORT": "8000",
    "JOBTAPE_PORT_8000_TCP_ADDR": "10.0.0.1",
    "JOBTAPE_API_SERVICE_HOST": "10.0.0.2",
    "JOBTAPE_API_PORT": "tcp://10.0.0.2:80",
    "JOBTAPE_DB_SERVICE_PORT": "5432",
    "JOBTAPE_DB_PORT_5432_TCP_ADDR": "10.0.0.3",
    "RABBITMQ_SERVICE_HOST": "10.0.0.4",
    "RABBITMQ_PORT": "tcp://10.0.0.4:5672",
}


@pytest.mark.parametrize(
    ("variable", "value", "default"),
    [
        ("JOBTAPE_PORT", "tcp://10.0.0.1:8000", 8000),
        ("JOBTAPE_PORT", "tcp://[fd00::1]:8000", 8000),
        ("JOBTAPE_PORT", "UDP://10.0.0.1:8000\n", 8000),
        ("JOBTAPE_HEALTH_PORT", "sctp://10.0.0.1:9000", 0),
    ],
)
def test_service_address_counts_as_absent(
    variable: str, value: str, default: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, value)
    field = variable.removeprefix("JOBTAPE_").lower()
    with caplog.at_level(logging.WARNING):
        assert getattr(read_settings(), field) == default
        assert f"{variable}={value.strip()} is not ours: Kubernetes sets it" in caplog.text
        assert f"the default, {default}" in caplog.text
        caplog.clear()
        assert getattr(read_settings(**{field: 1234}), field) == 1234
        assert not caplog.text, "an override needs no warning"


def test_service_variables_do_not_change_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read_settings()
    for variable, value in SERVICE_LINKS.items():
        monkeypatch.setenv(variable, value)
    assert read_settings() == plain


def test_part_warns_once_of_service_variable(installation: Installation) -> None:
    program = installation.start("worker", **SERVICE_LINKS)
    program.line_with("jobtape: JOBTAPE_PORT=tcp://10.0.0.1:8000 is not ours")
    program.line_with("trying again until it answers")
    program.send(signal.SIGTERM)
    assert program.code() == 0
    assert sum("is not ours" in line for line in program.lines) == 1


def test_port_option_overrides_service_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_PORT", "tcp://10.0.0.1:8000")
    assert settings_with(port="8123").port == 8123
    with pytest.raises(CannotStart, match="is the address of a Service: give a port number"):
        settings_with(port="tcp://10.0.0.2:8000")


def test_malformed_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("http://10.0.0.1:8000", "10.0.0.1:8000", "many", ""):
        monkeypatch.setenv("JOBTAPE_PORT", value)
        with pytest.raises(JobtapeError, match="JOBTAPE_PORT: Input should be a valid integer"):
            read_settings()


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}\t", "\ufeff{}", "\u00a0{}\n\n"])
def test_white_space_around_value_is_removed(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_API_KEY", around.format(KEY))
    monkeypatch.setenv("RABBITMQ_URL", around.format("amqp://me:secret@rabbit:5672/"))
    monkeypatch.setenv("DATABASE_URL", around.format("sqlite:////data/view.db"))
    monkeypatch.setenv("JOBTAPE_NAMESPACE", around.format("orders"))
    monkeypatch.setenv("JOBTAPE_PORT", around.format("8001"))
    monkeypatch.setenv("JOBTAPE_LOG_LEVEL", around.format("debug"))
    known = read_settings()
    assert (known.api_key, known.namespace, known.port, known.log_level) == (KEY, "orders", 8001, "debug")
    assert known.rabbitmq_url == "amqp://me:secret@rabbit:5672/"
    assert known.database_url == "sqlite:////data/view.db"
    assert Settings(api_key=around.format(KEY)).api_key == KEY
    assert trimmed(around.format("a b")) == "a b"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RABBITMQ_URL", "amqp://me:secret\n@rabbit:5672/"),
        ("RABBITMQ_URL", "amqp://me:secret@rabbit\r\n:5672/"),
        ("DATABASE_URL", "postgresql://me:secret\n@db/jobtape"),
        ("JOBTAPE_MANAGEMENT_URL", "http://rabbit\t:15672"),
    ],
)
def test_line_end_within_url_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(JobtapeError, match=f"{variable}: .* contains a line end or a control character") as refused:
        read_settings()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "key", ["sésame-öffne-dich", "ключ-от-всех", "sesame open", "sesame\nopen", "sesame\u200bopen"]
)
def test_key_that_no_header_can_carry_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_API_KEY", key)
    with pytest.raises(JobtapeError, match=r"JOBTAPE_API_KEY: .*only visible ASCII characters"):
        read_settings()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgresql+asyncpg://me:pw@db/jobs", "postgresql+psycopg://me:pw@db/jobs"),
        ("postgresql+psycopg2://db/jobs?sslmode=require", "postgresql+psycopg://db/jobs?sslmode=require"),
        ("postgresql+psycopg://db/jobs", "postgresql+psycopg://db/jobs"),
        ("postgresql+pg8000://db/jobs", "postgresql+psycopg://db/jobs"),
        ("postgres://db/jobs", "postgresql+psycopg://db/jobs"),
        ("postgresql+asyncpg://db/jobs?ssl=verify-full", "postgresql+psycopg://db/jobs?sslmode=verify-full"),
        (
            "postgresql+asyncpg://db/jobs?ssl=true&prepared_statement_cache_size=0",
            "postgresql+psycopg://db/jobs?sslmode=require",
        ),
        ("sqlite+aiosqlite:///jobs.db", "sqlite:///jobs.db"),
        ("sqlite+pysqlite:////data/jobs.db?cache=shared", "sqlite:////data/jobs.db"),
    ],
)
def test_driver_in_database_url_is_replaced(given: str, taken: str) -> None:
    assert parse_url(given).render_as_string(hide_password=False) == taken


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql+pymysql://me:secret@db/jobs", "begins with mysql"),
        ("sqlite+pysqlcipher://:secret@/jobs.db", "begins with sqlite[+]pysqlcipher"),
        ("sqlite+aiosqlite://", "needs a file"),
        ("sqlite://data/jobs.db", "SQLite has none"),
        ("postgresql+asyncpg://me:secret@db/jobs?schema=public", "the parameter schema"),
    ],
)
def test_unsupported_database_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(JobtapeError, match=message) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)
