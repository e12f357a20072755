"""A real browser in front of a real server: Debian's chromium, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

PATIENCE_MS = 20_000  # of a machine with much else to do
expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser(binary: str) -> Iterator[Browser]:
    """While it is open no event loop can be started in this thread."""
    # Its sandbox does not work for root, and containers have little shared memory.
    options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=binary, args=options)
        try:
            yield opened
        finally:
            opened.close()


class Console:
    """The page as a person has it before them, and what the browser complains of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, fragment: str = "") -> None:
        # A fragment alone loads nothing anew.
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/{fragment}")

    def settled(self) -> None:
        """Everything that was asked for is shown."""
        self.page.locator("main[aria-busy=false]").wait_for()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()
