"""The page of schedules, and pauses and limits of job types."""

from playwright.sync_api import Browser, expect

from tests.cli.installation import Installation
from tests.dashboard.browser import PHONE, Tab, serious_faults


def test_schedule_is_created_triggered_paused_and_deleted(site: Installation, tab: Tab) -> None:
    page = tab.go("schedules")
    expect(page.get_by_text("There is no schedule yet")).to_be_visible()
    page.get_by_role("button", name="New schedule").click()
    page.get_by_label("Name required").fill("nightly")
    page.get_by_label("Job type required").select_option("add")
    page.get_by_label("Payload").fill('{"x": 1}')
    page.get_by_label("Cron expression").fill("30 25 * * *")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_role("button", name="Put in force").click()
    expect(page.get_by_role("dialog").get_by_text("Bad hour").first).to_be_visible()
    page.get_by_label("Cron expression").fill("30 2 * * *")
    page.get_by_role("button", name="Put in force").click()
    expect(page.get_by_role("dialog").get_by_text("y: Field required").first).to_be_visible()
    page.get_by_label("Payload").fill('{"x": 1, "y": 2}')
    page.get_by_role("button", name="Put in force").click()
    row = page.get_by_role("row", name="nightly")
    expect(row).to_contain_text("30 2 * * * Europe/Berlin")
    row.get_by_role("button", name="Next ticks of nightly").click()
    expect(page.get_by_role("listitem").filter(has_text="02:30:00")).to_have_count(20)
    assert not serious_faults(page)
    page.get_by_role("button", name="Close").click()
    row.get_by_role("button", name="Trigger").click()
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    expect(row).to_contain_text("succeeded")
    row.get_by_role("button", name="Pause").click()
    expect(row.get_by_role("link", name="paused")).to_be_visible()
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_role("link", name="paused")).to_have_count(0)
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There is no schedule yet")).to_be_visible()


def test_schedules_fit_a_phone(site: Installation, chromium: Browser) -> None:
    name = "a-schedule-with-a-rather-long-name.of-a-tenant"
    put = ("schedules", "put", name, "add", '{"x": 1, "y": 2}', "--cron", "*/5 9-17 * * MON-FRI", "--tz")
    assert site.run(*put, "America/Argentina/ComodRivadavia").returncode == 0
    opened = Tab(chromium, f"http://127.0.0.1:{site.port}", PHONE)
    page = opened.go("schedules")
    expect(page.get_by_role("link", name=name)).to_be_visible()
    page.get_by_role("button", name="New schedule").click()
    expect(page.get_by_label("Job type required").get_by_role("option", name="add")).to_be_attached()
    assert not serious_faults(page)
    page.get_by_role("button", name="Close").click()
    assert not serious_faults(page)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    site.run("schedules", "delete", name)
    opened.context.close()
    assert opened.faults == []


def test_job_type_is_paused_and_its_limit_changed(tab: Tab) -> None:
    page = tab.go("queues")
    row = page.locator(".job-types tbody tr", has_text="sweep")
    row.get_by_role("button", name="Pause").click()
    expect(row.get_by_role("link", name="paused")).to_be_visible()
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_role("link", name="paused")).to_have_count(0)
    expect(row).to_contain_text("sweep: 3 at once")
    row.get_by_role("button", name="Change the limit sweep").click()
    page.get_by_label("At most").fill("0")
    page.get_by_role("dialog").get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text("greater than or equal to 1").first).to_be_visible()
    page.get_by_label("At most").fill("7")
    page.get_by_role("dialog").get_by_role("button", name="Change", exact=True).click()
    expect(row).to_contain_text("now sweep: 7 at once")
    row.get_by_role("button", name="As in the code").click()
    expect(row).not_to_contain_text("now")
