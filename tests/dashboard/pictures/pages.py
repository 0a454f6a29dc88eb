"""All pages of the dashboard, and how a picture of one is taken."""

import io
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from tests.dashboard.browser import PHONE, WIDE, Tab, serious_faults

PAGES: Final[Mapping[str, str]] = {
    "overview": "",
    "overview-day": "?range=day",
    "jobs": "jobs",
    "jobs-failed": "jobs?state=failed&type=payment.charge",
    "failures": "failures",
    "queues": "queues",
    "schedules": "schedules",
    "tape": "tape",
    "dead": "dead",
    "subscriptions": "subscriptions",
    "webhooks": "webhooks",
    "keys": "keys",
    "submit": "submit",
}
"""Addresses behind ``#/``, by name."""
JOB_PAGES: Final[Mapping[str, str]] = {
    "job-failed": "jobs/{failed}",
    "job-retried": "jobs/{retried}",
    "job-large": "jobs/{large}",
    "job-arabic": "jobs/{arabic}",
    "jobs-arabic": "jobs?label=%D8%A7%D9%84%D8%B9%D9%85%D9%8A%D9%84%3A%D9%85%D8%AD%D9%85%D8%AF",
    "jobs-key": "jobs?ordering_key=article%3Dbolts",
    "job-past": "jobs/{retried}?as_of={cursor}",
    "jobs-past": "jobs?as_of={cursor}",
    "overview-past": "?as_of={cursor}&range=hour",
    "jobs-failure": "jobs?failure={failure}",
    "job-flow": "jobs/{flow}",
    "tape-rebuild": "tape/{rebuild}",
    "tape-shadow": "tape/{shadow}",
    "submit-copy": "submit?from={failed}",
}
"""The same for pages that show a job or a time; names of ``Known`` in braces."""
LOOKS: Final[Mapping[str, tuple[tuple[int, int], bool]]] = {
    "wide-light": (WIDE, False),
    "wide-dark": (WIDE, True),
    "phone-light": (PHONE, False),
    "phone-dark": (PHONE, True),
}
"""Sizes, and whether it is dark."""
_AUDITED: Final = ("wide-light", "phone-dark")
"""Looks in which accessibility is checked: both sizes and both colour schemes."""
SETTLED: Final = 15_000.0
"""Milliseconds until a page must show something other than that it loads."""
HIGHEST: Final = 2200
"""Pixels of a page that a picture shows."""
_LOADING: Final = re.compile("Loading …|Counting …")
_TASKS: Final = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({ type: "longtask", buffered: true });
"""


@dataclass(frozen=True)
class Taken:
    """A picture, and what was noticed: seconds until the page was there, milliseconds of its longest task, faults."""

    picture: Image.Image
    seconds: float
    longest_task: float
    faults: list[str]


def addresses(known: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses of all pages whose jobs are ``known``, by name."""
    found = dict(PAGES)
    for name, address in JOB_PAGES.items():
        try:
            found[name] = address.format_map(known)
        except KeyError:
            continue
    return found


def settle(page: Page) -> list[str]:
    """Wait until the page has a heading, loads nothing more and knows the health. Returns what did not come."""
    try:
        page.locator("h1").first.wait_for(timeout=SETTLED)
        page.locator("main").get_by_text(_LOADING).first.wait_for(state="hidden", timeout=SETTLED)
        page.locator(".health", has_text="looking …").wait_for(state="hidden", timeout=SETTLED)
    except PlaywrightTimeoutError:
        return ["it still loads"]
    return []


def take(tab: Tab, address: str, *, audit: bool) -> Taken:
    """Show a page in the tab and take its picture. ``audit``: also look for faults of accessibility."""
    began = time.monotonic()
    page = tab.go(address)
    faults = settle(page)
    seconds = time.monotonic() - began
    # The plots and the strip are drawn in the next frames.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth, document.documentElement.scrollHeight]")
    if sizes[0] > sizes[1]:
        faults.append(f"{sizes[0] - sizes[1]} px too wide")
    if audit:
        faults += [f"{rule}: {where}" for rule, where in serious_faults(page)]
    # Not a picture of the full page, in which the strip would stand in the middle.
    size = page.viewport_size or {"width": 0, "height": 0}
    page.set_viewport_size({"width": size["width"], "height": min(max(sizes[2], size["height"]), HIGHEST)})
    shot = page.screenshot()
    page.set_viewport_size(size)
    faults += tab.faults
    tab.faults.clear()
    longest = page.evaluate("window.longest")
    page.goto("about:blank")  # a page that is shown goes on asking the API
    return Taken(Image.open(io.BytesIO(shot)).convert("RGB"), seconds, longest, faults)


def take_all(
    chromium: Browser,
    url: str,
    pages: Mapping[str, str],
    looks: Iterable[str],
    note: Callable[[str, dict[str, Taken]], None],
) -> None:
    """Take a picture of each page in each of ``looks``, and call ``note`` with the page and its pictures by look."""
    tabs = {look: Tab(chromium, url, LOOKS[look][0], dark=LOOKS[look][1]) for look in looks}
    for tab in tabs.values():
        tab.context.add_init_script(_TASKS)
    for name, address in pages.items():
        note(name, {look: take(tab, address, audit=look in _AUDITED) for look, tab in tabs.items()})
    for tab in tabs.values():
        tab.context.close()


def sheet(pictures: Iterable[Image.Image]) -> Image.Image:
    """Return one picture with all of them side by side."""
    shown = list(pictures)
    made = Image.new("RGB", (sum(each.width + 12 for each in shown), max(each.height for each in shown)), "#888888")
    left = 0
    for each in shown:
        made.paste(each, (left, 0))
        left += each.width + 12
    return made
