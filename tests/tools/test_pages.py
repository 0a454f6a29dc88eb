"""The parts of the documentation that are made from the code are up to date."""

import pytest

from tools import pages


def test_the_pages_say_what_the_code_says() -> None:
    assert pages.outdated() == [], "run python -m tools.pages"


def test_a_page_without_the_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        pages.updated("# nothing here", "states", "text")
