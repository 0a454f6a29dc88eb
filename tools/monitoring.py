"""Write the alert rules for Prometheus and the dashboard for Grafana: ``python -m tools.monitoring``.

Both use the metrics of the table in ``jobtape.telemetry.metrics`` by its constants, so none can be misspelt.
"""

import json
from typing import Any, Final, NamedTuple

from jobtape.telemetry import metrics as m
from jobtape.telemetry.metrics import MetricSpec
from tools.clone import ROOT

RULES: Final = ROOT / "deploy" / "prometheus" / "jobtape-alerts.yml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "jobtape.json"
_RANGE: Final = "$__rate_interval"
_WIDTH: Final = 12
_HEIGHT: Final = 8


class Alert(NamedTuple):
    """An alert. ``wait``: for how long ``expr`` holds before it fires."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    todo: str


class Panel(NamedTuple):
    """A panel with its queries, each with its legend. ``unit``: Grafana's name of it."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def rate(metric: MetricSpec, by: str, matcher: str = "", within: str = _RANGE) -> str:
    """Return the rate a second of a counter by a label."""
    return f"sum by ({by}) (rate({metric.exposed}{matcher}[{within}]))"


def worst(metric: MetricSpec, by: str = "") -> str:
    """Return the largest value of a gauge that each API process has."""
    return f"max by ({by}) ({metric.exposed})" if by else f"max({metric.exposed})"


