"""``make pictures``: draw the pictures of the dashboard in the documentation, from jobs that really ran."""

import io
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import pika
from PIL import Image
from playwright.sync_api import Browser, Page

from benchmarks.rig.load.shop_tape import day
from benchmarks.rig.load.tapes import publish
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tests.brokers import start_session_broker
from tests.cli.installation import Installation, installation_in
from tests.cli.programs import until
from tests.dashboard.browser import Tab, browser
from tests.dashboard.pictures.pages import settle
from tests.namespaces import environment_for, some_topology
from tools.clone import ROOT
from tools.processes.ports import free_port

FOLDER: Final = ROOT / "docs" / "pictures"
SHOP: Final = Path(__file__).with_name("shop.py")
SIZE: Final = (1280, 800)
COLOURS: Final = 256
ALIKE: Final = 12
"""How far apart colours may be that look the same: the sum of what red, green and blue differ by."""
NAMES: Final = ("ada", "grace", "edsger", "barbara", "ken", "radia")


def _submit(client: httpx.Client, job_type: str, payload: dict[str, Any], **labels: str) -> str:
    answer = client.post("/jobs", json={"type": job_type, "payload": payload, "labels": labels})
    answer.raise_for_status()
    job_id: str = answer.json()["id"]
    return job_id


def _run_jobs(client: httpx.Client) -> tuple[str, str]:
    """Run some jobs, and return a job that was retried and one that failed. One more job runs for a while."""
    retried = _submit(client, "mail.send", {"to": "ada@example.org", "refusals": 2}, tenant="a")
    failed = ""
    for n, name in enumerate(NAMES):
        tenant = "abc"[n % 3]
        _submit(client, "payment.charge", {"customer": 7000 + n, "amount": 19.9 * (n + 1)}, tenant=tenant)
        _submit(client, "mail.send", {"to": f"{name}@example.org"}, tenant=tenant, campaign="autumn")
        if n == 3:
            failed = _submit(client, "payment.charge", {"customer": 2**63 - 1, "amount": -5.0}, tenant=tenant)
    _submit(client, "report.build", {"year": 2025}, tenant="a")
    until(lambda: all(_ended(client, job_id) for job_id in (retried, failed)), "the jobs end")
    _submit(client, "report.build", {"year": 2026, "pause": 3.0}, tenant="a")
    return retried, failed


def _prepare_rules(site: Installation, client: httpx.Client) -> None:
    """Make schedules, a changed limit, jobs that wait for a key, a subscription and a dead letter."""
    report = {"type": "report.build", "payload": {"year": 2025}, "cron": "0 9 * * MON-FRI", "tz": "Europe/Berlin"}
    client.put("/schedules/morning-report", json=report).raise_for_status()
    client.put("/schedules/sweep", json={"type": "stock.sweep", "payload": {}, "every": 3600}).raise_for_status()
    client.post("/schedules/sweep/trigger").raise_for_status()
    client.put("/limits/text.count", json={"at_most": 5}).raise_for_status()
    for n in range(3):
        _submit(client, "stock.move", {"article": "bolts", "pieces": n, "pause": 60.0}, tenant="a")
    connection = pika.BlockingConnection(pika.URLParameters(site.env["RABBITMQ_URL"]))
    queue = Topology(site.env["JOBTAPE_NAMESPACE"]).work_queue("mail").name
    connection.channel().basic_publish("", queue, b'{"hello": "world"}')
    connection.close()
    until(lambda: client.get("/dead").json()["items"], "the dead letter is stored")


def _ended(client: httpx.Client, job_id: str) -> bool:
    return client.get(f"/jobs/{job_id}").json()["state"] in ("succeeded", "failed")


def _damage(site: Installation, client: httpx.Client) -> None:
    """Change three jobs in the view, so that the rebuild finds something."""
    jobs = client.get("/jobs", params={"type": "payment.charge", "state": "succeeded", "limit": 3}).json()["items"]
    with closing(sqlite3.connect(site.folder / "view.db", timeout=30)) as database, database:
        for job in jobs:
            database.execute("UPDATE jobs SET state = 'failed', reason = 'error' WHERE id = ?", [job["id"]])


def _save(page: Page, name: str) -> None:
    assert not settle(page)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    _reduced(picture).save(FOLDER / f"{name}.png", optimize=True)


def _reduced(picture: Image.Image) -> Image.Image:
    """Return the picture with a palette, in a third of the bytes: frequent colours stay as they are, and others become
    one that looks the same. Pillow's own methods change the background, or lose colours of a few pixels.
    """
    counted: Any = picture.getcolors(picture.width * picture.height)
    places: dict[tuple[int, ...], int] = {}
    palette: list[tuple[int, ...]] = []
    for _, colour in sorted(counted, reverse=True):
        distances = [sum(abs(a - b) for a, b in zip(colour, other, strict=True)) for other in palette]
        if not palette or (min(distances) > ALIKE and len(palette) < COLOURS):
            places[colour] = len(palette)
            palette.append(colour)
        else:
            places[colour] = distances.index(min(distances))
    reduced = Image.new("P", picture.size)
    reduced.putpalette([part for colour in palette for part in colour])
    data = picture.tobytes()
    reduced.putdata([places[pixel] for pixel in zip(data[::3], data[1::3], data[2::3], strict=True)])
    return reduced


