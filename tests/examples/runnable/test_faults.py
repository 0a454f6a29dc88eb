"""What the examples are for shows only when something breaks: a connection, or a service."""

from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.broker.proxy import Proxy
from tests.cli.programs import until
from tests.examples.runnable.conftest import Installation, serving
from tests.examples.runnable.readme import EXAMPLES, consoles, run_console, started
from tests.result_clients import node_program, run_client
from tests.waiting import eventually

FOLLOW = Path(__file__).parent / "follow.mjs"
LIMIT = 60.0


def _has_more_than(lines: list[str], n: int) -> bool:
    return len(lines) > n


def _has_accepted(network: Proxy, n: int) -> bool:
    return network.seen >= n


@pytest.mark.anyio
async def test_page_gets_each_event_once_over_broken_connections(installation: Installation) -> None:
    app = f"http://127.0.0.1:{installation.app_port}"
    module = EXAMPLES / "websocket_progress" / "progress.mjs"
    with serving("websocket_progress", installation):
        async with httpx.AsyncClient(base_url=app, timeout=LIMIT, trust_env=False) as http, Proxy(app) as network:
            job = (await http.post("/videos", params={"seconds": 10_000})).json()["job"]
            url = f"{network.url.replace('http', 'ws', 1).rstrip('/')}/jobtape/ws"
            async with run_client("", "", (node_program()[0], str(FOLLOW), str(module), url, job)) as page:
                for connection in range(1, 5):
                    more = partial(_has_more_than, page.lines, len(page.lines))
                    await eventually(more, LIMIT, what=f"an event: {page.errors}")
                    network.cut(reset=connection % 2 == 0)
                    again = partial(_has_accepted, network, connection + 1)
                    await eventually(again, LIMIT, what=f"the page connects again: {page.errors}")
                (await http.post(f"/jobtape/jobs/{job}/cancel")).raise_for_status()
                await eventually(lambda: page.lines and page.lines[-1] == "end", LIMIT, what="the end of the job")
            events = (await http.get(f"/jobtape/jobs/{job}/events", params={"limit": 1000})).json()["items"]
            assert page.lines == [each["id"] for each in events if each["accepted"]] + ["end"]


def test_shipping_sends_parcels_of_orders_while_it_was_down(installation: Installation) -> None:
    (shipping,) = [command for command in started("two_services", "python -m") if "shipping" in command]
    (block,) = consoles("two_services")
    ports = {"8000": installation.port, "8001": installation.app_port}
    with (
        serving("two_services", installation),
        httpx.Client(base_url=f"http://127.0.0.1:{installation.app_port}", timeout=LIMIT, trust_env=False) as http,
    ):
        first = installation.start("-P", "-m", shipping)
        run_console(block, installation.folder, installation.environment, ports)
        first.close()
        late = http.post("/orders", params={"article": "chair", "pieces": 1}).json()["order"]
        second = installation.start("-P", "-m", shipping)
        api = f"http://127.0.0.1:{installation.port}"

        def parcels() -> list[str]:
            return [each["payload"]["order"] for each in http.get(f"{api}/jobs?type=parcel.send").json()["items"]]

        until(lambda: late in parcels(), "the parcel of the later order")
        assert len(parcels()) == len(set(parcels())) == 2
        second.close()
