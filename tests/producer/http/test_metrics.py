"""Metrics for Prometheus."""

import asyncio
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobtape.broker import declare
from jobtape.broker.link import Connection
from jobtape.schemas.queueing.gates import Gates, Limit
from jobtape.settings import Settings
from jobtape.telemetry.metrics import METRICS
from jobtape.view.store import Store
from tests.consumer.bound_queues import bound_queue, delete_queue
from tests.consumer.installation import Rig
from tests.producer.jobs import add, keep, place
from tests.producer.live_api import LiveApi
from tests.producer.running_api import Api, api
from tests.producer.sse_client import open_stream
from tests.view.samples import record, submitted
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

Samples = Mapping[tuple[str, frozenset[str]], float]


async def scrape(served: Api) -> Samples:
    answer = await served.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, *labels: str) -> float | None:
    return samples.get((name, frozenset(labels)))


async def test_event_counts_are_exact_in_every_process(projected: Api, settings: Settings, rig: Rig) -> None:
    for n in range(5):
        await projected.submit(x=n)
    await projected.client.post("/jobs", json={"type": "order.place", "payload": {"article": "pen"}})
    await projected.client.post("/jobs", json={"type": "add", "payload": {}})
    async with rig.worker(add, place, keep, queues=("default", "orders")):
        await eventually(lambda: len([event for event in rig.events if event.name == "succeeded"]) == 6)

    async with api(settings) as other:
        for served in (projected, other):

            async def folded(served: Api = served) -> Samples | None:
                samples = await scrape(served)
                of_jobs = sum(number for (name, _), number in samples.items() if name == "jobtape_jobs")
                done = [value(samples, "jobtape_events_total", each, "succeeded") for each in ("add", "order.place")]
                return samples if done == [5, 1] and of_jobs == 6 else None

            samples = await eventually(folded)
            assert value(samples, "jobtape_events_total", "add", "submitted") == 5
            assert value(samples, "jobtape_events_total", "order.place", "submitted") == 1
            assert value(samples, "jobtape_events_total", "add", "failed") is None
            assert value(samples, "jobtape_jobs", "add", "succeeded") == 5
            assert value(samples, "jobtape_jobs", "add", "queued") is None


async def test_queue_metrics(served: Api) -> None:
    await served.submit()

    async def waiting() -> Samples | None:
        samples = await scrape(served)
        return samples if value(samples, "jobtape_queue_depth", "default") == 1 else None

    samples = await eventually(waiting)
    assert value(samples, "jobtape_queue_depth", "orders") == 0
    assert value(samples, "jobtape_queue_consumers", "default") == 0


async def test_many_clients_share_one_look_up_of_queues(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    depth = declare.depth

    async def counted(connection: Connection, name: str) -> declare.Depth | None:
        asked.append(name)
        return await depth(connection, name)

    monkeypatch.setattr(declare, "depth", counted)
    watch = served.producer.health.watch
    await asyncio.gather(*(watch.depths() for _ in range(50)), *(watch.dead_letters() for _ in range(50)))
    # The watch itself asks for this one every two seconds.
    queues = [name for name in asked if name != served.producer.topology.cancels.name]
    assert len(queues) == len(set(queues)) == len(served.producer.topology.queues) + 1


async def test_lag_grows_without_projector(served: Api, rig: Rig, view: Store) -> None:
    """The lag grows while no projector runs, with one barrier in flight, and is small after one has started."""

    async def lag() -> float:
        seconds = value(await scrape(served), "jobtape_projector_lag_seconds")
        assert seconds is not None
        return seconds

    async def events_behind() -> float | None:
        return value(await scrape(served), "jobtape_projector_lag_events")

    first = await lag()
    assert await lag() > first > 0
    assert await events_behind() is None
    assert served.producer.health._lag._barrier._number == 1
    async with rig.projector(view):

        async def small() -> bool:
            return await lag() < 0.5 and served.producer.health._lag._barrier._number > 1

        await eventually(small)

        async def none_behind() -> bool:
            return await events_behind() == 0

        await eventually(none_behind)


async def test_held_jobs_are_counted_by_limit(live_sqlite: LiveApi) -> None:
    mail, rate = Limit(name="mail", key="eu", at_most=1), Limit(name="mail", at_most=1, per=60.0)
    gates = (Gates(limits=(mail, rate)), Gates(limits=(mail,), ordering_key="k"))
    record(live_sqlite.store, *(submitted(n, gates=each) for n, each in enumerate(gates)), submitted(2))
    samples = await scrape(live_sqlite.api)
    assert value(samples, "jobtape_held", "mail") == 2
    assert value(samples, "jobtape_held", "ordering key") == 1
    assert value(samples, "jobtape_jobs", "add", "held") == 2


async def test_relay_metrics(projected: Api, rig: Rig) -> None:
    connection = await rig.link.connection()
    full = await bound_queue(connection, rig.topology, {"x-max-length": 2, "x-overflow": "reject-publish"})
    async with rig.worker(add, queues=("default",)):
        for n in range(20):
            await projected.submit(x=n)

        async def settled() -> Samples | None:
            samples = await scrape(projected)
            delivered, refused = (value(samples, f"jobtape_relay_{what}_total") for what in ("delivered", "refused"))
            return samples if (delivered, refused) != (None, None) and (delivered or 0) + (refused or 0) == 20 else None

        samples = await eventually(settled)
    await delete_queue(connection, full)
    assert (value(samples, "jobtape_relay_refused_total") or 0) > 0
    assert value(samples, "jobtape_relay_lag_seconds") == 0
    assert value(samples, "jobtape_relay_stalled") == 0
    assert value(samples, "jobtape_relay_stalls_total") == 0


async def test_scrape_without_broker_and_database(settings: Settings) -> None:
    away = settings.model_copy(update={"rabbitmq_url": "amqp://localhost:1/", "database_url": "sqlite:////none/none"})
    async with api(away, add, ready=False) as served:
        samples = await scrape(served)
        assert {value(samples, "jobtape_up", part) for part in ("broker", "tape", "view", "projector")} == {0}
        of_the_process = {"jobtape_listeners", "jobtape_delivered_events_total", "jobtape_catch_up_reads_total"}
        counted = tuple(spec.name for spec in METRICS if spec.source == "process")
        assert {name for name, _ in samples if not name.startswith(counted)} == {"jobtape_up"} | of_the_process


async def test_listener_metrics(live: LiveApi) -> None:
    record(live.store, submitted(1), submitted(2))
    url = f"{live.url}/events?after=first"
    async with open_stream(url) as first, open_stream(url) as second:
        for received in (first, second):
            await received.next()
            await received.next()

        async def counted() -> Samples | None:  # what a client has, the process counts a moment later
            samples = await scrape(live.api)
            return samples if value(samples, "jobtape_delivered_events_total", "sse") == 4 else None

        samples = await eventually(counted)
        assert value(samples, "jobtape_listeners", "sse") == 2
        assert value(samples, "jobtape_listeners", "websocket") == 0
        await first.next_block()
    await live.wait_idle()
    samples = await scrape(live.api)
    assert value(samples, "jobtape_listeners", "sse") == 0
    assert value(samples, "jobtape_catch_up_reads_total") == 2
