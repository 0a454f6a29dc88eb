"""One installation in memory and one on the broker, for the tests that both must pass."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobtape.testing import Installation, memory, on_broker
from tests.testing import jobs


@pytest.fixture(scope="module", params=["memory", "broker"])
def jt(request: pytest.FixtureRequest) -> Iterator[Installation]:
    """An installation with all job types; the tests of a module share it."""
    opening = memory(jobs.ALL) if request.param == "memory" else on_broker(_url(request), jobs.ALL)
    with opening as opened:
        yield opened


@pytest.fixture
def ran() -> list[Any]:
    """What the handlers of this test did."""
    jobs.ran.clear()
    return jobs.ran


def _url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("broker_url")
    return url
