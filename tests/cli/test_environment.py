"""What orchestrators, secrets' files and other programs leave in the environment: each part starts, or says why not."""

import logging
import signal

import pytest

from jobtape.cli.errors import CannotStart
from jobtape.cli.parts.start import settings_with
from jobtape.environment import trimmed
from jobtape.schemas.errors import JobtapeError
from jobtape.settings import Settings, read_settings
from jobtape.view.sql.urls import parse_url
from tests.cli.installation import Place

KEY = "sesame-open"
# As Kubernetes writes them for Services called jobtape, jobtape-api, jobtape-db and rabbitmq.
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
def test_the_address_of_a_service_counts_as_absent(
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
        assert not caplog.text, "what was chosen needs no word"


def test_no_variable_of_a_service_stops_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read_settings()
    for variable, value in SERVICE_LINKS.items():
        monkeypatch.setenv(variable, value)
    assert read_settings() == plain


def test_a_part_says_so_once_and_goes_on(place: Place) -> None:
    program = place.start("worker", **SERVICE_LINKS)
    program.line_with("jobtape: JOBTAPE_PORT=tcp://10.0.0.1:8000 is not ours")
    program.line_with("trying again until it answers")
    program.send(signal.SIGTERM)
    assert program.code() == 0
    assert sum("is not ours" in line for line in program.lines) == 1


def test_the_api_listens_on_the_port_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_PORT", "tcp://10.0.0.1:8000")
    assert settings_with(port="8123").port == 8123
    with pytest.raises(CannotStart, match="is the address of a Service: give a port number"):
        settings_with(port="tcp://10.0.0.2:8000")


def test_other_nonsense_is_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("http://10.0.0.1:8000", "10.0.0.1:8000", "many", ""):
        monkeypatch.setenv("JOBTAPE_PORT", value)
        with pytest.raises(JobtapeError, match="JOBTAPE_PORT: Input should be a valid integer"):
            read_settings()


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}\t", "\ufeff{}", "\u00a0{}\n\n"])
def test_what_stands_around_a_value_is_taken_away(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_line_end_within_a_url_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(JobtapeError, match=f"{variable}: .* contains a line end or a control character") as refused:
        read_settings()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "key", ["sésame-öffne-dich", "ключ-от-всех", "sesame open", "sesame\nopen", "sesame\u200bopen"]
)
def test_a_key_that_no_header_carries_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_the_driver_in_a_database_url_is_ours(given: str, taken: str) -> None:
    assert parse_url(given).render_as_string(hide_password=False) == taken


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql+pymysql://me:secret@db/jobs", "begins with mysql"),
        ("sqlite+pysqlcipher://:secret@/jobs.db", "begins with sqlite[+]pysqlcipher"),
        ("sqlite+aiosqlite://", "needs a file"),
        ("sqlite://data/jobs.db", "SQLite has none"),
        ("postgresql+asyncpg://me:secret@db/jobs?schema=public", "the parameter schema"),
    ],
)
def test_a_database_url_that_does_not_do(url: str, says: str) -> None:
    with pytest.raises(JobtapeError, match=says) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)
