"""Tests of ``make venv`` on machines that cannot make one: it says in one line what is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.clone import ROOT

OLD = "import sys; sys.version_info = (3, 8, 1); exec(sys.argv[1])"
PYTHONS = {
    "old": (f'exec {sys.executable} -c "{OLD}" "$2"', "Python 3.8 is too old: install Python 3.11 or later"),
    "bare": (f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"', "apt-get install python3-venv"),
    "missing": (None, "is not installed: install Python 3.11 or later"),
}


@pytest.mark.parametrize("kind", PYTHONS)
def test_unusable_python_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    script, message = PYTHONS[kind]
    for name in ("Makefile", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    done = subprocess.run(
        ["make", "venv", f"PY={python}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert (done.returncode, len(lines), message in lines[0]) == (2, 1, True), done.stderr
    assert not (tmp_path / ".venv").exists()
