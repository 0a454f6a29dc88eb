"""The tape in the dashboard: a rebuild with its differences and the switch, a shadow run, and a replay."""

import sqlite3
from contextlib import closing

import httpx
from playwright.sync_api import expect

from tests.cli.installation import Installation
from tests.cli.programs import until
from tests.dashboard.browser import PHONE, WIDE, Tab, serious_faults
from tests.dashboard.test_jobs import ended, job, submit


def damage(site: Installation, job_id: str) -> None:
    """Change the job in the view without an event, as a wrong rule of an earlier version would."""
    path = site.env["DATABASE_URL"].partition("///")[2]
    with closing(sqlite3.connect(site.folder / path, timeout=30)) as database, database:
        database.execute("UPDATE jobs SET state = 'failed', result = NULL, reason = 'error' WHERE id = ?", [job_id])


def test_rebuild_shows_differences_and_switches_when_confirmed(site: Installation, tab: Tab) -> None:
    job_id = submit(site, "add", {"x": 40, "y": 2})
    ended(site, job_id)
    damage(site, job_id)
    page = tab.go("tape")
    page.get_by_role("button", name="Start a dry run").click()
    cell = page.get_by_role("button", name="failed to succeeded: 1")
    expect(cell).to_have_attribute("aria-pressed", "true")
    example = page.get_by_label("failed → succeeded: 1 job")
    expect(example.get_by_role("row", name="result")).to_contain_text("nothing42")
    expect(page.get_by_text("the one that serves is wrong in 1 job")).to_be_visible()
    assert not serious_faults(page)
    assert job(site, job_id)["state"] == "failed"
    dry_run = page.url.rpartition("#/")[2]
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    expect(page.get_by_role("listitem").filter(has=cell)).to_have_text("failed → succeeded: 1")
    page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    switch = page.get_by_role("button", name="Rebuild and switch")
    expect(switch).to_be_disabled()
    page.get_by_label("to confirm").fill("switch")
    switch.click()
    expect(page.get_by_role("heading", name="succeeded Rebuild", exact=True)).to_be_visible()
    expect(page.get_by_text("1 differs, switched")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Since the switch").first).to_be_visible()
    expect(switch).to_have_count(0)
    assert job(site, job_id)["result"] == 42
    tab.go(dry_run)
    expect(page.get_by_text("Outdated: the view was replaced at")).to_be_visible()
    expect(page.get_by_role("columnheader", name="In the view that served then").first).to_be_visible()
    expect(switch).to_have_count(0)
    page.get_by_role("link", name="All on the tape page").click()
    expect(page.get_by_role("link", name="Rebuild, dry run").first).to_be_visible()


def test_dry_run_without_difference_offers_no_switch(site: Installation, tab: Tab) -> None:
    ended(site, submit(site, "jobtape.rebuild", {}))
    page = tab.go(f"tape/{submit(site, 'jobtape.rebuild', {'dry_run': True})}")
    expect(page.get_by_text("There is nothing to switch")).to_be_visible()
    expect(page.get_by_role("button", name="Rebuild and switch")).to_have_count(0)


def test_dry_run_before_many_jobs_is_offered_again(site: Installation, tab: Tab) -> None:
    job_id = submit(site, "add", {"x": 1, "y": 2})
    ended(site, job_id)
    damage(site, job_id)
    page = tab.go(f"tape/{submit(site, 'jobtape.rebuild', {'dry_run': True})}")
    expect(page.get_by_role("button", name="Rebuild and switch")).to_be_visible()
    url = f"http://127.0.0.1:{site.port}"
    count = sum(httpx.get(f"{url}/stats", trust_env=False).json()["jobs"].values())
    items = [{"type": "add", "payload": {"x": 1, "y": 1}}] * (count + 20)
    httpx.post(f"{url}/jobs/batch", json=items, trust_env=False).raise_for_status()
    again = page.get_by_role("button", name="Do the dry run again")
    expect(again).to_be_visible()
    again.click()
    expect(page.get_by_role("heading", name="succeeded Rebuild, dry run")).to_be_visible()
    ended(site, submit(site, "jobtape.rebuild", {}))
    assert job(site, job_id)["state"] == "succeeded"


def test_shadow_run_groups_differences_and_redrives_them(site: Installation, tab: Tab) -> None:
    ids = [submit(site, "pid", {}, labels={"test": "shadow"}) for _ in range(2)]
    for job_id in ids:
        ended(site, job_id)
    page = tab.go("tape?do=shadow&type=pid&label=test%3Ashadow")
    expect(page.get_by_label("Labels")).to_have_value("test:shadow")
    page.get_by_role("button", name="Start the shadow run").click()
    kind = page.get_by_label("pid: result, number → number")
    expect(kind).to_contain_text("2 jobs")
    expect(kind.locator("tbody tr")).to_have_count(2)
    assert not serious_faults(page)
    kind.get_by_role("button", name="Run these again").click()
    page.get_by_role("button", name="Run again: 2 jobs").click()
    expect(page.get_by_role("heading", name="succeeded Run again (redrive)")).to_be_visible()
    until(lambda: {job(site, job_id)["run"] for job_id in ids} == {2}, "both jobs run again")


def test_refused_replay_says_why_at_the_field(tab: Tab) -> None:
    page = tab.go("tape?do=replay")
    page.get_by_role("button", name="Start the replay").click()
    expect(page.get_by_label("Queue required")).to_have_attribute("aria-invalid", "true")
