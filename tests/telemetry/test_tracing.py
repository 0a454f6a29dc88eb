"""The trace context from a request to subscribers, without OpenTelemetry and with it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
)

from jobtape import Concurrency, Context, RetryPolicy, job
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import Submitted
from jobtape.schemas.events.trace_context import UNSAMPLED, unsampled_context
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.messages.delivered_event import decode_delivered
from jobtape.schemas.topology import work_key
from jobtape.settings import Settings
from jobtape.telemetry import setup, tracing
from jobtape.telemetry.light_span import LightProvider
from jobtape.telemetry.request_span import RequestSpan
from jobtape.telemetry.roots import Roots
from jobtape.telemetry.spans import Spans
from jobtape.telemetry.work import ROUTE, Work
from jobtape.view.store import Store
from tests.conftest import MakeTopology
from tests.consumer import isolated_jobs
from tests.consumer.bound_queues import listening
from tests.consumer.installation import Rig, order_event
from tests.producer.running_api import Api, api, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@job("traced")
async def traced(ctx: Context, again: bool = False) -> list[str]:
    """Return the context, and that of a span of one's own; fail in the first attempt if ``again``."""
    with trace.get_tracer("mine").start_as_current_span("mine"):
        if again and ctx.attempt == 1:
            raise ValueError("a secret of the payload")
        return [ctx.traceparent or "", tracing.traceparent() or ""]


@job("traced.again", retry=RetryPolicy(max_attempts=2, first=0.01))
def traced_again(ctx: Context) -> str:
    if ctx.attempt == 1:
        raise ValueError("a secret of the payload")
    return tracing.traceparent() or ""


@job("parent")
async def parent() -> str:
    """Submit a job, and return its id."""
    return (await traced.submit()).id


@job("traced.held", limits=[Concurrency(5)])
async def held() -> None:
    pass


JOBS = (traced, traced_again, parent, held)


@pytest.fixture
def settings(broker_url: str, make_topology: MakeTopology, sqlite_url: str) -> Settings:
    return settings_for(broker_url, make_topology(), sqlite_url)


@pytest.fixture
async def rig(settings: Settings) -> AsyncIterator[Rig]:
    async with Rig(settings.rabbitmq_url, settings.topology.with_queues(["default"])) as opened:
        yield opened


@pytest.fixture
async def running(settings: Settings, rig: Rig) -> AsyncIterator[Api]:
    store = Store(settings.database_url)
    store.migrate()
    async with api(settings, *JOBS) as served, rig.projector(store, relay="final"), rig.worker(*JOBS):
        yield served
    store.close()


