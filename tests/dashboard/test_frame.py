"""The frame of the dashboard: accessibility, small screens, the API key, a prefix, an API and a broker that restart."""

import json
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.cli.installation import Installation, health, installation_in
from tests.cli.programs import Program, until
from tests.dashboard.browser import PHONE, WIDE, Tab, serious_faults
from tests.dashboard.test_jobs import ended, submit
from tests.namespaces import environment_for, some_topology
from tools.brokers.node import PrivateNode
from tools.processes.ports import free_port

KEY = "a key is ASCII".replace(" ", "-")
MOUNTED = """
from fastapi import FastAPI
import jobtape

app = FastAPI(lifespan=jobtape.lifespan)
app.mount("/deep/jobtape", jobtape.create_app())
"""


@pytest.mark.parametrize(("size", "dark"), [(WIDE, True), (PHONE, False)])
def test_pages_are_accessible_and_fit(site: Installation, chromium: Browser, size: tuple[int, int], dark: bool) -> None:
    job_id = submit(site, "boom", {"text": "x" * 300}, labels={"tenant": "a", "l" * 60: "v" * 90})
    ended(site, job_id)
    opened = Tab(chromium, f"http://127.0.0.1:{site.port}", size, dark=dark)
    cursor = submit(site, "add", {"x": 1, "y": 2})
    ended(site, cursor)
    for address in (
        "overview",
        "jobs",
        f"jobs/{job_id}",
        "queues",
        "schedules",
        "tape",
        "dead",
        "subscriptions",
        "webhooks",
        "keys",
        f"submit?from={job_id}",
    ):
        page = opened.go(address)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if address == "failures":
            expect(page.get_by_label("boom: ValueError")).to_be_visible()
        if address == "subscriptions":
            expect(page.get_by_text("rabbitmq-plugins enable rabbitmq_management")).to_be_visible()
        expect(page.get_by_text("Loading …")).to_have_count(0)
        assert not serious_faults(page), address
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{address} is {wide} px too wide"
    opened.context.close()
    assert opened.faults == []


def api_on(site: Installation, port: int, **variables: str) -> Program:
    """Start another API process of the installation, and wait until it serves."""
    program = site.start("api", JOBTAPE_PORT=str(port), **variables)
    program.line_with("running on")
    return program


def test_key_is_asked_once_and_api_may_restart(site: Installation, chromium: Browser) -> None:
    port = free_port()
    process = api_on(site, port, JOBTAPE_API_KEY=KEY)
    job_id = submit(site, "add", {"x": 20, "y": 3})
    opened = Tab(chromium, f"http://127.0.0.1:{port}")
    page = opened.go(f"jobs/{job_id}")
    page.get_by_label("Key").fill("another-key")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("The API did not accept this key.")).to_be_visible()
    page.get_by_label("Key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("heading", name="succeeded add")).to_be_visible()
    assert KEY not in page.url
    page.reload()
    expect(page.get_by_role("heading", name="succeeded add")).to_be_visible()
    process.close()
    page.get_by_role("link", name="Queues").click()
    expect(page.locator(".problem").first).to_contain_text("The API does not answer")
    come_back(page)
    expect(page.locator(".outage")).to_contain_text("nothing can be changed until it does")
    until(lambda: not process.running(), "the API has ended")
    restarted = api_on(site, port, JOBTAPE_API_KEY=KEY)
    expect(page.locator(".queues").get_by_role("link", name="gates")).to_be_visible()
    expect(page.locator(".outage")).to_have_count(0)
    opened.context.close()
    restarted.close()
    assert opened.faults == []


def test_dashboard_under_a_prefix(site: Installation, chromium: Browser) -> None:
    (site.folder / "mounted.py").write_text(MOUNTED)
    port = free_port()
    command = [str(Path(sys.executable).with_name("uvicorn")), "mounted:app", "--port", str(port)]
    program = Program(command, site.env | {"PYTHONPATH": str(site.folder)}, site.folder)
    program.line_with("running on")
    opened = Tab(chromium, f"http://127.0.0.1:{port}/deep/jobtape")
    page = opened.go("submit?type=add")
    page.get_by_label("x required").fill("1")
    page.get_by_label("y required").fill("2")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="succeeded add")).to_be_visible()
    opened.context.close()
    program.close()
    assert opened.faults == []


def test_list_is_polled_while_no_stream_is_free(site: Installation, chromium: Browser) -> None:
    port = free_port()
    program = api_on(site, port, JOBTAPE_MAX_LISTENERS="1")
    url = f"http://127.0.0.1:{port}"
    with httpx.stream("GET", f"{url}/events", trust_env=False, timeout=60) as taken:
        assert taken.status_code == 200
        opened = Tab(chromium, url)
        page = opened.go("jobs?label=test%3Apolled")
        expect(page.get_by_text("No job matches")).to_be_visible()
        expect(page.get_by_text("not live")).to_be_visible()
        submit(site, "add", {"x": 1, "y": 1}, labels={"test": "polled"})
        expect(page.locator("tbody tr")).to_contain_text("succeeded")
        opened.context.close()
    program.close()
    assert opened.faults == []


