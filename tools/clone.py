"""This clone of the project: its folders, a short name for it, and files that only its owner reads.

Standard library only.
"""

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".jobtape"


def short_hash(text: str) -> str:
    """Return eight hex digits of a hash of ``text``, for names."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def clone_name(root: Path = ROOT) -> str:
    """Return ``jobtape-<8 hex digits of the clone's path>``: the name of its container, volume and namespace."""
    return f"jobtape-{short_hash(str(root))}"


def write_private(path: Path, text: str) -> None:
    """Replace the file ``path`` in one step. Only its owner may read it."""
    new = path.with_name(path.name + ".new")
    new.touch()
    new.chmod(0o600)
    new.write_text(text)
    new.replace(path)
