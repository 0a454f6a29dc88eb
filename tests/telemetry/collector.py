"""A collector that takes OTLP over HTTP, as real exporters send it, and any other request."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """``spans``: each with the name of its service. ``requests``: headers by path, of those that are not OTLP."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    requests: dict[str, list[Mapping[str, str]]] = field(default_factory=dict)

    def named(self, name: str) -> list[Span]:
        """Return the spans with this name."""
        return [span for _, span in self.spans if span.name == name]

    def metrics_of(self, service: str) -> dict[str, Metric]:
        """Return the metrics that a service has sent last, by name."""
        for request in reversed(self.metrics):
            for each in request.resource_metrics:
                if service in {value.value.string_value for value in each.resource.attributes}:
                    return {metric.name: metric for scope in each.scope_metrics for metric in scope.metrics}
        return {}

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Take a request."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
                self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        else:
            self.requests.setdefault(path, []).append(headers)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect inside the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
