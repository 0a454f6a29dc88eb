"""Writes the generated parts of the documentation: ``python -m tools.pages [--check]``.

A part stands between ``<!-- NAME: … -->`` and ``<!-- NAME: end -->`` on its page. This tool replaces it with the text
that it makes from the code.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jobtape.producer.http.problems import KINDS, URN
from jobtape.settings import Settings
from tools.state_diagram import draw

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"


def settings_table() -> str:
    """Return a Markdown table of all environment variables with defaults and descriptions."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = {"rabbitmq_url": "RABBITMQ_URL", "database_url": "DATABASE_URL"}.get(name, f"JOBTAPE_{name.upper()}")
        value = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = "" if value in (None, (), "") else f"`{value}`"
        lines.append(f"| `{variable}` | {default} | {field.description} |")
    return "\n".join(lines)


def problems_table() -> str:
    """Return a Markdown table of all problem types of the REST API."""
    lines = [f"| `type` after `{URN}` | status | meaning |", "|---|---|---|"]
    lines += [f"| `{kind}` | {status} | {title} |" for kind, (status, title) in KINDS.items()]
    return "\n".join(lines)


PARTS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "states": ("concepts/states.md", draw),
    "settings": ("reference/settings.md", settings_table),
    "problems": ("reference/errors.md", problems_table),
}
"""Name of the part -> its page and the function that makes its text."""


def updated(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` as its part ``name``. Raises ValueError unless it has exactly one such part."""
    pattern = rf"(<!-- {name}: (?!end)[^>]*-->\n).*?(<!-- {name}: end -->)"
    made, count = re.subn(pattern, lambda part: f"{part[1]}\n{text}\n\n{part[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the part {name!r} is {count} times on its page: it must be there once")
    return made


def outdated() -> list[str]:
    """Return the names of the parts that differ from the code."""
    return [name for name, (page, make) in PARTS.items() if (text := _read(page)) != updated(text, name, make())]


def main(arguments: list[str]) -> int:
    """Write the outdated parts. With ``--check`` only print them, and return 1 if there are any."""
    names = outdated()
    for name in names:
        page, make = PARTS[name]
        if "--check" in arguments:
            print(f"docs/{page}: {name} differs from the code: run python -m tools.pages")
        else:
            (DOCS / page).write_text(updated(_read(page), name, make()), encoding="utf-8")
            print(f"docs/{page}: wrote {name}")
    return 1 if names and "--check" in arguments else 0


def _read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
