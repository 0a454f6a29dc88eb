"""What the environment says: ``JOBTAPE_*``, and the customary ``RABBITMQ_URL`` and ``DATABASE_URL``."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jobtape.environment import fault_of_key, fault_of_url, is_service_address, trimmed
from jobtape.producer.service.limits import Limits
from jobtape.schemas.delay_ladder import LEVELS
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import QueueName
from jobtape.schemas.relay_events import RelayMode
from jobtape.schemas.timeouts import longest_timeout
from jobtape.schemas.topology import TapeRetention, Topology
from jobtape.schemas.urls import ENCODE, is_clear

log = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024
Names = Annotated[tuple[str, ...], NoDecode]


class _Environment(EnvSettingsSource):
    """The environment, but for what Kubernetes put there and nobody chose: the addresses of Services."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        return {
            name: value
            for name, value in found.items()
            if not (name.endswith("port") and isinstance(value, str) and is_service_address(value))
        }


class Settings(BaseSettings):
    """Every setting; sizes in bytes, times in seconds. ``docs/reference/settings.md`` is written from this class."""

    model_config = SettingsConfigDict(env_prefix="JOBTAPE_", frozen=True, extra="ignore", populate_by_name=True)

    rabbitmq_url: str = Field(
        "amqp://guest:guest@localhost:5672/",
        validation_alias=AliasChoices("RABBITMQ_URL"),
        description="The broker.",
    )
    database_url: str = Field(
        "sqlite:///.jobtape/view.db",
        validation_alias=AliasChoices("DATABASE_URL"),
        description="The view: sqlite:///path or postgresql://user:password@host/name.",
    )
    management_url: str | None = Field(
        None,
        description="RabbitMQ's management API, for `jobtape doctor`, which signs in as RABBITMQ_URL does; where it is "
        "not named, port 15672 of the broker's host is tried (15671 with amqps).",
    )
    rabbitmqctl: str | None = Field(
        None, description="A command that is this broker's rabbitmqctl, for `jobtape doctor` where that API is away."
    )
    namespace: str = Field("jobtape", description="Stands before every exchange and queue on the broker.")
    jobs: Names = Field((), description="Modules with the job types, separated by commas.")
    app_dir: Path = Field(Path(), description="Joins the import path for the modules of JOBTAPE_JOBS.")
    host: str = Field("127.0.0.1", description="Where the API listens. Beyond loopback it needs JOBTAPE_API_KEY.")
    port: int = Field(8000, ge=0, le=65535, description="The API's port.")
    api_key: str | None = Field(
        None,
        min_length=8,
        description="Bearer token that every request must carry: 8 or more visible ASCII characters.",
    )
    cors_origins: Names = Field(
        (),
        description="Origins of web pages of other hosts that may use the API, as https://example.org, with commas.",
    )
    api_workers: int = Field(1, ge=1, le=64, description="API processes.")
    access_log: bool = Field(False, description="Log every request.")
    proxy_headers: bool = Field(
        False, description="Believe X-Forwarded-For and -Proto of the proxies that FORWARDED_ALLOW_IPS names."
    )
    root_path: str = Field("", pattern=r"^(/[^/]+)*$", description="The prefix that a proxy in front takes away.")
    max_payload: int = Field(MEBIBYTE, ge=1, le=8 * MEBIBYTE, description="Largest payload.")
    max_result: int = Field(MEBIBYTE, ge=1, le=8 * MEBIBYTE, description="Largest result; beyond it the job fails.")
    max_batch: int = Field(10_000, ge=1, le=100_000, description="Most jobs in one batch.")
    max_batch_bytes: int = Field(64 * MEBIBYTE, ge=1, description="Largest body of a batch.")
    publish_timeout: float = Field(10.0, gt=0, le=120, description="How long a publish may wait for its confirm.")
    read_timeout: float = Field(3.0, gt=0, le=60, description="How long a GET may wait for the view to catch up.")
    idempotency_retention: float = Field(
        86_400.0, ge=60, le=30 * 86_400, description="How long an Idempotency-Key is kept, at least."
    )
    idempotency_lease: float = Field(
        30.0,
        ge=1,
        le=600,
        description="How long a submission under an Idempotency-Key that never ended keeps its repeats waiting; twice "
        "JOBTAPE_PUBLISH_TIMEOUT at least.",
    )
    max_listeners: int = Field(
        2000, ge=1, le=100_000, description="Most streams, WebSockets and requests that wait, in one API process."
    )
    max_wait: int = Field(60, ge=0, le=3600, description="Longest wait that `Prefer: wait=` is granted; 0 for none.")
    keepalive_interval: float = Field(
        15.0, ge=0.1, le=600, description="Time without an event after which a stream shows life."
    )
    send_timeout: float = Field(
        30.0, ge=0.1, le=3600, description="How long a listener may not read, until its connection is ended."
    )
    queues: Annotated[tuple[QueueName, ...], NoDecode] = Field(
        (), description="Queues that a worker serves, separated by commas; all those of its job types when empty."
    )
    processes: int = Field(1, ge=1, le=256, description="Worker processes, each with JOBTAPE_CONCURRENCY of its own.")
    concurrency: int = Field(10, ge=1, le=1000, description="Jobs that one worker runs at once.")
    grace_period: float = Field(30.0, ge=0, le=3600, description="How long running jobs may go on after SIGTERM.")
    unknown_type_timeout: float = Field(
        3600.0,
        ge=0,
        le=30 * 86_400,
        description="How long a job whose type a worker does not know goes back for others, before it fails.",
    )
    ack_timeout: float = Field(1800.0, gt=0, description="The broker's acknowledgement time-out (consumer_timeout).")
    rescue_after: float = Field(
        5400.0,
        ge=1,
        description="How long a due job may be on no queue, without an event, until its work is placed again; more "
        "than JOBTAPE_ACK_TIMEOUT, and than the time that a job of an unknown type is kept waiting.",
    )
    relay_events: RelayMode = Field(
        "final",
        description="Which events the relay publishes on <namespace>.results: `final` events, `all` but "
        "`submitted`, or nothing (`off`).",
    )
    job_retention: float = Field(
        0.0,
        ge=0,
        description="How long jobs are kept in the view after they ended, with their history; 0 is for ever.",
    )
    projector_lease: float = Field(
        4.0, ge=0.5, le=300, description="How long a projector that died keeps others waiting."
    )
    delay_levels: int = Field(
        LEVELS,
        ge=1,
        le=LEVELS,
        description="Levels of the delay ladder, a queue each, the same for all parts: jobs and retries can be put off "
        "by 2^levels / 10 s, with 25 by 30 days.",
    )
    tape_max_bytes: int = Field(10_000_000_000, ge=1000, description="Size of the tape that the broker keeps.")
    tape_max_age: str = Field("30D", pattern=r"^\d+[YMDhms]$", description="Age of the tape that the broker keeps.")
    tape_segment_bytes: int = Field(
        100_000_000, ge=1000, le=3_000_000_000, description="Segment of the tape: what retention drops at a time."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged, to stderr.")
    health_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Health of worker and projector over HTTP; 0 is off. Several worker processes: from this one on.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in the program goes before the environment, and there is no other source."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, _Environment(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _trim(cls, value: Any) -> Any:
        return trimmed(value) if isinstance(value, str) else value

    @field_validator("jobs", "queues", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("rabbitmq_url", "database_url", "management_url")
    @classmethod
    def _whole(cls, value: str | None) -> str | None:
        if value is not None and (fault := fault_of_url(value)) is not None:
            raise ValueError(fault)
        return value

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, value: str | None) -> str | None:
        if value is not None and (fault := fault_of_key(value)) is not None:
            raise ValueError(fault)
        return value

    @field_validator("rabbitmq_url")
    @classmethod
    def _amqp(cls, value: str) -> str:
        if not value.startswith(("amqp://", "amqps://")):
            raise ValueError("write it as amqp://user:password@host:5672/ (or amqps://)")
        if not is_clear(value):
            # The value is not shown: it may have a password in it.
            raise ValueError(f"it is no URL: {ENCODE}")
        return value

    @field_validator("management_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not (value.startswith(("http://", "https://")) and is_clear(value)):
            raise ValueError(f"write it as http://host:15672 (or https://); with a user in it, {ENCODE}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not re.fullmatch(r"https?://[^/\s*]+", value):
                raise ValueError(
                    f"{value!r} is no origin: write https://example.org, with the port if it has one, no path"
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
        """What there is on the broker, but for the work queues."""
        retention = TapeRetention(self.tape_max_bytes, self.tape_max_age, self.tape_segment_bytes)
        return Topology(self.namespace, retention=retention, delay_levels=self.delay_levels)

    @property
    def limits(self) -> Limits:
        """What may be submitted and read here."""
        return Limits(
            max_payload=self.max_payload,
            max_batch=self.max_batch,
            max_batch_bytes=self.max_batch_bytes,
            publish_timeout=self.publish_timeout,
            read_timeout=self.read_timeout,
            longest_timeout=longest_timeout(self.ack_timeout, self.grace_period),
            longest_delay=self.topology.longest_delay,
            idempotency_retention=self.idempotency_retention,
            idempotency_lease=self.idempotency_lease,
            max_listeners=self.max_listeners,
            max_wait=self.max_wait,
            keep_alive=self.keepalive_interval,
            stall=self.send_timeout,
        )

    @property
    def installation(self) -> str:
        """Which installation this is, in words without a password: where jobs go that are submitted here."""
        broker = urlsplit(self.rabbitmq_url)
        port = "" if broker.port is None else f":{broker.port}"
        return f"{self.namespace} on {broker.hostname}{port}{broker.path}"


def read_settings(**overrides: Any) -> Settings:
    """The settings of this process; an override that is not None goes before the environment.

    A variable that Kubernetes has set for a Service counts as absent, and the log says so. Raises JobtapeError that
    names each setting that is wrong.
    """
    for note in service_notes(overrides).values():
        log.warning(note)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(f"{_variable(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors())
        raise JobtapeError(f"the settings are wrong: {faults}") from None


def service_notes(overrides: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What to say of each variable of ours that holds the address of a Service, unless an override replaces it."""
    given = {name for name, value in (overrides or {}).items() if value is not None}
    notes: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        variable = _variable(name)
        value = os.environ.get(variable, "")
        if name.endswith("port") and name not in given and is_service_address(value):
            notes[variable] = (
                f"{variable}={trimmed(value)} is not ours: Kubernetes sets it for a Service of that name; going on "
                f"with the default, {field.default} (enableServiceLinks: false in the Pod keeps such variables out)"
            )
    return notes


def _variable(name: str) -> str:
    return {"rabbitmq_url": "RABBITMQ_URL", "database_url": "DATABASE_URL"}.get(
        name, name if name.isupper() else f"JOBTAPE_{name.upper()}"
    )
