"""The pytest plugin: the fixture ``jobtape``, an ``Installation`` for each test.

pytest loads it by its entry point. Everything else is imported when a test uses the fixture.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jobtape.testing import Installation

_NO_BROKER = (
    "--jobtape=broker needs a RabbitMQ: set RABBITMQ_URL=amqp://user:password@host:5672/, or override the fixture "
    "jobtape_broker_url with one that returns its URL"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting."""
    parser.getgroup("jobtape").addoption(
        "--jobtape",
        choices=("memory", "broker"),
        default="memory",
        help="The broker of the fixture jobtape: one in memory (default), or a real one, see jobtape_broker_url.",
    )
    parser.addini("jobtape_jobs", "The modules with the job types of the fixture jobtape.", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "jobtape(*job_types, **settings): the job types of the fixture jobtape in this test, and settings that "
        "replace those of the environment.",
    )


@pytest.fixture(scope="session")
def jobtape_broker_url() -> str:
    """The broker of the fixture jobtape with --jobtape=broker: RABBITMQ_URL. Override it to start one."""
    url = os.environ.get("RABBITMQ_URL", "").strip()
    if not url:
        raise pytest.UsageError(_NO_BROKER)
    return url


@pytest.fixture
def jobtape(request: pytest.FixtureRequest) -> "Iterator[Installation]":
    """An installation for this test, with the job types of its marker, or else of the modules in ``jobtape_jobs``."""
    testing = import_module("jobtape.testing")
    marker = request.node.get_closest_marker("jobtape")
    job_types: Any = () if marker is None else marker.args
    if not job_types:
        modules = request.config.getini("jobtape_jobs")
        if not modules:
            raise pytest.UsageError(
                "the fixture jobtape has no job types: mark the test with @pytest.mark.jobtape(hello), or name their "
                "modules in the setting jobtape_jobs"
            )
        job_types = import_module("jobtape.loading").load_job_types(tuple(modules), request.config.rootpath)
    settings = {} if marker is None else marker.kwargs
    if request.config.getoption("--jobtape") == "memory":
        opening = testing.memory(job_types, **settings)
    else:
        opening = testing.on_broker(request.getfixturevalue("jobtape_broker_url"), job_types, **settings)
    with opening as opened:
        yield opened
