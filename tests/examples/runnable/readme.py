"""Runs the commands of an example's README and compares what they print with what stands there."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.clone import ROOT

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md") if (path.parent / "__init__.py").exists())
LIMIT = 60.0
"""Seconds that a block of commands may take."""


def readme(name: str) -> str:
    """Return the README of the example."""
    return (EXAMPLES / name / "README.md").read_text(encoding="utf-8")


def consoles(name: str) -> list[str]:
    """Return the blocks with commands (behind ``$``) and their output, in order."""
    return re.findall(r"^```console\n(.*?)^```", readme(name), re.MULTILINE | re.DOTALL)


def started(name: str, program: str) -> list[str]:
    """Return the arguments of each start of ``program`` in the README: ``make run``, ``uvicorn`` or ``python -m``."""
    return re.findall(rf"^(?:JOBTAPE_JOBS=(?:\S+) )?(?:\.venv/bin/)?{program} (.*)$", readme(name), re.MULTILINE)


def job_modules(name: str) -> list[str]:
    """Return the values of JOBTAPE_JOBS with which the README starts ``make run``, in order."""
    return re.findall(r"^JOBTAPE_JOBS=(\S+) make run$", readme(name), re.MULTILINE)


def run_console(block: str, folder: Path, environment: Mapping[str, str], ports: Mapping[str, int]) -> None:
    """Run the commands of a block in one shell, and check the output of each. ``ports`` replace the written ones.

    ``…`` in the output of the README stands for anything on that line, and a line of it alone for any lines.
    """
    for written, here in ports.items():
        block = re.sub(rf"(127\.0\.0\.1:){written}", rf"\g<1>{here}", block)
    steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    commands = [step.partition("\n")[0] for step in steps]
    expected = [step.partition("\n")[2].splitlines() for step in steps]
    mark = "---- end of a command ----"
    bin_folder = Path(sys.executable).parent
    script = "\n".join(f"{command}\nprintf '\\n{mark}\\n'" for command in commands)
    done = subprocess.run(
        ["bash", "-c", script.replace(".venv/bin/", f"{bin_folder}/")],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    outputs = done.stdout.split(f"\n{mark}\n")
    for command, printed, lines in zip(commands, outputs, expected, strict=False):
        found = printed.splitlines()
        assert _matches(found, lines), (
            f"$ {command}\n" + "\n".join(found) + f"\n(the README has {lines})\n{done.stderr}"
        )
    assert len(outputs) == len(commands) + 1, done.stderr


def _matches(found: Sequence[str], expected: Sequence[str]) -> bool:
    pattern = "\n".join(
        r"(?s:.+)" if line == "…" else r"[^\n]*".join(map(re.escape, line.split("…"))) for line in expected
    )
    return re.fullmatch(pattern, "\n".join(found).rstrip("\n")) is not None
