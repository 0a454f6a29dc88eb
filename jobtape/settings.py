"""Settings from the environment: ``JOBTAPE_*``, ``RABBITMQ_URL`` and ``DATABASE_URL``."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jobtape.environment import fault_of_key, fault_of_url, is_service_address, trimmed
from jobtape.producer.service.submission.limits import Limits
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import RelayMode
from jobtape.schemas.job import WorkQueueName
from jobtape.schemas.job_types.secrets import fault_of_keys
from jobtape.schemas.timeouts import longest_timeout
from jobtape.schemas.topology import TapeRetention, Topology
from jobtape.schemas.urls import ENCODE, each_url, is_unambiguous

log = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024
Names = Annotated[tuple[str, ...], NoDecode]


class _Environment(EnvSettingsSource):
    """The environment without the addresses of Services, which Kubernetes sets as variables by itself."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        return {
            name: value
            for name, value in found.items()
            if not (name.endswith("port") and isinstance(value, str) and is_service_address(value))
        }


class Settings(BaseSettings):
    """All settings: sizes in bytes, times in seconds. ``docs/reference/settings.md`` is generated from this class."""

    model_config = SettingsConfigDict(
        env_prefix="JOBTAPE_", frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True
    )

    rabbitmq_url: str = Field("amqp://guest:guest@localhost:5672/", validation_alias=AliasChoices("RABBITMQ_URL"))
    """The broker's URL: amqp://user:password@host:5672/ or amqps://… Several hosts of a cluster, separated by commas,
    are tried in turn. With amqps, the parameters cafile, certfile and keyfile name files in PEM format."""
    database_url: str = Field("sqlite:///.jobtape/view.db", validation_alias=AliasChoices("DATABASE_URL"))
    """The database of the view: sqlite:///path or postgresql://user:password@host/name."""
    outbox_url: str | None = None
    """The database of your own application whose outbox is forwarded: sqlite:///path or
    postgresql://user:password@host/name."""
    management_url: str | None = None
    """The URL of RabbitMQ's management API. `jobtape doctor` and the lists of subscriptions use it with the user of
    RABBITMQ_URL. Several, separated by commas, are tried in turn. By default it is port 15672 of the broker's hosts
    (15671 with amqps)."""
    namespace: str = "jobtape"
    """The prefix of the names of all exchanges and queues."""
    jobs: Names = ()
    """The modules that contain the job types, separated by commas."""
    app_dir: Path = Path()
    """A folder that is added to the import path for the modules in JOBTAPE_JOBS."""
    host: str = "127.0.0.1"
    """The address that the API listens on. Any other than loopback requires JOBTAPE_API_KEY."""
    port: int = Field(8000, ge=0, le=65535)
    """The port that the API listens on."""
    api_key: str | None = Field(None, min_length=8)
    """The bearer token that every request must contain: at least 8 visible ASCII characters."""
    cors_origins: Names = ()
    """The origins of web pages that may use the API from a browser, such as https://example.org, separated by commas.
    """
    dashboard: bool = True
    """Whether the API serves the dashboard at `/`: `on` or `off`."""
    api_workers: int = Field(1, ge=1, le=64)
    """The number of API processes."""
    access_log: bool = False
    """Whether the API logs every request."""
    proxy_headers: bool = False
    """Whether the API trusts X-Forwarded-For and X-Forwarded-Proto from the proxies in FORWARDED_ALLOW_IPS."""
    root_path: str = Field("", pattern=r"^(/[^/]+)*$")
    """The path prefix that a proxy in front of the API removes."""
    max_payload: int = Field(MEBIBYTE, ge=1, le=8 * MEBIBYTE)
    """The largest payload of a job."""
    max_result: int = Field(MEBIBYTE, ge=1, le=8 * MEBIBYTE)
    """The largest result; a job with a larger one fails."""
    max_batch: int = Field(10_000, ge=1, le=100_000)
    """The largest number of jobs in a batch."""
    max_batch_bytes: int = Field(64 * MEBIBYTE, ge=1)
    """The largest request body of a batch."""
    publish_timeout: float = Field(10.0, gt=0, le=120)
    """How long the API waits for the broker to confirm a message."""
    read_timeout: float = Field(3.0, gt=0, le=60)
    """How long a GET waits for the view to catch up with the tape."""
    idempotency_retention: float = Field(86_400.0, ge=60, le=30 * 86_400)
    """How long an Idempotency-Key is remembered, at least."""
    idempotency_lease: float = Field(30.0, ge=1, le=600)
    """How long a submission that broke off blocks others under the same Idempotency-Key. At least twice
    JOBTAPE_PUBLISH_TIMEOUT."""
    max_listeners: int = Field(2000, ge=1, le=100_000)
    """The largest number of event streams, WebSockets and waiting requests in one API process."""
    max_wait: int = Field(60, ge=0, le=3600)
    """The longest wait that a request may ask for with `Prefer: wait=`; 0 disables waiting."""
    keepalive_interval: float = Field(15.0, ge=0.1, le=600)
    """The time without an event after which a stream sends a keep-alive."""
    send_timeout: float = Field(30.0, ge=0.1, le=3600)
    """How long a client may stop reading before the API closes its connection."""
    queues: Annotated[tuple[WorkQueueName, ...], NoDecode] = ()
    """The queues that a worker serves, separated by commas. By default it serves all queues of its job types."""
    processes: int = Field(1, ge=1, le=256)
    """The number of worker processes. Each runs up to JOBTAPE_CONCURRENCY jobs."""
    # As many as FastAPI has threads for `def` functions.
    concurrency: int = Field(40, ge=1, le=1000)
    """How many jobs one worker process runs at the same time."""
    grace_period: float = Field(30.0, ge=0, le=3600)
    """How long running jobs may continue after SIGTERM."""
    unknown_type_timeout: float = Field(3600.0, ge=0, le=30 * 86_400)
    """How long a job of an unknown type waits for a worker that knows the type, before it fails."""
    ack_timeout: float = Field(1800.0, gt=0)
    """The broker's acknowledgement timeout (consumer_timeout)."""
    rescue_after: float = Field(3600.0, ge=1)
    """How long a due job may have no event until it counts as lost and is placed on its queue again. It must be more
    than JOBTAPE_ACK_TIMEOUT."""
    relay_events: RelayMode = "final"
    """Which events the projector publishes to <namespace>.results for subscribers: `final` events, `all` except
    `submitted`, or none (`off`)."""
    job_retention: float = Field(0.0, ge=0)
    """How long the view keeps jobs and their history after they ended; 0 keeps them forever."""
    projector_lease: float = Field(4.0, ge=0.5, le=300)
    """How long it takes until another projector replaces one that died."""
    webhook_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """The networks that webhooks may go to although they are not public, such as 10.0.0.0/8, separated by commas. Plain
    HTTP and all ports are allowed there."""
    secret_keys: str | None = None
    """The key that encrypts the secrets in payloads and those of webhooks: 32 random bytes in URL-safe base64. API,
    workers, projectors and your applications need the same. Of several keys, separated by commas, the first one
    encrypts and all of them decrypt. Read from the environment only."""
    tape_max_bytes: int = Field(10_000_000_000, ge=1000)
    """How much of the tape the broker keeps, by size."""
    tape_max_age: str = Field("30D", pattern=r"^\d+[YMDhms]$")
    """How much of the tape the broker keeps, by age."""
    tape_segment_bytes: int = Field(100_000_000, ge=1000, le=3_000_000_000)
    """The size of one segment of the tape. Retention removes whole segments."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level of messages that are logged to stderr."""
    log_format: Literal["text", "json"] = "text"
    """The form of log lines: `text`, or `json` with one object in each line."""
    health_port: int = Field(0, ge=0, le=65535)
    """The HTTP port for the health of a worker or projector; 0 disables it. Several worker processes use this port and
    the ones after it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, and nothing else."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, _Environment(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _trim(cls, value: Any) -> Any:
        return trimmed(value) if isinstance(value, str) else value

    @field_validator("jobs", "queues", "cors_origins", "webhook_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("rabbitmq_url", "database_url", "outbox_url", "management_url", "api_key")
    @classmethod
    def _complete(cls, value: str | None, info: ValidationInfo) -> str | None:
        check = fault_of_key if info.field_name == "api_key" else fault_of_url
        if value is not None and (fault := check(value)) is not None:
            raise ValueError(fault)
        return value

    @field_validator("secret_keys")
    @classmethod
    def _keys(cls, value: str | None) -> str | None:
        if value is not None and (fault := fault_of_keys(value)) is not None:
            raise ValueError(fault)
        return value

    @field_validator("rabbitmq_url")
    @classmethod
    def _amqp(cls, value: str) -> str:
        urls = each_url(value)
        if not all(url.startswith(("amqp://", "amqps://")) for url in urls):
            raise ValueError("write it as amqp://user:password@host:5672/ (or amqps://)")
        if not all(is_unambiguous(url) for url in urls):
            # The value is not shown, because it may contain a password.
            raise ValueError(f"it is not a valid URL: {ENCODE}")
        return value

    @field_validator("management_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        urls = [] if value is None else each_url(value)
        if not all(each.startswith(("http://", "https://")) and is_unambiguous(each) for each in urls):
            raise ValueError(f"write it as http://host:15672 (or https://); with a user in it, {ENCODE}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not re.fullmatch(r"https?://[^/\s*]+", value):
                raise ValueError(
                    f"{value!r} is not an origin: write https://example.org, with a port if needed and without a path"
                )
        return tuple(value.lower() for value in values)

    @field_validator("namespace")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", value):
            raise ValueError("letters, digits, - and _ only, at most 64")
        return value

    @property
    def topology(self) -> Topology:
        """The exchanges and queues on the broker, without the work queues."""
        retention = TapeRetention(self.tape_max_bytes, self.tape_max_age, self.tape_segment_bytes)
        return Topology(self.namespace, retention=retention)

    @property
    def limits(self) -> Limits:
        """The limits for submissions and reads."""
        own = {each.name: getattr(self, each.name) for each in fields(Limits) if each.name != "longest_timeout"}
        return Limits(longest_timeout=longest_timeout(self.ack_timeout, self.grace_period), **own)

    @property
    def installation(self) -> str:
        """A description of the installation for messages, without a password."""
        brokers = [urlsplit(url) for url in each_url(self.rabbitmq_url)]
        hosts = ",".join(f"{each.hostname}{'' if each.port is None else f':{each.port}'}" for each in brokers)
        return f"{self.namespace} on {hosts}{brokers[0].path}"


def read_settings(**overrides: Any) -> Settings:
    """Read the settings of this process. An override that is not None replaces the environment's value.

    A variable that Kubernetes has set for a Service is ignored, with a warning. Raises JobtapeError that names each
    setting that is wrong.
    """
    for note in service_notes(overrides).values():
        log.warning(note)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(f"{_variable(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors())
        raise JobtapeError(f"the settings are wrong: {faults}") from None


def service_notes(overrides: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return a warning for each of our variables that contains a Service's address and is not overridden."""
    given = {name for name, value in (overrides or {}).items() if value is not None}
    notes: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        variable = _variable(name)
        value = os.environ.get(variable, "")
        if name.endswith("port") and name not in given and is_service_address(value):
            notes[variable] = (
                f"{variable}={trimmed(value)} is not ours: Kubernetes sets it for a Service of that name; using the "
                f"default, {field.default} (enableServiceLinks: false in the Pod prevents such variables)"
            )
    return notes


def _variable(name: str) -> str:
    return {"rabbitmq_url": "RABBITMQ_URL", "database_url": "DATABASE_URL"}.get(
        name, name if name.isupper() else f"JOBTAPE_{name.upper()}"
    )
