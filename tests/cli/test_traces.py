"""Traces, metrics and logs of the real processes of an installation, with OpenTelemetry's SDK and exporters."""

import base64
import json

import httpx

from tests.cli.installation import JOBS, Installation
from tests.cli.programs import until
from tests.telemetry.collector import collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ISOLATED = """
import logging
from opentelemetry import trace

@job("isolated", isolate=True)
def isolated() -> None:
    logging.getLogger("shop").warning("from the handler")
    with trace.get_tracer("mine").start_as_current_span("within isolated"):
        pass
"""


def test_one_trace_from_request_to_subscriber_and_webhook(broker_installation: Installation) -> None:
    installation = broker_installation
    (installation.folder / "jobs_here.py").write_text(JOBS + ISOLATED)
    url, ns = f"http://127.0.0.1:{installation.port}", installation.env["JOBTAPE_NAMESPACE"]
    with collecting() as collector, httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        programs = installation.up(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_METRIC_EXPORT_INTERVAL="500",
            JOBTAPE_SECRET_KEYS=base64.urlsafe_b64encode(bytes(32)).decode(),
            JOBTAPE_WEBHOOK_ALLOW="127.0.0.0/8",
        )
        made = client.post("/webhooks", json={"url": f"{collector.url}/hook", "filter": {"types": ["isolated"]}})
        assert made.status_code == 201, made.text
        answer = client.post("/jobs", json={"type": "isolated", "payload": {}}, headers={"traceparent": PARENT})
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        until(lambda: "/hook" in collector.requests, "the webhook is delivered")
        names = [
            "POST /jobs",
            f"send {ns}.events:run.default",
            f"process {ns}.run.default",
            "within isolated",
            f"process {ns}.run.jobtape-webhooks",
        ]
        until(lambda: all(collector.named(name) for name in names), "all spans have come")
        spans = [collector.named(name)[0] for name in names]
        assert {span.trace_id.hex() for span in spans} == {TRACE}
        above = {span.span_id: span.name for span in spans}
        assert [above.get(span.parent_span_id) for span in spans[:4]] == [None, *names[:3]]
        assert {service for service, span in collector.spans if span.name in names} == {
            "jobtape-api",
            "jobtape-worker",
            "jobtape-projector",
        }
        executed = spans[2]
        span_id = executed.span_id.hex()
        of_the_job = f" job_id={job_id} job_type=isolated run=1 attempt=1 trace_id={TRACE} span_id={span_id}"
        assert any("from the handler" in line and line.endswith(of_the_job) for line in programs.lines)
        hook = collector.requests["/hook"][0]["traceparent"].split("-")
        assert hook[1:3] == [TRACE, spans[4].span_id.hex()]
        with client.stream("GET", f"/jobs/{job_id}/events", headers={"accept": "text/event-stream"}) as stream:
            events = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
            ended = next(event for event in events if event.get("type") == "jobtape.job.succeeded")
        assert ended["traceparent"].split("-")[1:3] == [TRACE, span_id]
        expected = {
            "jobtape-api": {"jobtape_jobs", "jobtape_publish_confirm_seconds", "jobtape_projector_lag_events"},
            "jobtape-worker": {"jobtape_run_seconds", "jobtape_job_wait_seconds"},
            "jobtape-projector": {"jobtape_run_seconds", "jobtape_publish_confirm_seconds"},
        }
        until(
            lambda: all(names <= collector.metrics_of(service).keys() for service, names in expected.items()),
            "all parts send metrics",
        )
