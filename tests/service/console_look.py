"""How fast the console is on this machine, and its pictures in the documentation.

`.venv/bin/python tests/service/console_look.py [--pictures docs]` starts a server with the bundled model and users, and
a browser in front of it. First paint is of a page that it has not met; a ranking of 200 candidates is timed from a
click, until its last row is written and until it is drawn. Medians; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Literal

sys.path.append(str(Path(__file__).parents[2]))

from console_parts import Console, browser, chromium
from PIL import Image
from playwright.sync_api import Browser
from process_parts import running

ASKED = "#user=712&items=5239,6831,2555,1527,7352,4119,4790,20,309,569,6910,1326,4916,2328&context.tab=1&context.hour=9"
CANDIDATES = 200
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
# From the click to the mark that the page sets once the rows are written, then until they are drawn.
RANKED = """() => new Promise((done) => {
  performance.clearMarks("ranked");
  new PerformanceObserver((_, observer) => {
    observer.disconnect();
    const written = performance.getEntriesByName("ranked")[0].startTime - begun;
    requestAnimationFrame(() => setTimeout(() => done([written, performance.now() - begun])));
  }).observe({ type: "mark" });
  const begun = performance.now();
  document.querySelector("#rows tbody tr:last-child .try").click();
})"""


def paint_ms(opened: Browser, url: str) -> float:
    """First contentful paint in a window of its own, with nothing kept from before."""
    context = opened.new_context()
    console = Console(context.new_page(), url)
    console.open(ASKED)
    console.settled()
    found = float(console.page.evaluate(PAINT))
    context.close()
    return found


def ranking_ms(opened: Browser, url: str, times: int) -> list[list[float]]:
    """Of each change to a history: until the ranking is written, and until it is drawn."""
    console = Console(opened.new_page(), url)
    console.open(ASKED)
    console.settled()
    console.page.fill("#count", str(CANDIDATES))
    console.page.click("#draw")
    console.page.locator("#rows tbody tr").nth(CANDIDATES - 1).wait_for()
    found = []
    for _ in range(times):
        console.settled()
        found.append(console.page.evaluate(RANKED))
    return found


def small(picture: Image.Image) -> Image.Image:
    """In few colours, which is all that the page has."""
    return picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def draw(opened: Browser, url: str, folder: Path) -> None:
    """The pictures: the page as it opens, and a what-if in the dark theme."""
    pictures: tuple[tuple[str, Literal["light", "dark"]], ...] = (("console", "light"), ("console_what_if", "dark"))
    for name, scheme in pictures:
        context = opened.new_context(
            viewport={"width": 1280, "height": 940}, color_scheme=scheme, reduced_motion="reduce"
        )
        console = Console(context.new_page(), url)
        console.open(ASKED)
        console.settled()
        if scheme == "dark":
            console.page.click("#without")
            console.settled()
            for place in (3, 6, 9):
                console.page.click(f"#rows tbody tr:nth-child({place}) .try")
                console.settled()
        console.page.click("text=Ask")
        console.page.wait_for_timeout(2050)  # until the live figures have seen that
        console.page.mouse.move(0, 0)
        small(Image.open(BytesIO(console.page.screenshot(full_page=True)))).save(folder / f"{name}.png", optimize=True)
        context.close()


def main() -> int:
    """Status 1 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder for them; without it none are drawn")
    parser.add_argument("--times", type=int, default=15)
    asked = parser.parse_args()
    binary = chromium()
    if binary is None:
        print("no chromium on PATH", file=sys.stderr)
        return 1
    with running(seed="kuairand:data/kuairand_pure", threads="1") as server, browser(binary) as opened:
        if asked.pictures:
            draw(opened, server.url, asked.pictures)
        paints = [paint_ms(opened, server.url) for _ in range(asked.times)]
        written, drawn = zip(*ranking_ms(opened, server.url, asked.times), strict=True)
    found = {"first_paint_ms": median(paints), "ranking_written_ms": median(written), "ranking_drawn_ms": median(drawn)}
    print(json.dumps({name: round(value, 1) for name, value in found.items()} | {"candidates": CANDIDATES}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
