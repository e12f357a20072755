"""The ladder in words: a table for people and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loadtest.capacity.words import where
from loadtest.ladder.pictures import PAPER, drawn
from loadtest.openloop import pages
from loadtest.openloop.table import spread

HEADER = ("", "capacity/s", "p50 ms", "p99 ms", "at 70 %: /s", "p50 ms", "p99 ms", "CPU ms")
HOW = (
    "Every rung is a server of its own; requests, cores and bound are the same, and all are measured in turn, round "
    "after round. Capacity is the greatest offered rate, of Poisson arrivals, whose p99 from when a request was due "
    "keeps the bound without one error or 429. The models of hidden size 108 have fresh weights: what they cost does "
    "not depend on them. The paper states no hardware, candidates per request or percentile: its ratios can be read "
    "beside these, its milliseconds and requests a second cannot."
)


def text(found: dict[str, Any]) -> str:
    """The table for people."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield from where(found)
    yield (
        f"{found['candidates']} candidates, histories of {found['history']} sent along, "
        f"p99 within {found['bound_p99_ms']:g} ms; first p50, p99 and CPU at {found['low_rate']:g}/s"
    )
    yield ""
    yield _row(HEADER)
    for rung in found["rungs"]:
        yield _row((rung["name"], *_cells(rung)))
    yield ""
    for rung in found["rungs"]:
        yield f"{rung['name']:<10} {rung['what']}; {rung['model']['description']}"
    yield ""
    yield f"by the first rung, round by round: median (least to greatest); p50 and CPU at {found['low_rate']:g}/s"
    for rung in found["rungs"][1:]:
        more, sooner, cheaper = (spread(rung["by_first"][name]) for name in ("capacity", "p50", "server_cpu_ms"))
        yield f"  {rung['name']:<10} capacity x {more}; p50 / {sooner}; CPU / {cheaper}"
    first, last, rate = PAPER["first_ms"], PAPER["last_ms"], PAPER["last_rate"]
    times = f"{first} ms to {last} ms, / {first / last:.2g}"
    yield f"the paper's: {times}; {rate:g} requests/s a worker at the end; hardware, candidates, percentile unsaid"


def _cells(rung: dict[str, Any]) -> list[str]:
    rates = "/".join(f"{rate:.1f}" for rate in rung["capacity"])
    low, below = rung["low"].get("score", {}), rung["below"].get("score", {})
    shown = [_median(low.get("p50")), _median(low.get("p99")), f"{rung['below']['rate']:.1f}" if below else "-"]
    return [rates, *shown, _median(below.get("p50")), _median(below.get("p99")), _median(rung["low"]["server_cpu_ms"])]


def _median(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['median']:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"{cells[0]:<10}{cells[1]:>20}" + "".join(f"{cell:>12}" for cell in cells[2:])


def page(found: dict[str, Any]) -> str:
    """The page."""
    picture = pages.image("capacity and p50 by rung", drawn(found, "svg").decode())
    return pages.whole("The ladder", [pages.paragraph(HOW), pages.preformatted(text(found)), picture])
