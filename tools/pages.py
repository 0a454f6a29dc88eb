"""Write the generated parts of the documentation: ``python -m tools.pages``.

A part stands between ``<!-- NAME: … -->`` and ``<!-- NAME: end -->`` on its page. Its text is made from the code.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Final

from pydantic import BaseModel
from sphinx.pycode import ModuleAnalyzer

from jobtape import Context, Options, RetryPolicy, job
from jobtape.producer.http.problems import KINDS, URN
from jobtape.producer.http.representation import JobOut
from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import JobState
from jobtape.schemas.submission import Submission
from jobtape.settings import Settings
from jobtape.telemetry.metrics import METRICS
from tools.clone import ROOT
from tools.monitoring import ALERTS


def settings_table() -> str:
    """Return a Markdown table of all environment variables with defaults and descriptions."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = {"rabbitmq_url": "RABBITMQ_URL", "database_url": "DATABASE_URL"}.get(name, f"JOBTAPE_{name.upper()}")
        value = ("off", "on")[field.default] if isinstance(field.default, bool) else field.default
        default = "" if value in (None, (), "") else f"`{value}`"
        lines.append(f"| `{variable}` | {default} | {_one_line(field.description)} |")
    return "\n".join(lines)


def problems_table() -> str:
    """Return a Markdown table of all problem types of the REST API."""
    lines = [f"| `type` after `{URN}` | status | meaning |", "|---|---|---|"]
    lines += [f"| `{kind}` | {status} | {title} |" for kind, (status, title) in KINDS.items()]
    return "\n".join(lines)


def fields_table(model: type[BaseModel]) -> str:
    """Return a Markdown table of the fields of a JSON object, which have descriptions."""
    lines = ["| field | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {_one_line(field.description)} |" for name, field in model.model_fields.items()]
    return "\n".join(lines)


def parameters_table(function: Callable[..., Any]) -> str:
    """Return a Markdown table of a function's parameters. Its docstring has ``:param name:`` for each."""
    text = inspect.cleandoc(function.__doc__ or "")
    found = re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", text, re.MULTILINE | re.DOTALL)
    meanings = {name: " ".join(meaning.split()) for name, meaning in found}
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, parameter in inspect.signature(function).parameters.items():
        default = "" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        lines.append(f"| `{name}` | {default} | {_markdown(meanings[name])} |")
    return "\n".join(lines)


def attributes_table(kind: type, hidden: tuple[str, ...] = ()) -> str:
    """Return a Markdown table of a dataclass's fields, which have docstrings, without the ``hidden`` ones."""
    documented = ModuleAnalyzer.for_module(kind.__module__).find_attr_docs()
    given = any(field.default is not MISSING or field.default_factory is not MISSING for field in fields(kind))
    lines = ["| field | default | meaning |", "|---|---|---|"] if given else ["| field | meaning |", "|---|---|"]
    for field in fields(kind):
        if field.name in hidden:
            continue
        meaning = _markdown(" ".join(documented[kind.__name__, field.name]).strip())
        lines.append(f"| `{field.name}` | {_default(field.default)} | {meaning} |")
    return "\n".join(lines)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _default(value: Any) -> str:
    if value is MISSING or value is None:
        return ""
    return f"`({', '.join(each.__name__ for each in value)},)`" if isinstance(value, tuple) else f"`{value!r}`"


def _markdown(text: str) -> str:
    """Return reStructuredText without markup other than literals as Markdown."""
    return text.replace("``", "`")


def transitions_table() -> str:
    """Return a Markdown table of the transitions between states, a row for each event and outcome."""
    lines = ["| event | state before | state after |", "|---|---|---|"]
    for name in EVENT_NAMES:
        before: defaultdict[tuple[JobState, ...], list[str]] = defaultdict(list)
        for (state, event), targets in TRANSITIONS.items():
            if event == name and (name, targets) != ("submitted", (state,)):  # which never changes a known state
                before[targets].append("no event known" if state is None else f"`{state}`")
        for targets, states in before.items():
            lines.append(f"| `{name}` | {', '.join(states)} | {' or '.join(f'`{target}`' for target in targets)} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Return a Markdown table of all metrics."""
    lines = ["| metric | type | labels | source | meaning |", "|---|---|---|---|---|"]
    for spec in METRICS:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        lines.append(f"| `{spec.exposed}` | {spec.kind} | {labels} | {spec.source} | {spec.meaning} |")
    return "\n".join(lines)


def alerts_table() -> str:
    """Return a Markdown table of the alert rules."""
    lines = ["| alert | condition | for | what to do |", "|---|---|---|---|"]
    for alert in ALERTS:
        condition = alert.expr.replace("|", "\\|")
        lines.append(f"| `{alert.name}` | `{condition}` | {alert.wait} | {alert.todo} |")
    return "\n".join(lines)


PARTS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "states": ("concepts/states.md", transitions_table),
    "settings": ("reference/settings.md", settings_table),
    "problems": ("reference/errors.md", problems_table),
    "metrics": ("reference/metrics.md", metrics_table),
    "alerts": ("reference/metrics.md", alerts_table),
    "submission": ("reference/rest.md", lambda: fields_table(Submission)),
    "job": ("reference/job.md", lambda: fields_table(JobOut)),
    "job-parameters": ("reference/python.md", lambda: parameters_table(job)),
    "options": ("reference/python.md", lambda: attributes_table(Options)),
    "retry-policy": ("reference/python.md", lambda: attributes_table(RetryPolicy)),
    "context": ("reference/python.md", lambda: attributes_table(Context, hidden=("report",))),
}
"""Name of the part -> its page and the function that makes its text."""


def updated(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` as its part ``name``. Raises ValueError unless it has exactly one such part."""
    pattern = rf"(<!-- {name}: (?!end)[^>]*-->\n).*?(<!-- {name}: end -->)"
    made, count = re.subn(pattern, lambda part: f"{part[1]}\n{text}\n\n{part[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the part {name!r} is {count} times on its page: it must be there once")
    return made


def write(*, check: bool = False) -> list[str]:
    """Write the parts that differ from the code, and return their names. With ``check``, write nothing."""
    changed = []
    for name, (page, make) in PARTS.items():
        path = ROOT / "docs" / page
        before = path.read_text(encoding="utf-8")
        after = updated(before, name, make())
        if after != before:
            changed.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    return changed


if __name__ == "__main__":
    print(f"wrote {', '.join(write()) or 'nothing'}")
