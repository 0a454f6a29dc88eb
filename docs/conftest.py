"""Runs the Python snippets of the pages: the blocks of one page in order, in one namespace.

Pages import the job type of the README from ``hello``. Snippets that would connect are functions, which are not called,
or stand below ``if __name__ == "__main__":``.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

README = Path(__file__).resolve().parent.parent / "README.md"


def _add_hello() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (source,) = [block for block in blocks if '@job("hello"' in block]
    hello = ModuleType("hello")
    sys.modules["hello"] = hello
    exec(source, hello.__dict__)  # noqa: S102 - our own README


_add_hello()
pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"]).pytest()
