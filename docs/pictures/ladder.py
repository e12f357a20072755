"""The ladder: capacity and p50 of each rung, as the table of docs/performance.md has them."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from svg import BOTH, EDGE, FAINT, INK, ITEM, Picture

PAGE = Path(__file__).resolve().parents[1] / "performance.md"
PAPER = re.compile(r"^\| the paper \| ([\d.]+) a worker, at the end \| ([\d.]+) before, ([\d.]+) after", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| ([\d., ]+) \| ([\d.]+) \|", re.MULTILINE)
WORDS = {
    "naive": "plain server, eager PyTorch, hidden 108",
    "kernels": "the same, recurrences by fused kernels",
    "shared": "Augur: shared user work and batching, too",
    "distilled": "plain server, eager PyTorch, hidden 32",
    "all": "Augur, hidden 32",
}


class Rung(NamedTuple):
    """A row of the table."""

    name: str
    rates: list[float]  # requests a second, of each round
    p50: float  # ms


def draw() -> str:
    """The picture, as SVG.

    Raises:
        ValueError: the page has other rungs than this draws.
    """
    page = PAGE.read_text()
    rungs = read(page)
    if [rung.name for rung in rungs] != list(WORDS):
        raise ValueError(f"{PAGE}: rungs {[rung.name for rung in rungs]}, where {list(WORDS)} are drawn")
    paper = PAPER.search(page)
    if paper is None:
        raise ValueError(f"{PAGE}: no row of the paper's figures")
    rate, first, last = (float(one) for one in paper.groups())
    picture = Picture(1010, 430, "Capacity and p50 of each rung of the ladder")
    for number, rung in enumerate(rungs):
        height = 96 + 56 * number
        picture.words((308, height - 9), rung.name, size=14, bold=True, anchor="end")
        picture.words((308, height + 9), WORDS[rung.name], size=12, colour=FAINT, anchor="end")
    rates = [(statistics.median(rung.rates), min(rung.rates), max(rung.rates)) for rung in rungs]
    _bars(picture, 325, "Capacity, requests/s", (10, 1000), rates, {4: rate})
    times = [(rung.p50, rung.p50, rung.p50) for rung in rungs]
    _bars(picture, 690, "p50 at 2 requests/s, ms", (1, 100), times, {0: first, 4: last})
    picture.diamond((332, 402), 6, ITEM[1])
    picture.words((346, 402), "the paper's, on its hardware", size=12, colour=FAINT, anchor="start")
    picture.words(
        (986, 402), "logarithmic; lines from the least round to the greatest", size=12, colour=FAINT, anchor="end"
    )
    return str(picture)


def read(page: str) -> list[Rung]:
    """The rows of the page's table of rungs, in its order."""
    return [Rung(name, [float(one) for one in rates.split(", ")], float(p50)) for name, rates, p50 in ROW.findall(page)]


def _bars(
    picture: Picture,
    left: float,
    title: str,
    ends: tuple[int, int],
    values: list[tuple[float, float, float]],
    paper: dict[int, float],
) -> None:
    """A bar of each value with its range, and the paper's points by rung; logarithmic between two powers of ten."""
    low, high = ends
    span = 240

    def across(value: float) -> float:
        return round(left + span * math.log10(value / low) / math.log10(high / low), 1)

    picture.words((left, 32), title, size=14, bold=True, anchor="start")
    tick = low
    while tick <= high:
        picture.line((across(tick), 62), (across(tick), 350), colour=EDGE, width=1)
        picture.words((across(tick), 366), str(tick), size=12, colour=FAINT)
        tick *= 10
    for number, (known, least, greatest) in enumerate(values):
        height = 96 + 56 * number
        picture.box((left, height - 13), (across(known) - left, 26), kind=BOTH)
        picture.line((across(least), height), (across(greatest), height), colour=INK, width=2)
        picture.words((across(max(known, greatest)) + 8, height), f"{known:g}", size=13, anchor="start")
        if number in paper:
            picture.diamond((across(paper[number]), height), 6, ITEM[1])