def come_back(page: Page) -> None:
    """Let the page do what it does when its tab is shown again: it looks at everything without waiting for its time."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.timeout(400)  # starts a broker twice, and five programs
def test_dashboard_says_that_broker_or_projector_is_away_and_goes_on(
    node: PrivateNode, tmp_path: Path, chromium: Browser
) -> None:
    made = installation_in(tmp_path, **environment_for(node.url, some_topology("default", "gates")))
    projector, api, worker = (made.start(part) for part in ("projector", "api", "worker"))
    api.line_with("running on")
    worker.line_with("taking jobs")
    until(lambda: health(f"http://127.0.0.1:{made.port}")[0] == 200, "the API is ready")
    gate = made.gate()
    job_id = submit(made, "gate", {"path": str(gate)})
    url = f"http://127.0.0.1:{made.port}"
    opened, other = Tab(chromium, url), Tab(chromium, url)
    page = opened.go(f"jobs/{job_id}")
    expect(page.locator("p.progress")).to_contain_text("50 % · at the gate")
    form = other.go("submit?type=add")
    expect(form.get_by_text("all parts ready")).to_be_visible()
    form.get_by_label("x required").fill("20")
    form.get_by_label("y required").fill("3")
    node.kill()
    # The page asks for the health every 10 s, and has not noticed it.
    form.get_by_role("button", name="Submit", exact=True).click()
    expect(form.get_by_role("alert")).to_contain_text("broker")
    until(lambda: health(url)[0] == 503, "the API has noticed it")
    come_back(form)
    form.locator(".health.bad summary").click()
    expect(form.locator(".health.bad")).to_contain_text("The broker does not answer:")
    expect(form.get_by_role("button", name="Submit", exact=True)).to_be_disabled()
    come_back(page)
    for address in ("overview", "queues", "tape", "dead", "webhooks", f"jobs/{job_id}"):
        opened.go(address)
        expect(page.locator(".outage")).to_contain_text("The broker does not answer:")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    expect(page.get_by_label("Time", exact=True)).to_contain_text("Stale since")
    ran = page.locator(".facts div", has_text="Ran").locator("dd")
    stopped_at = ran.inner_text()
    node.start()
    expect(page.locator(".health.good")).to_be_visible(timeout=60_000)  # the projector takes its lease again
    expect(page.locator(".outage")).to_have_count(0)
    expect(ran).not_to_have_text(stopped_at)

    def repeated() -> bool:
        """Submit under the same key. The first submission may still be in progress, and then the API refuses it."""
        with form.expect_response(lambda answer: answer.request.method == "POST") as answer:
            form.get_by_role("button", name="Submit", exact=True).click()
        return answer.value.status == 202

    until(repeated, "the submission is accepted")
    expect(form.get_by_role("heading", name="succeeded add")).to_be_visible()
    other.context.close()
    opened.go(f"jobs/{job_id}")
    gate.write_text("opened")
    expect(page.get_by_role("heading", name="succeeded gate")).to_be_visible()
    opened.go("jobs")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    worker.close()

    def unserved() -> list[str]:
        queues = json.loads(health(url)[1])["workers"]
        return [name for name, found in queues.items() if found["consumers"] == 0]

    until(lambda: len(unserved()) == 2, "both queues are without a worker")
    come_back(page)
    page.locator(".health.warn summary").click()
    expect(page.locator(".health.warn li")).to_have_text(
        re.compile(r"queues default, gates: no worker takes jobs from them .*jobtape worker --queues default,gates$")
    )
    projector.send(signal.SIGSTOP)
    until(lambda: (json.loads(health(url)[1])["lag"] or 0) > 6, "the view is behind")
    come_back(page)
    expect(page.locator(".outage")).to_contain_text(re.compile("behind the tape|no news from the tape"))
    expect(page.locator(".live")).to_contain_text("stale since")
    expect(page.locator(".outage")).to_contain_text("jobs with a limit or an ordering key wait until a projector works")
    opened.go("queues")
    expect(page.get_by_text("are on no queue yet, and are not counted here")).to_be_visible()
    opened.go("overview")
    expect(page.locator(".tile", has_text="Submitted")).to_contain_text("in the 15 minutes until")
    expect(page.get_by_role("heading", name=re.compile("^Waiting at "))).to_be_visible()
    opened.go("jobs")
    projector.send(signal.SIGCONT)
    expect(page.locator(".outage")).to_have_count(0, timeout=60_000)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    opened.context.close()
    made.close()
    assert opened.faults == other.faults == []
