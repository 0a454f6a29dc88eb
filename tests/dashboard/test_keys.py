"""The page of API keys."""

import httpx
from playwright.sync_api import Browser, expect

from tests.cli.installation import Installation
from tests.dashboard.browser import PHONE, Tab, serious_faults
from tests.dashboard.test_frame import KEY, api_on
from tools.processes.ports import free_port


def test_key_is_created_rotated_and_revoked(site: Installation, chromium: Browser) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = api_on(site, port, JOBTAPE_API_KEY=KEY)
    opened = Tab(chromium, url, PHONE, dark=True)
    page = opened.go("keys")
    page.get_by_label("Key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("There is no key yet")).to_be_visible()
    page.get_by_role("button", name="New key").click()
    form = page.get_by_role("dialog")
    page.get_by_label("Name required").fill("shop")
    page.get_by_label("Requests in a second").fill("many")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_text("Choose at least one.")).to_be_visible()
    expect(form.locator("[aria-invalid=true]")).to_have_count(1)
    assert not serious_faults(page)
    form.get_by_label("read").check()
    page.get_by_label("Requests in a second").fill("2.5")
    page.get_by_label("Job types").fill("add, mail.send")
    page.get_by_label("Expires").select_option("in 90 days")
    form.get_by_role("button", name="Create").click()
    key = page.locator("code.secret").inner_text()
    expect(page.get_by_text("It is not shown again")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    row = page.get_by_role("row", name="shop")
    for text in ("read", "add, mail.send", "2.5", "active", "expires", "never"):
        expect(row).to_contain_text(text)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px too wide"
    assert not serious_faults(page)

    def status(text: str) -> int:
        return httpx.get(f"{url}/jobs", headers={"Authorization": f"Bearer {text}"}, trust_env=False).status_code

    assert status(key) == 200
    row.get_by_role("button", name="Rotate").click()
    page.get_by_label("The old key ends").select_option("at once")
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    expect(page.locator("code.secret")).to_be_visible()
    rotated = page.locator("code.secret").inner_text()
    assert (status(key), status(rotated)) == (401, 200)
    page.get_by_role("button", name="Close").click()

    # A key without the scope gets the API's answer.
    limited = Tab(chromium, url)
    other = limited.go("keys")
    other.get_by_label("Key").fill(rotated)
    other.get_by_role("button", name="Use this key").click()
    expect(other.get_by_role("alert")).to_contain_text("manage")
    limited.context.close()

    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    expect(row.get_by_role("button")).to_have_count(0)
    assert status(rotated) == 401
    opened.context.close()
    process.close()
    assert opened.faults == limited.faults == []