def quantile(metric: MetricSpec, q: float, by: str) -> str:
    """Return a quantile of a histogram by a label."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric.name}_bucket[{_RANGE}])))"


ALERTS: Final = (
    Alert(
        "JobtapePartNotReady",
        f"min by (part) ({m.UP.exposed}) == 0",
        "1m",
        "critical",
        "The part {{ $labels.part }} is not ready.",
        "GET /health/ready says why and what to do.",
    ),
    Alert(
        "JobtapeViewBehind",
        f"{worst(m.LAG)} > 10",
        "1m",
        "critical",
        "The view is {{ $value | humanizeDuration }} behind the tape.",
        "See that a projector runs, and its log.",
    ),
    Alert(
        "JobtapeTimersLate",
        f"{worst(m.TIMERS)} > 30",
        "1m",
        "warning",
        "Delayed jobs and retries are {{ $value | humanizeDuration }} late.",
        "See that a projector runs, and that the queues are not full: jobtape doctor.",
    ),
    Alert(
        "JobtapeQueueWithoutWorker",
        f"max by (queue) ({m.QUEUE_CONSUMERS.exposed}) == 0 and max by (queue) ({m.QUEUE_DEPTH.exposed}) > 0",
        "2m",
        "critical",
        "Jobs wait on the queue {{ $labels.queue }}, which no worker serves.",
        "Start a worker for it, or resume it if it is paused.",
    ),
    Alert(
        "JobtapeJobsWaitLong",
        f"{worst(m.QUEUE_OLDEST, 'queue, lane')} > 300",
        "5m",
        "warning",
        "A job on {{ $labels.queue }} (lane {{ $labels.lane }}) has waited {{ $value | humanizeDuration }}.",
        "Start more workers.",
    ),
    Alert(
        "JobtapeJobsFail",
        f'sum by (job_type) (increase({m.EVENTS.exposed}{{event="failed"}}[5m])) > 0',
        "0m",
        "warning",
        "Jobs of the type {{ $labels.job_type }} fail.",
        "The page Failures of the dashboard groups them by reason.",
    ),
    Alert(
        "JobtapeRedeliveries",
        f"sum(increase({m.REDELIVERIES.exposed}[15m])) > 5",
        "0m",
        "warning",
        "Deliveries come back: workers die or reject them.",
        "See the workers' logs, and their memory.",
    ),
    Alert(
        "JobtapeBrokerReconnects",
        f"sum(increase({m.RECONNECTS.exposed}[15m])) > 5",
        "0m",
        "warning",
        "Connections to the broker are lost again and again.",
        "See the broker's log.",
    ),
    Alert(
        "JobtapePublishSlow",
        f"histogram_quantile(0.99, sum by (le) (rate({m.PUBLISH_CONFIRM.name}_bucket[5m]))) > 1",
        "5m",
        "warning",
        "The broker needs {{ $value | humanizeDuration }} to confirm messages.",
        "See the broker's disks, and whether it has an alarm.",
    ),
    Alert(
        "JobtapeRelayStalled",
        f"{worst(m.RELAY_STALLED)} == 1",
        "1m",
        "warning",
        "Subscribers get nothing; jobs are not affected.",
        "jobtape doctor names the queue that confirms nothing.",
    ),
    Alert(
        "JobtapeWebhookFails",
        f'{worst(m.WEBHOOK_LAG)} > 600 or max({m.WEBHOOKS.exposed}{{state="disabled"}}) > 0',
        "1m",
        "warning",
        "A receiver of a webhook fails, or its webhook is disabled.",
        "jobtape doctor says why.",
    ),
    Alert(
        "JobtapeOutboxRefused",
        f"{worst(m.OUTBOX_REFUSED)} > 0",
        "1m",
        "warning",
        "Jobs of the outbox cannot be published.",
        "jobtape outbox --list shows them and what to do.",
    ),
    Alert(
        "JobtapeOutboxLate",
        f"{worst(m.OUTBOX_OLDEST)} > 60",
        "1m",
        "warning",
        "A job has waited in the outbox for {{ $value | humanizeDuration }}.",
        "See that a forwarder runs, and that the broker answers.",
    ),
)

PANELS: Final = (
    Panel("Submitted", "ops", ((rate(m.EVENTS, "job_type", '{event="submitted"}'), "{{job_type}}"),)),
    Panel("Outcomes", "ops", ((rate(m.EVENTS, "event", '{event=~"succeeded|failed|cancelled"}'), "{{event}}"),)),
    Panel("Jobs by state", "short", ((f"sum by (state) ({worst(m.JOBS, 'job_type, state')})", "{{state}}"),)),
    Panel("Failed", "ops", ((rate(m.EVENTS, "job_type", '{event="failed"}'), "{{job_type}}"),)),
    Panel(
        "Run time",
        "s",
        (
            (quantile(m.JOB_RUN, 0.5, "job_type"), "{{job_type}} p50"),
            (quantile(m.JOB_RUN, 0.99, "job_type"), "{{job_type}} p99"),
        ),
    ),
    Panel("Executions", "ops", ((rate(m.JOB_RUN._replace(name=f"{m.JOB_RUN.name}_count"), "outcome"), "{{outcome}}"),)),
    Panel("Wait for a worker, p99", "s", ((quantile(m.JOB_WAIT, 0.99, "job_type"), "{{job_type}}"),)),
    Panel("Held jobs, by limit", "short", ((worst(m.HELD, "limit"), "{{limit}}"),)),
    Panel("Oldest waiting job", "s", ((worst(m.QUEUE_OLDEST, "queue, lane"), "{{queue}} {{lane}}"),)),
    Panel("Queues", "short", ((worst(m.QUEUE_DEPTH, "queue"), "{{queue}}"),)),
    Panel("Consumers", "short", ((worst(m.QUEUE_CONSUMERS, "queue"), "{{queue}}"),)),
    Panel("Workers", "short", ((worst(m.WORKERS, "state"), "{{state}}"),)),
    Panel("Slots", "short", ((worst(m.WORKER_SLOTS, "use"), "{{use}}"),)),
    Panel("Ready", "short", ((f"min by (part) ({m.UP.exposed})", "{{part}}"),)),
    Panel("Lag of the view, timers", "s", ((worst(m.LAG), "view"), (worst(m.TIMERS), "timers"))),
    Panel("Events not in the view yet", "short", ((worst(m.LAG_EVENTS), "events"),)),
    Panel(
        "Confirms of the broker",
        "s",
        (
            (quantile(m.PUBLISH_CONFIRM, 0.5, "job"), "{{job}} p50"),
            (quantile(m.PUBLISH_CONFIRM, 0.99, "job"), "{{job}} p99"),
        ),
    ),
    Panel(
        "Redeliveries, reconnects",
        "ops",
        ((f"sum(rate({m.REDELIVERIES.exposed}[{_RANGE}]))", "redeliveries"), (rate(m.RECONNECTS, "part"), "{{part}}")),
    ),
    Panel(
        "Relay",
        "ops",
        (
            (f"max(rate({m.RELAY_DELIVERED.exposed}[{_RANGE}]))", "delivered"),
            (f"max(rate({m.RELAY_REFUSED.exposed}[{_RANGE}]))", "refused"),
        ),
    ),
    Panel(
        "Relay: lag, stalls",
        "s",
        ((worst(m.RELAY_LAG), "lag"), (worst(m.RELAY_STALLED), "stalled"), (worst(m.RELAY_STALLS), "stalls")),
    ),
    Panel("Listeners", "short", ((f"sum by (kind) ({m.LISTENERS.exposed})", "{{kind}}"),)),
    Panel(
        "Events to listeners",
        "ops",
        (
            (rate(m.DELIVERED_EVENTS, "kind"), "{{kind}}"),
            (f"sum(rate({m.CATCH_UP_READS.exposed}[{_RANGE}]))", "pages read"),
        ),
    ),
    Panel("Webhooks", "short", ((worst(m.WEBHOOKS, "state"), "{{state}}"),)),
    Panel("Webhooks: lag", "s", ((worst(m.WEBHOOK_LAG, "webhook"), "{{webhook}}"),)),
    Panel("Outbox", "short", ((worst(m.OUTBOX_DEPTH), "waiting"), (worst(m.OUTBOX_REFUSED), "refused"))),
    Panel("Outbox: oldest", "s", ((worst(m.OUTBOX_OLDEST), "oldest"),)),
)


def rules() -> str:
    """Return the rule file. JSON strings are YAML too."""
    lines = ["# Made by `python -m tools.monitoring`.", "groups:", "  - name: jobtape", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.wait}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          description: {json.dumps(alert.todo)}",
        ]
    return "\n".join(lines) + "\n"


def dashboard() -> str:
    """Return the dashboard's JSON, which Grafana imports."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels: list[dict[str, Any]] = [
        {
            "id": n + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": source,
            "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": _WIDTH * (n % 2), "y": _HEIGHT * (n // 2)},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(ord("A") + i), "datasource": source, "expr": expr, "legendFormat": legend}
                for i, (expr, legend) in enumerate(panel.queries)
            ],
        }
        for n, panel in enumerate(PANELS)
    ]
    made = {
        "title": "Jobtape",
        "uid": "jobtape",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": panels,
    }
    return json.dumps(made, indent=1) + "\n"


def write() -> None:
    """Write both files."""
    for path, text in ((RULES, rules()), (DASHBOARD, dashboard())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
    print(f"wrote {RULES.relative_to(ROOT)} and {DASHBOARD.relative_to(ROOT)}")
