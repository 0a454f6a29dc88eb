"""Alert rules and dashboard are made from the table of metrics, and their queries are PromQL."""

import json
import re

import promql_parser
import pytest
import yaml

from jobtape.telemetry.metrics import METRICS
from tools import monitoring

RULES = yaml.safe_load(monitoring.RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = json.loads(monitoring.DASHBOARD.read_text(encoding="utf-8"))["panels"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [each["expr"] for panel in PANELS for each in panel["targets"]]
SERIES = {
    f"{spec.name}{end}": spec
    for spec in METRICS
    for end in (
        ("_bucket", "_count", "_sum") if spec.kind == "histogram" else ("_total",) if spec.kind == "counter" else ("",)
    )
}
NO_METRIC_LABELS = {"le", "job"}
"""Labels that Prometheus adds."""


def test_files_are_those_of_the_table() -> None:
    assert monitoring.RULES.read_text(encoding="utf-8") == monitoring.rules(), "run python -m tools.monitoring"
    assert monitoring.DASHBOARD.read_text(encoding="utf-8") == monitoring.dashboard(), "run python -m tools.monitoring"


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_expression_is_valid_and_uses_known_metrics_and_labels(expr: str) -> None:
    text = expr.replace("$__rate_interval", "5m")
    promql_parser.parse(text)
    used = set(re.findall(r"jobtape_\w+", text))
    assert used
    assert used <= SERIES.keys()
    labels = {label for name in used for label in SERIES[name].labels} | NO_METRIC_LABELS
    for listed in re.findall(r"by \(([^)]*)\)", text):
        assert {label.strip() for label in listed.split(",")} <= labels


def test_parser_refuses_what_is_not_promql() -> None:
    with pytest.raises(ValueError):
        promql_parser.parse("sum by (queue (jobtape_up)")


def test_each_metric_is_on_the_dashboard() -> None:
    text = " ".join(EXPRESSIONS)
    assert [spec.name for spec in METRICS if not re.search(rf"\b{spec.name}(_total|_bucket|_count)?\b", text)] == []


def test_alerts_have_different_names_and_say_what_to_do() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in RULES)
