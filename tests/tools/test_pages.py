"""The generated parts of the documentation are up to date."""

import pytest

from tools import pages


def test_generated_parts_match_the_code() -> None:
    assert pages.outdated() == [], "run python -m tools.pages"


def test_page_without_the_part_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        pages.updated("# nothing here", "states", "text")
