"""Writes sections into ``docs/benchmarks.md``, each between its markers, and draws their charts."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.report.section import Section
from tools.clone import ROOT

PAGE: Final = ROOT / "docs" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "benchmarks"


def write(section: Section, folder: Path, page: Path = PAGE, images: Path = IMAGES, python: Path | None = None) -> None:
    """Replace what the page has between the markers of ``section``. ``folder`` has its data.

    With ``python``, the interpreter of the peers' environment, its charts are drawn into ``images``. Raises ValueError
    if the page has no such markers.
    """
    text = section.text
    if python is not None and section.charts:
        images.mkdir(exist_ok=True)
        command = [str(python), "-m", "benchmarks.report.plots", str(folder / f"{section.name}.json"), str(images)]
        subprocess.run(command, cwd=ROOT, check=True)
        links = [f"![{chart.title}]({images.name}/{chart.name}.svg)" for chart in section.charts]
        text = "\n\n".join([text, *links])
    page.write_text(replace(page.read_text(), section.name, text))


def replace(page: str, name: str, text: str) -> str:
    """Return ``page`` with ``text`` between the markers of ``name``. Raises ValueError if there are none."""
    begin, end = f"<!-- bench: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no markers {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)


def show(sections: Sequence[Section]) -> str:
    """Return the sections as one text."""
    return "\n\n".join(f"## {section.name}\n\n{section.text}" for section in sections)
