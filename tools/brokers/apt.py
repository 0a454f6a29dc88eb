"""Installs a server's package on Debian and Ubuntu without letting the package start a server of its own.

Only for root, only when nothing else is left, announced, and never with JOBTAPE_SETUP=never. The two temporary files it
needs are removed again; one that a killed run left behind carries our mark and is removed by the next.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

MARK = "# Written by Jobtape's setup for the time of one installation; delete it if it is still here.\n"
POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTERS = Path("/etc/postgresql-common/createcluster.d/jobtape.conf")
DPKG = Path("/var/lib/dpkg")
# Seconds; a slow mirror and a slow disk, but not for ever.
UPDATE_LIMIT = 300.0
INSTALL_LIMIT = 900.0


class AptError(Exception):
    """Why the package can't be had this way, in one line."""


def install(package: str, log: Callable[[str], None], *, oldest: tuple[int, ...] = (0,)) -> None:
    """Installs `package` (at least version `oldest`); raises AptError when it isn't allowed, possible or successful."""
    _allowed(os.environ)
    log(f"Installing the system package {package} with apt-get (JOBTAPE_SETUP=never forbids it) ...")
    with _alone():
        _apt(["apt-get", "update", "-qq"], UPDATE_LIMIT)
        version = _candidate(package)
        if version < oldest:
            wanted = ".".join(str(part) for part in oldest)
            found = ".".join(str(part) for part in version) or "none"
            raise AptError(f"this distribution's {package} is too old ({found}): {wanted} is needed")
        policy, clusters = f"#!/bin/sh\n{MARK}exit 101\n", f"{MARK}create_main_cluster = false\n"
        with temporary_file(POLICY, policy, 0o755), temporary_file(CLUSTERS, clusters, 0o644):
            _apt(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], INSTALL_LIMIT)
        _keep_disabled(package)


def wait_for_others() -> None:
    """Until no other process of ours installs anything: what is found then is there as a whole."""
    if DPKG.is_dir():
        with _alone():
            pass


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One installation of ours at a time on a machine: the second finds done what the first did. dpkg's folder itself
    is the lock, which a killed process leaves free."""
    handle = os.open(DPKG, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _allowed(environment: Mapping[str, str]) -> None:
    if environment.get("JOBTAPE_SETUP") == "never":
        raise AptError("JOBTAPE_SETUP=never forbids installing packages")
    if shutil.which("apt-get") is None or not DPKG.is_dir():
        raise AptError("this is no Debian or Ubuntu (no apt-get)")
    if os.geteuid() != 0:
        raise AptError("installing packages needs root")


def _candidate(package: str) -> tuple[int, ...]:
    """The version that apt would install, as numbers; raises AptError when there is none."""
    shown = _apt(["apt-cache", "policy", package], 60.0)
    found = re.search(r"Candidate: (?:\d+:)?(\d+(?:\.\d+)*)", shown)
    if found is None:
        raise AptError(f"apt knows no package {package}")
    return tuple(int(part) for part in found.group(1).split("."))


def _apt(command: list[str], limit: float) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            env=environment,
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
    return done.stdout


@contextlib.contextmanager
def temporary_file(path: Path, text: str, mode: int) -> Iterator[None]:
    """`path` with `text` for the time of the block. Somebody else's file of that name stays as it is."""
    if path.exists() and MARK not in path.read_text():
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        for folder in made:
            # Only what is empty goes; the package may have put its own files there by now.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _keep_disabled(package: str) -> None:
    """We want the program, not a service at the next boot."""
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "disable", "--quiet", package], capture_output=True, check=False)