def _write_past(url: str, topology: Topology) -> None:
    """Write jobs of the last quarter of an hour to the tape, so that the plots have something to show."""
    events = day(1500, datetime.now(UTC), seconds=900, refused=40)
    anyio.run(publish, url, topology, events)


def _draw(site: Installation, chromium: Browser) -> None:
    url = f"http://127.0.0.1:{site.port}"
    with httpx.Client(base_url=url, trust_env=False) as client:
        until(lambda: len(client.get("/jobs", params={"limit": 1000}).json()["items"]) >= 1000, "the past is folded")
        retried, failed = _run_jobs(client)
        _prepare_rules(site, client)
    overview = Tab(chromium, url, SIZE).go("")
    overview.get_by_text("month").first.wait_for()
    overview.get_by_role("img", name="Jobs per minute").wait_for()
    _save(overview, "overview")
    page = Tab(chromium, url, SIZE).go("failures")
    page.get_by_label("payment.charge: ValueError").first.wait_for()
    _save(page, "failures")
    for name in ("queues", "schedules", "tape", "dead", "subscriptions"):
        page = Tab(chromium, url, SIZE).go(name)
        _save(page, name)
    page = Tab(chromium, url, SIZE).go("jobs")
    page.get_by_text("month").first.wait_for()
    _save(page, "jobs")
    page = Tab(chromium, url, SIZE).go(f"jobs/{failed}")
    page.locator(".events li").nth(1).wait_for()
    _save(page, "failed-job")
    page = Tab(chromium, url, SIZE, dark=True).go(f"jobs/{retried}")
    page.locator(".events li").nth(5).wait_for()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.get_by_label("What this event changed").wait_for()
    page.get_by_text("As of").wait_for()
    _save(page, "past")
    page = Tab(chromium, url, SIZE).go("submit?type=payment.charge")
    page.get_by_label("customer required").fill("7001")
    page.get_by_label("amount required").fill("ten")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.locator("[aria-invalid=true]").wait_for()
    _save(page, "submit")
    with httpx.Client(base_url=url, trust_env=False) as client:
        _damage(site, client)
        dry_run = client.post("/jobs", json={"type": "jobtape.rebuild", "payload": {"dry_run": True}}).json()["id"]
    page = Tab(chromium, url, SIZE).go(f"tape/{dry_run}")
    page.get_by_role("button", name="failed to succeeded").click()
    page.get_by_label("failed → succeeded").wait_for()
    _save(page, "rebuild")


def _draw_keys(site: Installation, chromium: Browser) -> None:
    """Draw the page of API keys, by an API that has them."""
    port = free_port()
    url, first = f"http://127.0.0.1:{port}", "the-key-of-pictures"
    process = site.start("api", JOBTAPE_PORT=str(port), JOBTAPE_API_KEY=first)
    process.line_with("running on")
    keys: list[dict[str, Any]] = [
        {
            "name": "shop",
            "scopes": ["submit", "read"],
            "types": ["mail.send", "payment.charge"],
            "expires_in": 90 * 86_400,
        },
        {"name": "nightly reports", "scopes": ["submit"], "types": ["report.build"], "rate": 5},
        {"name": "Grafana", "scopes": ["read"]},
        {"name": "on call", "scopes": ["manage", "read"], "expires_in": 7 * 86_400},
        {"name": "old laptop", "scopes": ["manage", "read", "submit"]},
    ]
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {first}"}, trust_env=False) as client:
        made = [client.post("/keys", json=key).raise_for_status().json() for key in keys]
        client.get("/jobs", headers={"Authorization": f"Bearer {made[2]['key']}"}).raise_for_status()
        client.post(f"/keys/{made[0]['id']}/rotate", json={}).raise_for_status()
        client.delete(f"/keys/{made[-1]['id']}").raise_for_status()
        until(lambda: client.get("/keys").json()["items"][2]["used_at"], "the use is noted")
    page = Tab(chromium, url, SIZE).go("keys")
    page.get_by_label("Key").fill(first)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("Grafana").wait_for()
    _save(page, "keys")
    process.close()


def main() -> int:
    """Return the exit code for the shell."""
    FOLDER.mkdir(exist_ok=True)
    broker = start_session_broker()
    topology = some_topology("default", "mail", "reports")
    with tempfile.TemporaryDirectory() as folder:
        site = installation_in(Path(folder), **environment_for(broker.url, topology), JOBTAPE_JOBS="shop")
        shutil.copy(SHOP, site.folder)
        try:
            site.up()
            _write_past(broker.url, topology)
            with browser() as chromium:
                _draw(site, chromium)
                _draw_keys(site, chromium)
        finally:
            site.close()
            anyio.run(remove_namespace, broker.url, topology)
            broker.stop()
    print("\n".join(f"{path.relative_to(ROOT)} {path.stat().st_size // 1000} kB" for path in sorted(FOLDER.iterdir())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
