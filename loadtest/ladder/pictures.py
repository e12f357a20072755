"""The ladder as a picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.openloop.pictures import COLOURS, INK

PAPER = {"first_ms": 38.2, "last_ms": 6.6, "last_rate": 360.0}  # DIEN, on serving; the first is before all of it


def drawn(found: dict[str, Any], kind: str) -> bytes:
    """Capacity and p50 of every rung, as `png` or `svg`; the paper's points are hollow, for they are not of here."""
    rungs = found["rungs"]
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rates = [statistics.median(one["capacity"]) for one in rungs]
    latencies = [(one["low"].get("score", {}).get("p50") or {}).get("median", 0.0) for one in rungs]
    _bars(left, "Capacity", f"requests/s within p99 {found['bound_p99_ms']:g} ms", rates)
    _bars(right, f"p50 at {found['low_rate']:g} requests/s", "ms from when a request was due", latencies)
    last = len(rungs) - 1
    _paper(left, [(PAPER["last_rate"], last)])
    _paper(right, [(PAPER["first_ms"], 0), (PAPER["last_ms"], last)])
    left.set_yticks(range(len(rungs)), [f"{one['name']}: {one['what']}" for one in rungs])
    left.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower right", frameon=False, fontsize=9)
    written = io.BytesIO()
    figure.savefig(written, format=kind, dpi=150)
    return written.getvalue()


def _bars(axes: Axes, title: str, label: str, values: Sequence[float]) -> None:
    """A bar for each rung that has a value above 0, on a logarithmic scale, and its number."""
    axes.set_title(title, color=INK, loc="left")
    axes.set(xlabel=label, xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    for place, known in enumerate(values):
        if known:
            axes.barh(place, known, height=0.5, color=COLOURS[0])
        axes.annotate(
            f"{known:.3g}" if known else "none",
            (known, place) if known else (0, place),
            xycoords="data" if known else ("axes fraction", "data"),
            xytext=(4, 9),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15)


def _paper(axes: Axes, points: list[tuple[float, int]]) -> None:
    across, up = zip(*points, strict=True)
    label = "the paper's, on its hardware"
    axes.plot(across, up, "D", color=COLOURS[1], markerfacecolor="white", markersize=8, zorder=3, label=label)
