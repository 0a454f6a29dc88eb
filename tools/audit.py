"""Looks up the locked packages in a database of known vulnerabilities, with pip-audit.

Exit codes: 0 no vulnerability is known; 1 there are some; 2 NOT CHECKED, because the database did not answer.
"""

import json
import subprocess
import sys
from typing import Any

from tools.clone import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")
TIMEOUT = 600.0
"""Seconds for one lock file."""
NOT_CHECKED = 2


def audit(lock: str, *options: str) -> dict[str, Any] | str:
    """Return what pip-audit finds for a lock file: its JSON document, or, if it could not check, why."""
    command = [sys.executable, "-m", "pip_audit", "-r", lock, "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json", *options]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT:g} s"
    try:
        found = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode} and said nothing"]
        return lines[-1]
    if not isinstance(found, dict) or "dependencies" not in found:
        return f"pip-audit printed something else than its findings: {done.stdout[:200]}"
    return found


def report(lock: str, found: dict[str, Any] | str) -> int:
    """Print the findings of one lock file, and return the exit code."""
    if isinstance(found, str):
        print(f"{lock}: NOT CHECKED, the database of vulnerabilities could not be read: {found}")
        print("  Nothing is known about these versions now. Run make audit again where the internet can be reached.")
        return NOT_CHECKED
    skipped = [each for each in found["dependencies"] if "skip_reason" in each]
    checked = len(found["dependencies"]) - len(skipped)
    if not checked:
        return report(lock, f"it knows none of the {len(skipped)} packages")
    for each in skipped:
        print(f"{lock}: NOT CHECKED, {each['name']}: {each['skip_reason']}")
    vulnerable = [(each, fault) for each in found["dependencies"] for fault in each.get("vulns", ())]
    for each, fault in vulnerable:
        versions = ", ".join(fault["fix_versions"]) or "none yet"
        print(f"{lock}: {each['name']} {each['version']} has {fault['id']}; fixed in: {versions}")
    if not vulnerable:
        print(f"{lock}: no vulnerability is known in {checked} packages")
    return 1 if vulnerable else NOT_CHECKED if skipped else 0


def main() -> int:
    """Check all lock files. Returns the exit code: that of the worst."""
    codes = [report(lock, audit(lock)) for lock in LOCKS]
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
