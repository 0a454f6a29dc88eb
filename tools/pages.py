"""Keeps those parts of the documentation that the code is the source of: ``python -m tools.pages [--check]``.

A part stands between ``<!-- NAME: … -->`` and ``<!-- NAME: end -->`` on its page and is written from the code.
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
    """Every environment variable, its default and what it is for."""
    lines = ["| variable | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = {"rabbitmq_url": "RABBITMQ_URL", "database_url": "DATABASE_URL"}.get(name, f"JOBTAPE_{name.upper()}")
        value = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = "" if value in (None, (), "") else f"`{value}`"
        lines.append(f"| `{variable}` | {default} | {field.description} |")
    return "\n".join(lines)


def problems_table() -> str:
    """Return the table of all problem types of the REST API."""
    lines = [f"| `type` after `{URN}` | status | |", "|---|---|---|"]
    lines += [f"| `{kind}` | {status} | {title} |" for kind, (status, title) in KINDS.items()]
    return "\n".join(lines)


PARTS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "states": ("concepts/states.md", draw),
    "settings": ("reference/settings.md", settings_table),
    "problems": ("reference/errors.md", problems_table),
}
"""Name of the part -> its page and what makes it."""


def updated(page: str, name: str, text: str) -> str:
    """The page with ``text`` as its part ``name``. Raises ValueError when the page hasn't exactly one such part."""
    pattern = rf"(<!-- {name}: (?!end)[^>]*-->\n).*?(<!-- {name}: end -->)"
    made, count = re.subn(pattern, lambda part: f"{part[1]}\n{text}\n\n{part[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the part {name!r} stands {count} times on its page: once is right")
    return made


def outdated() -> list[str]:
    """The names of the parts that are not what the code says."""
    return [name for name, (page, make) in PARTS.items() if (text := _read(page)) != updated(text, name, make())]


def main(arguments: list[str]) -> int:
    """Write what is outdated, or with ``--check`` only name it (then the exit status is 1)."""
    names = outdated()
    for name in names:
        page, make = PARTS[name]
        if "--check" in arguments:
            print(f"docs/{page}: {name} is not what the code says: run python -m tools.pages")
        else:
            (DOCS / page).write_text(updated(_read(page), name, make()), encoding="utf-8")
            print(f"docs/{page}: wrote {name}")
    return 1 if names and "--check" in arguments else 0


def _read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
