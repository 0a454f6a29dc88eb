"""Writes the software bill of materials (CycloneDX 1.6, JSON) of what the package installs, from requirements.lock.

The lock names each version with its hashes, for all platforms. The document has no time and no random number, so that
the same lock gives the same document.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.clone import ROOT

TARGET = ROOT / "build" / "sbom.cdx.json"


def sbom() -> dict[str, Any]:
    """Return the document. Raises subprocess.CalledProcessError, whose ``stderr`` says why."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "requirements.lock"]
    command += ["--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible", "--sv", "1.6"]
    done = subprocess.run([*command, "-o", "-"], cwd=ROOT, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def main(target: Path = TARGET) -> int:
    """Write the document to ``target`` and print where. Returns the exit code."""
    try:
        document = sbom()
    except subprocess.CalledProcessError as error:
        print(f"no bill of materials was written: {error.stderr.strip()}", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {len(document['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
