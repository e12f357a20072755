"""The site, built strictly: every page and link is there, it can be searched, and it loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Never --quiet, which hides warnings from --strict as well.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """What a page loads by itself; a link that a reader may follow is not among it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADING and (address := given.get(LOADING[tag])):
            self.addresses.append(address)


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = {(page, one) for page in site.rglob("*.html") for one in Loaded(page.read_text()).addresses}
    assert not [(str(page), one) for page, one in loaded if ELSEWHERE.match(one)]
    for page, one in loaded:
        if page.name != "404.html" and not one.startswith("data:"):
            assert (page.parent / one.split("?")[0].split("#")[0]).exists(), (page, one)
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text()), style


def test_what_is_not_a_page_of_docs_is_there_too_and_can_be_found(site: Path) -> None:
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    texts = {each["location"]: each["title"] + each["text"] for each in found}
    for location, words in {
        "": "Click probabilities for ad and feed ranking",
        "contributing/": "Where things are and why",
        "changelog/#unreleased": "First working form",
        "http/#post-v1score": "Click probabilities of candidates for a user",
        "http/#scorerequest": "history_actions",
        "python/#kernels.evolve": "final interest of each candidate",
        "python/#model.scorer.load_scorer": "A scorer of the artifact in a folder",
    }.items():
        assert words in texts[location], location


def test_no_mark_of_the_tests_and_no_file_that_makes_pages_is_in_it(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    assert "runnable" not in (site / "quickstart" / "index.html").read_text()
    assert "docker/haproxy/haproxy.cfg</code>" in (site / "operations" / "index.html").read_text()
