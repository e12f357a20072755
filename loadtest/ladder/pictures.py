"""The ladder as a picture."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.openloop.pictures import COLOURS, INK

PAPER = {"first_ms": 38.2, "last_ms": 6.6, "last_rate": 360.0}  # DIEN, on serving; the first is before all of it
SPREAD = ("median", "least", "greatest")


def drawn(found: dict[str, Any], kind: str) -> bytes:
    """Capacity and p50 of every rung, as `png` or `svg`; the paper's points are hollow, for they are not of here."""
    rungs = found["rungs"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rates = [(statistics.median(one["capacity"]), min(one["capacity"]), max(one["capacity"])) for one in rungs]
    slow = [one["low"].get("score", {}).get("p50") or dict.fromkeys(SPREAD, 0.0) for one in rungs]
    _bars(left, "Capacity", f"requests/s within p99 {found['bound_p99_ms']:g} ms", rates)
    times = [(one["median"], one["least"], one["greatest"]) for one in slow]
    _bars(right, f"p50 at {found['low_rate']:g} requests/s", "ms from when a request was due", times)
    last = len(rungs) - 1
    _paper(left, [(PAPER["last_rate"], last)])
    _paper(right, [(PAPER["first_ms"], 0), (PAPER["last_ms"], last)])
    left.set_yticks(range(len(rungs)), [f"{one['name']}\n{one['what']}" for one in rungs])
    left.invert_yaxis()
    rounds = max(len(one["capacity"]) for one in rungs)
    asked = f"{found['candidates']} candidates, histories of {found['history']}; {found['machine']['cpu']}"
    title = f"{asked}; median of {rounds} rounds, least to greatest"
    figure.suptitle(title, color=INK, fontsize=10)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower right", frameon=False, fontsize=9)
    written = io.BytesIO()
    figure.savefig(written, format=kind, dpi=150)
    return written.getvalue()


def _bars(axes: Axes, title: str, label: str, values: Sequence[tuple[float, float, float]]) -> None:
    """A bar for each rung that has a median above 0, with its range, on a logarithmic scale from a power of ten."""
    axes.set_title(title, color=INK, loc="left")
    axes.set(xlabel=label, xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    for place, (known, least, greatest) in enumerate(values):
        if known:
            axes.barh(place, known, height=0.5, color=COLOURS[0])
            axes.plot([least or known, greatest], [place, place], color=INK, linewidth=1.2, solid_capstyle="butt")
        axes.annotate(
            f"{known:.3g}" if known else "none",
            (max(known, greatest), place) if known else (0, place),
            xycoords="data" if known else ("axes fraction", "data"),
            xytext=(4, 9),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15)
    lowest = min((low or known for known, low, _ in values if known), default=1.0)
    axes.set_xlim(left=10 ** math.floor(math.log10(lowest)))


def _paper(axes: Axes, points: list[tuple[float, int]]) -> None:
    across, up = zip(*points, strict=True)
    label = "the paper's, on its hardware"
    axes.plot(across, up, "D", color=COLOURS[1], markerfacecolor="white", markersize=8, zorder=3, label=label)
