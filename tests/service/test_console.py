"""The console as the server gives it out: who may have it, how it is kept, what it weighs, and its colours."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from service_parts import SETTINGS, Service

from service import console

CSS = files("service.console").joinpath("console.css").read_text()
SCHEMES = {
    "light": CSS.split("@media", 1)[0],
    "dark": CSS.split("@media", 1)[0] + CSS.split("@media", 1)[1].split("\n}")[0],
}
ACTIONS = [f"action-{number}" for number in range(6)]
# WCAG 2.2: 4.5 for text, 3 for what is drawn and for the edges of what can be used.
CONTRAST = [
    *((ink, ground, 4.5) for ink in ("ink", "dim", "accent") for ground in ("ground", "panel")),
    *((ink, "panel", 4.5) for ink in ("up", "down")),
    ("down", "ground", 4.5),
    ("on-accent", "accent", 4.5),
    ("warn-ink", "warn-ground", 4.5),
    *((drawn, ground, 3) for drawn in ("edge", "bar-before", "heat", *ACTIONS) for ground in ("ground", "panel")),
    ("bar-before", "bar", 1.5),  # the mark stands out by its length too
]


def luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_have_the_contrast_that_reading_takes(scheme: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", SCHEMES[scheme]))
    for ink, ground, least in CONTRAST:
        light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
        contrast = (light + 0.05) / (dark + 0.05)
        assert contrast >= least, f"{ink} on {ground}: {contrast:.2f}"


def test_the_page_and_its_files_are_kept_by_browsers_and_weigh_little(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        page = await service.client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert not re.search(r"<script(?! type=\"module\" src=)|<style|\son\w+=|\sstyle=", page.text)
        assert "://" not in page.text
        addresses = set(re.findall(r'(?:src|href)="(/console/[^"]+)"', page.text))
        modules = {name for name in console.assets() if name.endswith(".js")}
        assert modules < addresses == set(console.assets()) - {"/"}

        plain, packed = len(page.text.encode()), len(gzip.compress(page.text.encode()))
        for address in sorted(addresses):
            answer = await service.client.get(address, headers={"accept-encoding": "gzip"})
            assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["vary"] == "accept-encoding"
            assert (
                await service.client.get(address, headers={"accept-encoding": "identity"})
            ).content == answer.content
            plain, packed = plain + len(answer.content), packed + int(answer.headers["content-length"])
            known = {"if-none-match": answer.headers["etag"]}
            assert (await service.client.get(address, headers=known)).status_code == 304
            head = await service.client.head(address, headers={"accept-encoding": "identity"})
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) == len(answer.content)
        assert plain < 150_000
        assert packed < 50_000
        assert (await service.client.post("/")).status_code == 405
        assert 'route="/"' in (await service.client.get("/metrics")).text

    with_service(scenario)


def test_a_setting_takes_it_away(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
        for path in console.assets():
            if path != "/":
                assert (await service.client.get(path)).status_code == 404

    with_service(scenario, replace(SETTINGS, console=0))
