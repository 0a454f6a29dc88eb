"""Old events are upcast one version at a time; newer and malformed ones are refused."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events.upcast import CURRENT_VERSION, UPCASTERS, Upcaster, upcast


def first_to_second(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**raw, "worker": raw["host"], "steps": [*raw.get("steps", []), "1-2"]}


def second_to_third(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**raw, "worker": {"name": raw["worker"].strip()}, "steps": [*raw.get("steps", []), "2-3"]}


STEPS: dict[int, Upcaster] = {1: first_to_second, 2: second_to_third}


@pytest.mark.parametrize(
    ("raw", "steps"),
    [
        ({"host": "h"}, ["1-2", "2-3"]),
        ({"host": "h", "schemaversion": 1}, ["1-2", "2-3"]),
        ({"worker": "h", "schemaversion": 2}, ["2-3"]),
    ],
)
def test_each_version_passes_all_later_ones(raw: dict[str, Any], steps: list[str]) -> None:
    lifted = upcast(MappingProxyType(raw), STEPS)
    assert (lifted["schemaversion"], lifted["steps"], lifted["worker"]) == (3, steps, {"name": "h"})
    assert "steps" not in raw


def test_newest_version_is_unchanged() -> None:
    raw = {"schemaversion": 3}
    assert upcast(raw, STEPS) is raw


@pytest.mark.parametrize("version", [4, 2**40])
def test_newer_version_raises_with_advice(version: int) -> None:
    with pytest.raises(UnreadableEvent, match=f"{version} is newer than 3: update Jobtape, then rebuild"):
        upcast({"schemaversion": version}, STEPS)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, [], {"a": 1}])
def test_invalid_version_is_refused(version: Any) -> None:
    with pytest.raises(UnreadableEvent, match="is no version"):
        upcast({"schemaversion": version}, STEPS)


@given(st.dictionaries(st.sampled_from(["host", "worker", "steps", "schemaversion"]), st.none() | st.integers(1, 2)))
def test_event_unlike_its_version_is_unreadable(raw: dict[str, Any]) -> None:
    with pytest.raises(UnreadableEvent, match="schemaversion"):
        upcast(raw, STEPS)


def test_upcasters_lead_to_current_version_without_gap() -> None:
    assert sorted(UPCASTERS) == list(range(1, CURRENT_VERSION))