@pytest.fixture(params=[TracerProvider, LightProvider])
def spans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that are made in the test, and OpenTelemetry switched on for it by an application or by ``setup``."""
    exporter = InMemorySpanExporter()
    provider = request.param(id_generator=Roots(DEFAULT_ON)) if request.param is LightProvider else TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_spans", Spans(provider))
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_: provider.get_tracer(name))
    yield exporter
    provider.shutdown()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (PARENT, PARENT),
        (f" {PARENT} ", PARENT),
        (PARENT.replace("00-", "cc-", 1) + "-more", PARENT),
        (f"{PARENT}-more", None),
        (PARENT.replace("00-", "ff-", 1), None),
        (PARENT.upper(), None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        ("", None),
        (None, None),
    ],
)
def test_traceparent_is_read_as_the_standard_says(text: str | None, read: str | None) -> None:
    assert tracing.read_traceparent(text) == read


def test_repeated_header_is_no_context() -> None:
    assert tracing.in_headers([(b"traceparent", PARENT.encode())]) == PARENT
    assert tracing.in_headers([(b"traceparent", PARENT.encode())] * 2) is None


async def submit(served: Api, job_type: str, header: str | None = PARENT, **payload: object) -> str:
    headers = {} if header is None else {"traceparent": header}
    answer = await served.client.post("/jobs", json={"type": job_type, "payload": payload}, headers=headers)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def test_context_is_passed_on_without_opentelemetry(running: Api, rig: Rig) -> None:
    async with listening(rig.url, rig.topology) as listener:
        job_id = await submit(running, "traced")
        outcome = await rig.outcome(job_id)
        await eventually(lambda: listener.of(job_id) == ["succeeded"])
    await rig.read_to_end()
    assert [event.traceparent for event in rig.of(job_id)] == [PARENT, None], "the outcome repeats what the job has"
    assert rig.steps(job_id) == ["submitted", "succeeded"]
    assert outcome.data.result == [PARENT, PARENT]
    message = listener.messages[-1]
    assert message.headers["traceparent"] == PARENT
    assert decode_delivered(message.body).traceparent == PARENT
    ended = Selection(job=job_id, events=frozenset({"succeeded"}))
    (read,) = running.producer.store.committed.page(0, 10, ended).rows
    assert read.traceparent == decode_delivered(read.delivered).traceparent == PARENT


async def test_jobs_of_handler_retries_and_redrives_keep_context(running: Api, rig: Rig) -> None:
    child = (await rig.outcome(await submit(running, "parent"))).data.result
    await rig.outcome(child)
    retried = await submit(running, "traced.again")
    assert (await rig.outcome(retried)).data.result == PARENT
    other = PARENT.replace("b7ad", "aaaa")
    await eventually(lambda: "succeeded" in rig.names(retried))
    answer = await running.client.post(f"/jobs/{retried}/redrive", headers={"traceparent": other})
    assert answer.status_code == 202, answer.text
    await eventually(lambda: rig.names(retried).count("succeeded") == 2)
    assert [event.traceparent for event in rig.of(child)] == [PARENT, None]
    contexts = {(event.name, event.data.run, event.data.attempt): event.traceparent for event in rig.of(retried)}
    assert contexts.pop(("redriven", 2, 1)) == other
    assert contexts.pop(("retrying", 1, 1)) is None
    assert set(contexts.values()) == {PARENT}


async def test_context_that_is_not_valid_is_dropped(running: Api, rig: Rig) -> None:
    job_id = await submit(running, "traced", "00-x-y-z")
    assert (await rig.outcome(job_id)).data.result == ["", ""]
    assert {event.traceparent for event in rig.of(job_id)} == {None}


async def test_spans_of_a_job_are_one_trace(running: Api, rig: Rig, spans: InMemorySpanExporter) -> None:
    job_id = await submit(running, "traced")
    outcome = await rig.outcome(job_id)
    ns = rig.topology.namespace
    await eventually(lambda: named(spans, f"process {ns}.run.default"))
    (sent,), (processed,) = named(spans, f"send {ns}.events:run.default"), named(spans, f"process {ns}.run.default")
    (mine,) = named(spans, "mine")
    for span in (sent, processed, mine):
        assert trace_of(span) == TRACE
    assert processed.parent is not None
    assert mine.parent is not None
    assert (processed.parent.span_id, mine.parent.span_id) == (sent.context.span_id, processed.context.span_id)
    assert outcome.traceparent == outcome.data.result[0]
    assert outcome.traceparent.split("-")[2] == f"{processed.context.span_id:016x}"
    assert (rig.of(job_id)[0].traceparent or "").split("-")[2] == f"{sent.context.span_id:016x}"
    assert processed.attributes is not None
    assert dict(processed.attributes) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"{ns}.run.default",
        "messaging.message.id": rig.of(job_id)[0].id,
        "jobtape.job.id": job_id,
        "jobtape.job.type": "traced",
        "jobtape.job.run": 1,
        "jobtape.job.attempt": 1,
    }


async def test_span_of_request_says_route_and_status(running: Api, spans: InMemorySpanExporter) -> None:
    await running.client.head("/jobs?limit=5", headers={"traceparent": PARENT})
    await running.client.get("/jobs/unknown")
    await running.client.request("BREW", "/coffee")
    await running.client.get("/health/live")
    await eventually(lambda: len(spans.get_finished_spans()) == 3)
    listed, unknown, brewed = spans.get_finished_spans()
    assert [span.name for span in (listed, unknown, brewed)] == ["HEAD /jobs", "GET /jobs/{job_id}", "HTTP"]
    assert {span.kind for span in (listed, unknown, brewed)} == {trace.SpanKind.SERVER}
    assert trace_of(listed) == TRACE
    assert dict(listed.attributes or {}) == {
        "url.scheme": "http",
        "url.path": "/jobs",
        "url.query": "limit=5",
        "server.address": running.client.base_url.host,
        "server.port": running.client.base_url.port or 80,
        "network.protocol.version": "1.1",
        "http.request.method": "HEAD",
        "http.route": "/jobs",
        "http.response.status_code": 200,
    }
    assert (unknown.attributes or {})["http.response.status_code"] == 422
    assert unknown.status.status_code is trace.StatusCode.UNSET
    assert (brewed.attributes or {})["http.request.method_original"] == "BREW"


async def test_tracestate_of_request_is_in_its_spans(running: Api, rig: Rig, spans: InMemorySpanExporter) -> None:
    headers = [("traceparent", PARENT), ("tracestate", "one=1"), ("tracestate", "two=2")]
    body = {"type": "traced", "payload": {}}
    answer = await running.client.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    await eventually(lambda: named(spans, "POST /jobs"))
    for name in ("POST /jobs", f"send {rig.topology.namespace}.events:run.default"):
        (span,) = named(spans, name)
        assert span.context.trace_state.to_header() == "one=1,two=2"


def test_span_of_request_that_fails_has_no_text_of_the_error(spans: InMemorySpanExporter) -> None:
    scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"[::1]:x")], "scheme": "ws", ROUTE: "/ws"}
    span = tracing.request(scope, "")
    assert isinstance(span, RequestSpan)
    with pytest.raises(LookupError), span:
        raise LookupError("a secret of the payload")
    (ended,) = spans.get_finished_spans()
    assert (ended.name, ended.status.status_code) == ("WS /ws", trace.StatusCode.ERROR)
    assert dict(ended.attributes or {}) == {
        "url.scheme": "ws",
        "url.path": "/ws",
        "network.protocol.name": "websocket",
        "http.route": "/ws",
        "error.type": "LookupError",
    }
    assert "secret" not in ended.to_json()


async def test_trace_that_is_not_sampled_makes_no_spans(running: Api, rig: Rig, spans: InMemorySpanExporter) -> None:
    dropped = PARENT.removesuffix("1") + "0"
    outcome = await rig.outcome(await submit(running, "traced", dropped))
    assert (outcome.traceparent, outcome.data.result[0]) == (None, dropped)
    assert outcome.data.result[1].split("-")[1::2] == [TRACE, "00"]
    assert spans.get_finished_spans() == ()


def sampled_at(share: float, monkeypatch: pytest.MonkeyPatch) -> tuple[TracerProvider, InMemorySpanExporter]:
    """Sample this share of traces, as ``setup`` configures it. Return the provider and its spans."""
    exporter, sampler = InMemorySpanExporter(), ParentBasedTraceIdRatio(share)
    provider = LightProvider(sampler=sampler, id_generator=Roots(sampler))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_spans", Spans(provider))
    return provider, exporter


@pytest.fixture
def ratio(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of traces that are sampled at a half."""
    provider, exporter = sampled_at(0.5, monkeypatch)
    yield exporter
    provider.shutdown()


