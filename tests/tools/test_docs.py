"""Tests of the documentation: the site builds, the named files exist, and the command lines parse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from jobtape.cli.main import app
from tools.clone import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|\s)(?:\.venv/bin/)?jobtape (.*)")


def shell_commands(page: Path) -> list[str]:
    """Return the arguments of each ``jobtape`` command in the shell blocks of ``page``."""
    blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [found[1] for line in lines if not line.startswith("#") and (found := COMMAND.search(line))]


def parse(line: str) -> None:
    """Parse the arguments of ``jobtape`` without running it. Raises click's UsageError when they are wrong."""
    words = shlex.shlex(line.replace("$(date +%F)", "2030-01-31"), posix=True, punctuation_chars=True)
    words.whitespace_split = True
    arguments: list[str] = []
    for word in words:
        if word and set(word) <= set("();<>|&"):
            break
        arguments.append(word)
    command, name = typer.main.get_command(app), "jobtape"
    context = None
    while True:
        context = command.make_context(name, arguments, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        found, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        name = str(found)


@pytest.mark.timeout(330)  # a little more than the build may take
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-E", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    names = re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|md|mjs|sh|yml|toml|html))`", page.read_text(encoding="utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []


COMMANDS = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}") for page in PAGES for line in shell_commands(page)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_line_of_a_page_parses(line: str) -> None:
    parse(line)


def test_unknown_option_does_not_parse() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse("list --no-such-option")
