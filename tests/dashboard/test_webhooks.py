"""The page of webhooks."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from playwright.sync_api import expect
from standardwebhooks import Webhook

from tests.cli.installation import Installation
from tests.dashboard.browser import Tab, serious_faults


class _Hooks(BaseHTTPRequestHandler):
    received: list[tuple[bytes, dict[str, str]]]
    status = 204

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append((body, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hooks() -> Iterator[HTTPServer]:
    """A receiver, which runs in a thread because the browser blocks this one."""
    handler = type("Hooks", (_Hooks,), {"received": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhook_is_created_tested_disabled_and_deleted(site: Installation, tab: Tab, hooks: HTTPServer) -> None:
    url = f"http://127.0.0.1:{hooks.server_port}/hook"
    page = tab.go("webhooks")
    expect(page.get_by_text("There is no webhook yet")).to_be_visible()
    page.get_by_role("button", name="New webhook").click()
    form = page.get_by_role("dialog")
    page.get_by_label("URL required").fill("ftp://example.org/")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_text("write the URL as https://host/path").first).to_be_visible()
    page.get_by_label("URL required").fill(url)
    form.get_by_label("failed", exact=True).check()
    page.get_by_label("Job types").fill("mail.*, boom")
    page.get_by_label("Label").fill("tenant:a")
    assert not serious_faults(page)
    form.get_by_role("button", name="Create").click()
    secret = page.locator("code.secret").inner_text()
    expect(page.get_by_text("It is not shown again")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    row = page.get_by_role("row", name="/hook")
    expect(row).to_contain_text("failed of mail.*, boom, tenant: a")
    expect(row).to_contain_text("active")

    row.get_by_role("button", name="Test").click()
    deliveries = page.get_by_role("dialog")
    expect(deliveries.get_by_role("row", name="webhook.test")).to_contain_text("204")
    assert not serious_faults(page)
    ((body, headers),) = hooks.RequestHandlerClass.received  # type: ignore[attr-defined]
    assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"
    deliveries.get_by_role("button", name="Close").click()

    row.get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("somebody disabled it")
    expect(row.get_by_role("button", name="Replay")).to_be_disabled()
    row.get_by_role("button", name="Enable").click()
    expect(row).to_contain_text("active")
    row.get_by_role("button", name="New secret").click()
    page.get_by_role("dialog").get_by_role("button", name="New secret").click()
    expect(page.locator("code.secret")).not_to_have_text(secret)
    page.get_by_role("button", name="Close").click()
    hooks.RequestHandlerClass.status = 500  # type: ignore[attr-defined]
    row.get_by_role("button", name="Test").click()
    expect(deliveries.get_by_role("row", name="webhook.test")).to_have_count(2)
    deliveries.get_by_role("button", name="Close").click()
    expect(row).to_contain_text("failing")
    tab.go("overview")
    expect(page.locator(".verdict.warn li", has_text="/hook")).to_contain_text("has failed since")
    tab.go("webhooks")
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There is no webhook yet")).to_be_visible()