async def test_sampling_is_decided_once_for_each_trace(running: Api, rig: Rig, ratio: InMemorySpanExporter) -> None:
    ids = [await submit(running, "traced", header=None) for _ in range(40)]
    contexts = {job_id: (await rig.outcome(job_id)).data.result[0] for job_id in ids}
    sampled = {context.split("-")[1] for context in contexts.values() if int(context[-2:], 16) & 1}
    assert 0 < len(sampled) < len(ids)
    ns = rig.topology.namespace
    names = ("POST /jobs", f"send {ns}.events:run.default", f"process {ns}.run.default")
    await eventually(lambda: all(len(named(ratio, name)) >= len(sampled) for name in names))
    for name in names:
        assert sorted(map(trace_of, named(ratio, name))) == sorted(sampled)
    assert all(span.attributes["http.route"] == "/jobs" for span in named(ratio, "POST /jobs") if span.attributes)
    for job_id, context in contexts.items():
        submitted, ended = rig.of(job_id)
        assert isinstance(submitted, Submitted)
        if context.split("-")[1] in sampled:
            assert ended.traceparent == context
            assert (submitted.context, submitted.sampled) == (submitted.traceparent, None)
        else:
            assert (submitted.traceparent, ended.traceparent, submitted.sampled) == (None, None, False)
            assert submitted.context == context == unsampled_context(job_id)
            assert tracing.read_traceparent(context) == context


