"""The pictures of the pages are what their scripts draw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
DRAWN = sorted(PICTURES.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def test_drawing_again_changes_no_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PICTURES, tmp_path], check=True)
    assert [path.name for path in DRAWN] == sorted(path.name for path in tmp_path.iterdir())
    for path in DRAWN:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), f"{path.name}: run python docs/pictures"


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_nothing_lies_outside_of_the_sheet(path: Path) -> None:
    """Words are taken to be 0.6 of their size a letter, which is wider than the fonts that browsers take."""
    root = ElementTree.parse(path).getroot()
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for one in root.iter(f"{SVG}text"):
        at, size, letters = (float(one.attrib["x"]), float(one.attrib["font-size"]), len(one.text or ""))
        before = {"start": 0.0, "middle": 0.5, "end": 1.0}[one.attrib["text-anchor"]]
        left = at - before * 0.6 * size * letters
        assert left > 0, one.text
        assert left + 0.6 * size * letters < width, one.text
        assert 0 < float(one.attrib["y"]) < height, one.text
