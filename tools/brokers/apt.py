"""Install a package on Debian and Ubuntu, without starting the server in it.

Only for root, only after a notice, and never with JOBTAPE_SETUP=never.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

MARK = "# Written by Jobtape's setup for the time of one installation. Delete it if it is still here.\n"
# With it, packages start no servers while they are installed.
POLICY = Path("/usr/sbin/policy-rc.d")
UPDATE_LIMIT = 300.0  # seconds
INSTALL_LIMIT = 900.0


class AptError(Exception):
    """Why the package cannot be installed, in one line."""


def install(package: str, log: Callable[[str], None]) -> None:
    """Install ``package``. Raises AptError if that is not allowed or fails."""
    if os.environ.get("JOBTAPE_SETUP") == "never":
        raise AptError("JOBTAPE_SETUP=never forbids installing packages")
    if shutil.which("apt-get") is None:
        raise AptError("this is no Debian or Ubuntu (no apt-get)")
    if os.geteuid() != 0:
        raise AptError("installing packages needs root")
    log(f"Installing the system package {package} with apt-get (JOBTAPE_SETUP=never forbids it) ...")
    _apt(["apt-get", "update", "-qq"], UPDATE_LIMIT)
    with servers_off(POLICY):
        _apt(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], INSTALL_LIMIT)
    if Path("/run/systemd/system").exists():
        # We need the program, not a service that starts with the machine.
        subprocess.run(["systemctl", "disable", "--quiet", package], capture_output=True, check=False)


@contextlib.contextmanager
def servers_off(policy: Path) -> Iterator[None]:
    """Forbid starting servers by the file ``policy`` until the end of the block. A file of somebody else stays."""
    if policy.exists() and MARK not in policy.read_text():
        yield
        return
    policy.write_text(f"#!/bin/sh\n{MARK}exit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def _apt(command: list[str], limit: float) -> None:
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AptError(f"{' '.join(command[:2])} took more than {limit:g} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise AptError(f"{' '.join(command[:2])} failed: {lines[-1].strip()}")