@pytest.mark.parametrize("kind", [TracerProvider, LightProvider])
def test_root_that_is_sampled_gets_the_id_that_was_decided_on(kind: type[TracerProvider]) -> None:
    sampler = ParentBasedTraceIdRatio(0.3)
    exporter = InMemorySpanExporter()
    provider = kind(sampler=sampler, id_generator=Roots(sampler))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider)
    contexts = []
    for number in range(400):
        with spans.sending("x", Work(str(number), "add"), None) as context:
            contexts.append(context or "")
    sampled = [context for context in contexts if context != UNSAMPLED]
    recorded = [trace_of(span) for span in exporter.get_finished_spans()]
    assert recorded == [context.split("-")[1] for context in sampled]
    assert 60 < len(set(recorded)) == len(recorded) < 180
    assert all(tracing.read_traceparent(context) == context and int(context[-2:], 16) & 1 for context in sampled)
    provider.shutdown()


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of an installation whose traces are not sampled: there must be none."""
    provider, exporter = sampled_at(0, monkeypatch)
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_: provider.get_tracer(name))
    yield exporter
    assert exporter.get_finished_spans() == ()
    provider.shutdown()


async def test_subscribers_see_that_the_trace_is_not_sampled(
    running: Api, rig: Rig, dropped: InMemorySpanExporter
) -> None:
    async with listening(rig.url, rig.topology) as listener:
        body = [{"type": "traced", "payload": {}}, {"type": "traced.held", "payload": {}}]
        answer = await running.client.post("/jobs/batch", json=body)
        plain, held = (item["id"] for item in answer.json()["items"])
        retried = await submit(running, "traced.again", header=None)
        ids = (plain, held, retried)
        await eventually(lambda: all(listener.of(job_id) == ["succeeded"] for job_id in ids))
    for message in listener.messages:
        event = decode_delivered(message.body)
        assert message.headers["traceparent"] == event.traceparent == unsampled_context(event.job_id)
    await rig.read_to_end()
    assert [getattr(event, "sampled", None) for job_id in ids for event in rig.of(job_id)].count(False) == 3
    assert {event.traceparent for event in rig.of(held) if event.name == "placed"} == {unsampled_context(held)}
    for row in running.producer.store.committed.page(0, 50, Selection(job=retried)).rows:
        assert decode_delivered(row.delivered).traceparent == row.traceparent == unsampled_context(retried)


async def test_job_of_handler_has_the_context_that_is_not_sampled(
    running: Api, rig: Rig, dropped: InMemorySpanExporter
) -> None:
    job_id = await submit(running, "parent", header=None)
    child = (await rig.outcome(job_id)).data.result
    assert (await rig.outcome(child)).data.result[0] == unsampled_context(job_id)


def test_request_that_is_not_sampled_has_no_spans_below(dropped: InMemorySpanExporter) -> None:
    found = tracing.request({"type": "http", "headers": [], "path": "/jobs"}, "POST")
    assert found is not None
    with found, trace.get_tracer("mine").start_as_current_span("mine") as mine:
        assert not mine.is_recording()
        assert mine.get_span_context().is_valid
    assert tracing.traceparent() is None


async def test_later_attempts_are_linked(running: Api, rig: Rig, spans: InMemorySpanExporter) -> None:
    job_id = await submit(running, "traced.again")
    outcome = await rig.outcome(job_id)
    name = f"process {rig.topology.namespace}.run.default"
    await eventually(lambda: len(named(spans, name)) == 2)
    first, second = named(spans, name)
    assert trace_of(first) == TRACE
    assert first.attributes is not None
    assert first.attributes["error.type"] == "ValueError"
    assert not first.status.is_ok
    assert "secret" not in first.to_json()
    assert second.parent is None
    assert [f"{link.context.trace_id:032x}" for link in second.links] == [TRACE]
    assert trace_of(second) == outcome.traceparent.split("-")[1] != TRACE
    assert not first.links


async def test_job_of_handler_is_in_its_trace(running: Api, rig: Rig, spans: InMemorySpanExporter) -> None:
    child = (await rig.outcome(await submit(running, "parent"))).data.result
    await rig.outcome(child)
    assert {event.traceparent.split("-")[1] for event in rig.of(child) if event.traceparent} == {TRACE}


async def test_placement_of_held_job_is_in_its_trace(running: Api, rig: Rig, spans: InMemorySpanExporter) -> None:
    await rig.outcome(await submit(running, "traced.held"))
    ns = rig.topology.namespace
    await eventually(lambda: named(spans, f"process {ns}.run.default"))
    (recorded,), (placed,) = named(spans, f"send {ns}.events:event"), named(spans, f"send {ns}.events:run.default")
    (processed,) = named(spans, f"process {ns}.run.default")
    assert {trace_of(span) for span in (recorded, placed, processed)} == {TRACE}
    assert placed.parent is not None
    assert processed.parent is not None
    assert (placed.parent.span_id, processed.parent.span_id) == (recorded.context.span_id, placed.context.span_id)


async def test_isolated_handler_has_context(rig: Rig) -> None:
    async with rig.worker(isolated_jobs.traceparent):
        event = order_event(rig.topology, "iso.traceparent").model_copy(update={"traceparent": PARENT})
        await rig.publisher.publish(event, [work_key("default")])
        assert (await rig.outcome(event.subject)).data.result == [PARENT, PARENT]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_customary_variables_say_where_traces_go(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert setup.exporter_of("TRACES") == expected


def test_unknown_exporter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(JobtapeError, match="OTEL_TRACES_EXPORTER: 'zipkin'"):
        setup.start("worker")


def test_unknown_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(JobtapeError, match="'grpc' is not known here"):
        setup.otlp_exporter("TRACES")


@pytest.mark.parametrize("job_id", ["00000000-0000-0000-0000-000000000000", "019adf2e-0000-7000-8000-0000000000f0"])
def test_context_of_a_job_is_valid_in_any_case(job_id: str) -> None:
    context = unsampled_context(job_id)
    assert tracing.read_traceparent(context) == context
