"""Tests of the page that measurements write: each has its place there, and changes nothing else."""

import pytest

from benchmarks.__main__ import AREAS
from benchmarks.report.page import PAGE, replace

TEXT = "before\n<!-- bench: http -->\nold\n<!-- end: http -->\nafter\n"


@pytest.mark.parametrize("area", AREAS)
def test_page_has_a_place_for_each_area(area: str) -> None:
    assert f"<!-- bench: {area} -->\nnew\n<!-- end: {area} -->" in replace(PAGE.read_text(), area, "new")


def test_section_replaces_what_is_between_its_markers() -> None:
    assert replace(TEXT, "http", r"\1 new") == TEXT.replace("old", r"\1 new")


def test_section_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        replace(TEXT, "reads", "new")
