"""This clone of the project: where it is, and a short name for it. Standard library only."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".jobtape"


def short_hash(text: str) -> str:
    """Eight hex digits that differ for different texts: for names, not for secrets."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def clone_name(root: Path = ROOT) -> str:
    """`jobtape-<8 hex digits of the clone's path>`: names our container, volume and namespace on a shared broker."""
    return f"jobtape-{short_hash(str(root))}"
