"""Chromium for tests: found on the machine, or installed as a Debian package, and never downloaded by Playwright."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.packages import ensure_installed

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
WIDE: Final = (1440, 900)
PHONE: Final = (390, 844)


def _find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser without a window. While it runs, this thread cannot run an event loop of its own."""
    path = ensure_installed(_find, "chromium")
    # Playwright's own Node needs a library that a bare Debian lacks.
    os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(Path(sys.executable).with_name("node")))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


def serious_faults(page: Page) -> list[tuple[str, str]]:
    """Return the serious faults of accessibility that axe finds in the page: each rule, and where it is broken."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:300]) for one in found if one["impact"] in ("serious", "critical")]


class Tab:
    """A tab of the dashboard at ``url``. ``faults``: errors in the page, on its console, and reports of its policy."""

    def __init__(self, opened: Browser, url: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
        self._url = url
        self.context: BrowserContext = opened.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
        )
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._on_console)

    def _on_console(self, message: ConsoleMessage) -> None:
        # A status of 400 and above is on the console too, and is what many tests are about.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def go(self, address: str) -> Page:
        """Show the page at ``#/address``."""
        self.page.goto(f"{self._url}/#/{address}")
        return self.page
