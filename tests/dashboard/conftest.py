"""One installation for all tests of the dashboard in this process, and one browser for each module."""

from collections.abc import Iterator

import anyio
import pytest
from playwright.sync_api import Browser, expect

from jobtape.broker.declare import remove_namespace
from tests.cli.installation import Installation, installation_in
from tests.dashboard.browser import Tab, browser
from tests.namespaces import environment_for, some_topology

expect.set_options(timeout=60_000)


@pytest.fixture(scope="session")
def site(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation."""
    topology = some_topology("default", "gates")
    # A key of 32 bytes, and the networks of receivers in this process.
    hooks = {"JOBTAPE_SECRET_KEYS": "MDEy" * 10 + "MDE=", "JOBTAPE_WEBHOOK_ALLOW": "127.0.0.0/8"}
    made = installation_in(
        tmp_path_factory.mktemp("site"),
        **environment_for(broker_url, topology),
        **hooks,
        JOBTAPE_MANAGEMENT_URL="http://127.0.0.1:1",
    )
    made.up()
    yield made
    made.close()
    anyio.run(remove_namespace, broker_url, topology)


@pytest.fixture(scope="module")
def chromium(site: Installation) -> Iterator[Browser]:
    """The browser. It ends with the module, because tests of other modules run event loops in this thread."""
    with browser() as started:
        yield started


@pytest.fixture
def tab(site: Installation, chromium: Browser) -> Iterator[Tab]:
    """A tab of the dashboard, which shows no error until the test ends."""
    opened = Tab(chromium, f"http://127.0.0.1:{site.port}")
    yield opened
    opened.context.close()
    assert opened.faults == []
