"""A real browser in front of a real server: Debian's chromium, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

PATIENCE_MS = 20_000  # of a machine with much else to do
expect.set_options(timeout=PATIENCE_MS)
USER = "712"
ITEMS = "5239 6831 2555 1527 7352 4119 4790 20 309 569 6910 1326"
ASKED = f"#user={USER}&items={ITEMS.replace(' ', ',')}&context.tab=1&context.hour=9"
BODY = {"user_id": USER, "item_ids": [int(item) for item in ITEMS.split()], "context": {"tab": 1, "hour": 9}}
ROWS = "#rows tbody tr"
# What an auditor of accessibility would complain of. Targets: WCAG 2.2, 2.5.8; for cells of the heat map there are the
# buttons of the ranking.
AUDIT = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
  const told = [];
  const tell = (what, elements) => told.push(...elements.map((one) => `${what}: ${one.outerHTML.slice(0, 120)}`));
  const levels = all("h1, h2, h3, h4").map((one) => Number(one.tagName[1]));
  if (!document.title || !document.documentElement.lang) told.push("no title or language");
  for (const landmark of ["h1", "main", "body > header", "nav", "body > footer"])
    if (all(landmark).length !== 1) told.push(`${landmark}: not one`);
  levels.forEach((level, at) => level - (levels[at - 1] ?? 0) > 1 && told.push(`h${level} after h${levels[at - 1]}`));
  const used = all("button, input, select, textarea, summary, a[href], [role], section, form, nav");
  const name = (one) => one.ariaLabel || one.textContent.trim() || one.labels?.length || one.ariaLabelledByElements;
  tell("without a name", used.filter((one) => !name(one)));
  tell("without a label", all("input, select, textarea").filter((one) => !one.labels.length && !one.ariaLabel));
  tell("without alt", all("img").filter((one) => !one.hasAttribute("alt")));
  tell("first in order", all("[tabindex]").filter((one) => one.tabIndex > 0));
  tell("an id twice", all("[id]").filter((one) => document.querySelectorAll(`#${one.id}`).length > 1));
  const known = (ids) => (ids ?? "").split(" ").every((id) => !id || document.getElementById(id));
  tell("refers to nothing", all("[aria-labelledby], label[for]")
    .filter((one) => !known(one.getAttribute("aria-labelledby")) || !known(one.htmlFor)));
  tell("too small", all("button, input, select, summary").filter((one) => {
    const { width, height } = one.getBoundingClientRect();
    return Math.min(width, height) < 24;
  }));
  return told;
}"""
# Text that runs out of its place, over what is beside it.
CROWDED = """() => [...document.querySelectorAll("h1, h2, h3, p, li, th, td, dt, dd, label, button, summary")]
  .filter((one) => one.checkVisibility() && getComputedStyle(one).fontSize !== "0px" && one.clientWidth
    && one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.textContent}: ${one.scrollWidth} in ${one.clientWidth}`)"""


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

    def order(self) -> list[str]:
        """The ranked items."""
        return self.texts(f"{ROWS} th")

    def audit(self) -> list[str]:
        found: list[str] = self.page.evaluate(AUDIT)
        return found

    def crowded(self) -> list[str]:
        found: list[str] = self.page.evaluate(CROWDED)
        return found


Look = Callable[..., Console]
