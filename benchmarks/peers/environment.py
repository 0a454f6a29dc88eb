"""The virtual environment of the peers, with the locked packages of the dependency group ``bench``."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.clone import DATA, ROOT

LOCK: Final = ROOT / "requirements-bench.lock"
FOLDER: Final = DATA / "bench-venv"


def peers_python() -> Path:
    """Return the interpreter of the peers' environment, which is made if it is missing or old.

    Takes a minute the first time. Raises CalledProcessError if the packages cannot be installed; pip says why.
    """
    python, stamp = FOLDER / "bin" / "python", FOLDER / "jobtape.stamp"
    wanted = hashlib.sha256(LOCK.read_bytes() + f"{sys.version}\n{ROOT}".encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print("Installing the peers (a minute or so the first time) ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
    subprocess.run([*pip, "--root-user-action=ignore", "--require-hashes", "-r", str(LOCK)], check=True)
    stamp.write_text(wanted)
    return python
