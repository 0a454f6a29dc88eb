"""The folders of the code stay small enough to be read at a glance, as CONTRIBUTING.md says."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("broker", "consumer", "jobtape", "producer", "schemas", "tools", "view")
MOST = 12


def test_folder_holds_few_modules() -> None:
    files = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    modules = Counter(str(path.parent) for path in files if path.name != "__init__.py")
    assert len(modules) > 40
    too_many = {folder: n for folder, n in modules.items() if n > MOST}
    assert too_many == {}, "group the modules that share a subject in a folder"
