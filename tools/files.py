"""Files that hold a password. Standard library only."""

from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replaces `path` in one step; only its owner may read it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("")
    fresh.chmod(0o600)
    fresh.write_text(text)
    fresh.replace(path)
