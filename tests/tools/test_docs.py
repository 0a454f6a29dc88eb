"""The documentation builds as a site without a dead link, and names only files and commands that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from sphinx.cmd.build import main as sphinx_build

from jobtape.cli.main import app
from tools.clone import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMED_FILE = re.compile(
    r"`((?:broker|consumer|jobtape|producer|schemas|view|tests|tools|benchmarks|examples)/[\w/.-]+\.\w+)`"
)
COMMAND = re.compile(r"^\s*(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?jobtape (.+)$", re.MULTILINE)


def command_lines() -> list[str]:
    """Return each command line of ``jobtape`` that stands in a shell block of a page."""
    blocks = [block for page in PAGES for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.M | re.S)]
    return sorted({found.strip() for block in blocks for found in COMMAND.findall(block)})


def parse(command: Any, arguments: list[str]) -> None:
    """Parse ``arguments`` as the command line would, down to the subcommand, without running anything."""
    context = command.make_context("jobtape", arguments, resilient_parsing=False)
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, found, rest = context.command.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(name, rest, parent=context)


def test_site_builds_without_warning(tmp_path: Path) -> None:
    built = sphinx_build(["-q", "-n", "-W", "-b", "html", str(ROOT / "docs"), str(tmp_path / "site")])
    assert built == 0
    assert (tmp_path / "site" / "index.html").exists()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    assert [name for name in NAMED_FILE.findall(page.read_text()) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("line", command_lines())
def test_command_line_is_accepted(line: str) -> None:
    arguments = shlex.split(line, comments=True)
    parse(typer.main.get_command(app), arguments)
