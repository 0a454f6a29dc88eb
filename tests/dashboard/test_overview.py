"""The overview and the failures in the dashboard: numbers equal the events, and a range or a group can be opened."""

import re

import httpx
from playwright.sync_api import expect

from tests.cli.installation import Installation
from tests.dashboard.browser import Tab
from tests.dashboard.test_jobs import ended, submit


def test_overview_counts_equal_events_of_jobs(site: Installation, tab: Tab) -> None:
    ended(site, submit(site, "boom", {"text": "counted"}))
    page = tab.go("?range=hour")
    expect(page.get_by_text("Every part is ready")).to_be_visible()
    row = page.locator("tbody tr", has=page.get_by_role("link", name="boom", exact=True))
    with httpx.Client(base_url=f"http://127.0.0.1:{site.port}", trust_env=False) as client:
        jobs = client.get("/jobs?type=boom&limit=1000").json()["items"]
        names = [event["type"] for job in jobs for event in client.get(f"/jobs/{job['id']}/events").json()["items"]]
    count = names.count("jobtape.job.failed")
    expect(row.locator("[data-name=failed]")).to_have_text(str(count))
    page.get_by_role("button", name="15 minutes").click()
    expect(page.get_by_role("img", name="Jobs per minute")).to_be_visible()
    expect(page.get_by_text("this minute is not over").first).to_be_visible()
    expect(page.get_by_label("Newest failures in the last 15 minutes")).to_contain_text("ValueError: counted")
    submit(site, "boom", {"text": "one more"})
    expect(row.locator("[data-name=failed]")).to_have_text(str(count + 1))
    expect(page.get_by_label("Newest failures").get_by_text("ValueError: one more")).to_be_visible()


def test_overview_names_types_that_fail_first(site: Installation, tab: Tab) -> None:
    for job_id in [submit(site, "boom", {"text": "counted"}) for _ in range(5)]:
        ended(site, job_id)
    page = tab.go("?range=hour")
    expect(page.locator(".verdict").first.locator("li").first).to_have_text(
        re.compile(r"^boom: \d+ jobs failed and none succeeded in the last hour\.$")
    )


def test_overview_of_the_past_says_until_when_it_counts(site: Installation, tab: Tab) -> None:
    cancelled = submit(site, "add", {"x": 1, "y": 1}, delay=3600)
    with httpx.Client(base_url=f"http://127.0.0.1:{site.port}", trust_env=False) as client:
        client.post(f"/jobs/{cancelled}/cancel").raise_for_status()
        cursor = ended(site, cancelled)["cursor"]
    page = tab.go("?range=hour")
    expect(page.locator("[data-name=cancelled]")).not_to_have_text("0")
    tab.go(f"?range=hour&as_of={cursor}")
    expect(page.locator(".tile", has_text="Cancelled")).to_contain_text(re.compile(r"from .*\d\d:00 to .*\d\d:00"))
    expect(page.get_by_role("heading", name=re.compile("^Running then: "))).to_be_visible()


def test_dragging_over_a_plot_chooses_a_range(site: Installation, tab: Tab) -> None:
    ended(site, submit(site, "add", {"x": 1, "y": 1}))
    page = tab.go("?range=hour")
    plot = page.locator(".plot .u-over").first
    plot.hover()
    expect(page.get_by_label("Jobs per minute", exact=True).locator("header .quiet")).not_to_be_empty()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=4)
    page.mouse.up()
    expect(page.get_by_role("button", name="Hour")).to_have_attribute("aria-pressed", "false")
    assert "since=" in page.url
    page.get_by_role("button", name="Hour").click()
    assert "since=" not in page.url


def test_failures_are_grouped_and_redriven(site: Installation, tab: Tab) -> None:
    ids = [submit(site, "boom", {"text": f"number {n}"}) for n in range(2)]
    for job_id in ids:
        ended(site, job_id)
    page = tab.go("failures")
    # Another test has a job whose traceback is too long to be kept, so that its place in the code is not known.
    group = page.get_by_label("boom: ValueError").filter(has_text="jobs_here.py")
    jobs = httpx.get(f"http://127.0.0.1:{site.port}/jobs?type=boom&state=failed&limit=1000", trust_env=False).json()
    same = [each for each in jobs["items"] if each["failure"] == jobs["items"][0]["failure"]]
    expect(group).to_contain_text(f"{len(same)} failed jobs")
    expect(group.get_by_role("heading")).to_contain_text("number 1")
    expect(group).to_contain_text(re.compile(r"/jobs_here\.py:\d+ in boom"))
    group.get_by_role("button", name="Shadow run").click()
    expect(page.get_by_text(f"{len(same)} jobs match now")).to_be_visible()
    expect(page.get_by_role("dialog")).to_contain_text("failureValueError in boom")
    page.get_by_role("button", name="Close").click()
    group.get_by_role("link", name="failed jobs").click()
    expect(page.locator("tbody tr").first).to_contain_text("ValueError: number 1")
    expect(page.get_by_label("Filters")).to_contain_text("failure ValueError in boom")
    page.get_by_role("link", name="boom").first.click()
    page.get_by_role("link", name="Jobs with this failure").click()
    expect(page.locator("tbody tr").first).to_contain_text("ValueError: number 1")
    page.get_by_role("button", name="Run again …").click()
    page.get_by_role("button", name=f"Run again: {len(same)} jobs").click()
    expect(page.get_by_role("heading", name="succeeded Run again (redrive)")).to_be_visible()
    expect(page.get_by_text(f"0 succeeded, {len(same)} failed again (see them).")).to_be_visible()
