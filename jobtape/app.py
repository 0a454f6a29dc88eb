"""The API as an application, alone or mounted in another one, and a lifespan for applications that submit jobs.

Three ways to use it:

(a) Submit from your own FastAPI application, with settings from the environment (``JOBTAPE_JOBS``, ``RABBITMQ_URL``)::

        app = FastAPI(lifespan=jobtape.lifespan)

        @app.post("/orders")
        async def order() -> str:
            return (await send_email.submit(to="…")).id

(b) Submit from an application that passes its job types itself::

        app = FastAPI(lifespan=partial(jobtape.lifespan, job_types=[send_email]))

(c) Mount the whole API under a prefix of an application as in (a) or (b). Starlette does not run the lifespan of a
    mounted application, so the lifespan of the outer application runs the producer::

        app.mount("/jobtape", jobtape.create_app())

An application that submits in transactions of its own database forwards what they contain, by its engine::

        app = FastAPI(lifespan=partial(jobtape.lifespan, outbox=engine))

Outside an application, ``async with jobtape.lifespan(job_types=[add]): await add.submit(x=1, y=2)`` does the same.
Nothing connects on import or construction.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial

from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from jobtape import builtin
from jobtape.environment import fault_of_key
from jobtape.jobs import JobType
from jobtape.loading import load_job_types
from jobtape.outbox.engine import opened_engine
from jobtape.outbox.forwarder import Forwarder
from jobtape.process import running
from jobtape.producer.http.api import build_api
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.routes.operations import metrics
from jobtape.producer.producer import Producer
from jobtape.schemas.errors import JobtapeError, JobTypeInvalid
from jobtape.schemas.job_types.secrets import check_keys
from jobtape.settings import Settings, read_settings
from jobtape.telemetry import setup as telemetry
from jobtape.telemetry import tracing
from jobtape.view.store import Store

log = logging.getLogger(__name__)

JobTypes = Mapping[str, JobType] | Iterable[JobType]


def create_app(settings: Settings | None = None, job_types: JobTypes | None = None) -> FastAPI:
    """Return the API as an application.

    ``settings`` default to the environment's, ``job_types`` to those of ``JOBTAPE_JOBS``. Run alone, the application
    starts its own producer. Mounted, it uses the producer of the outer application's lifespan (see the module above),
    and answers 503 when there is none. Raises JobtapeError for wrong settings.
    """
    known = settings or read_settings()
    if known.api_key is not None and (fault := fault_of_key(known.api_key)) is not None:
        raise JobtapeError(f"no request can contain this API key: {fault}")
    own: list[running.LoopInstallation] = []

    @asynccontextmanager
    async def start(_: FastAPI) -> AsyncIterator[None]:
        async with _started(known, job_types) as installation:
            own.append(installation)
            try:
                yield
            finally:
                own.remove(installation)

    def find_producer() -> Producer:
        try:
            found = own[-1] if own else running.serving()
        except JobtapeError:
            raise Problem(
                "not-running",
                "this API is mounted in an application that does not run Jobtape: give that application "
                "lifespan=jobtape.lifespan",
            ) from None
        if not found.is_here():
            raise Problem(
                "not-running",
                "this request is served by another event loop than the one that runs jobtape.lifespan: serve both on "
                "one loop (a test client does within `with TestClient(app)`)",
            )
        assert isinstance(found.submitter, Producer)
        return found.submitter

    return build_api(
        find_producer,
        api_key=known.api_key,
        origins=known.cors_origins,
        dashboard=known.dashboard,
        lifespan=start,
        webhook_allow=known.webhook_allow,
    )


@asynccontextmanager
async def lifespan(
    app: object = None,  # frameworks pass the application to a lifespan
    *,
    job_types: JobTypes | None = None,
    settings: Settings | None = None,
    outbox: Engine | AsyncEngine | None = None,
) -> AsyncIterator[None]:
    """Allow ``await some_job.submit(...)`` inside the block, from all threads and event loops of this process.

    Pass it to FastAPI as ``lifespan``, with ``functools.partial`` for its keywords. ``settings`` default to the
    environment's, ``job_types`` to those of ``JOBTAPE_JOBS``. Reads and idempotency keys need the database; submitting
    needs none. ``outbox``: the engine of your own database, whose outbox is forwarded inside the block; by default that
    of ``JOBTAPE_OUTBOX_URL``, if set.
    """
    async with _started(settings or read_settings(), job_types, outbox):
        yield


@asynccontextmanager
async def _started(
    settings: Settings, job_types: JobTypes | None, outbox: Engine | AsyncEngine | None = None
) -> AsyncIterator[running.LoopInstallation]:
    known = load_job_types(settings.jobs, settings.app_dir) if job_types is None else by_name(job_types)
    if not known:
        log.warning("there are no job types to submit: name the modules that contain them in JOBTAPE_JOBS")
    tracing.enable()
    check_keys({name: job_type.secrets for name, job_type in known.items()})
    with closing(Store(settings.database_url)) as store:
        async with (
            registered_producer(settings, store, known) as (installation, producer),
            _forwarding(settings, producer, outbox),
        ):
            with telemetry.metrics_of_application(partial(metrics.families, producer)):
                yield installation


@asynccontextmanager
async def registered_producer(
    settings: Settings, store: Store, job_types: Mapping[str, JobType], *, covers: bool = False
) -> AsyncIterator[tuple[running.LoopInstallation, Producer]]:
    """Run a producer inside the block, to which submissions of this process go: of ``job_types`` and built-in jobs.

    ``covers``: instead of to the installations that run already.
    """
    known = {**job_types, **builtin.job_types()}
    async with Producer(
        settings.rabbitmq_url, settings.topology, store, known, settings.limits, settings.management_url
    ) as producer:
        installation = running.LoopInstallation(
            settings.installation, producer, serves=True, start_limit=settings.publish_timeout, covers=covers
        )
        running.register(installation)
        try:
            yield installation, producer
        finally:
            running.unregister(installation)


@asynccontextmanager
async def _forwarding(
    settings: Settings, producer: Producer, outbox: Engine | AsyncEngine | None
) -> AsyncIterator[None]:
    """Forward an outbox inside the block, if there is one."""
    with opened_engine(settings.outbox_url) as configured:
        engine = outbox or configured
        if engine is None:
            yield
            return
        forwarder = Forwarder(engine, producer)
        producer.health.outbox = forwarder.state
        stop = asyncio.Event()
        task = asyncio.create_task(forwarder.run(stop), name="outbox")
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait({task})
            producer.health.outbox = None
            await forwarder.close()
            task.result()


def by_name(job_types: JobTypes) -> dict[str, JobType]:
    """Return the job types by name. Raises JobTypeInvalid if two have the same."""
    given = job_types.values() if isinstance(job_types, Mapping) else job_types
    found: dict[str, JobType] = {}
    for job_type in given:
        if found.setdefault(job_type.name, job_type) is not job_type:
            raise JobTypeInvalid(f"two job types are called {job_type.name!r}: rename one")
    return found
