"""Pictures of a measurement, as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from loadtest.openloop.run import Run, pooled
from loadtest.openloop.samples import PARTS, percentiles
from loadtest.openloop.table import Measured
from loadtest.openloop.target import Histogram

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, COLOURS = "#1f2933", ("#2563a8", "#d9822b", "#228833", "#aa3377", "#66ccee", "#bbbbbb")
PART_COLOURS = {"queue": "#d9822b", "store": "#228833", "compute": "#2563a8"}
NINES = (0, 50, 90, 99, 99.9, 99.99)


def percentile_curves(curves: Sequence[tuple[str, np.ndarray]], title: str = "Latency by percentile") -> str:
    """Latency over percentiles, the tail stretched by its nines (as HdrHistogram draws it). Empty ones are left out."""
    figure, axes = _axes(title)
    drawn = [(name, times) for name, times in curves if len(times)]
    most = max((len(times) for _, times in drawn), default=1)
    for (name, times), colour in zip(drawn, COLOURS * 3, strict=False):
        # No further than the samples reach: one part in n.
        nines = np.linspace(0, np.log10(len(times)), 200)
        at = 100 * (1 - 10.0**-nines)
        values = list(percentiles(times, at.tolist()).values())
        axes.plot(nines, values, color=colour, label=f"{name} ({len(times)} requests)")
    ticks = [0.0, *(-np.log10(1 - each / 100) for each in NINES[1:])]
    axes.set_xticks(ticks, [f"{each:g} %" for each in NINES])
    axes.set(
        xlabel="percentile", ylabel="ms from when a request was due", yscale="log", xlim=(0, max(1, np.log10(most)))
    )
    _plain_numbers(axes)
    return _svg(figure, legend=bool(drawn))


def latency_against_rate(measured: Sequence[Measured], bound_ms: float | None = None) -> str:
    """p50 and p99 of all rates that were tried; hollow where the bound was not kept."""
    figure, axes = _axes("Latency against offered rate")
    for one, colour in zip(measured, COLOURS, strict=False):
        points = sorted((point for sweep in one.sweeps for point in sweep.points), key=lambda each: each.run.load.rate)
        rates = [point.run.load.rate for point in points]
        for name, style, alpha in (("p99", "-", 1.0), ("p50", "--", 0.5)):
            values = [point.run.scores.percentiles[name] for point in points]
            medians = {rate: np.median([v for r, v in zip(rates, values, strict=True) if r == rate]) for rate in rates}
            label = f"{one.target.name} {name}"
            axes.plot(list(medians), list(medians.values()), style, color=colour, alpha=alpha, linewidth=1, label=label)
            for rate, value, point in zip(rates, values, points, strict=True):
                face = "white" if point.broken else colour
                axes.plot(rate, value, "o", color=colour, alpha=alpha, markersize=4, markerfacecolor=face)
    if bound_ms:
        axes.axhline(bound_ms, color=INK, linewidth=0.8, linestyle=":", label=f"bound {bound_ms:g} ms")
    axes.set(xlabel="requests offered a second", ylabel="ms from when a request was due", xscale="log", yscale="log")
    _plain_numbers(axes)
    return _svg(figure, legend=True)


def parts_of_time(named: Sequence[tuple[str, Sequence[Run]]]) -> str | None:
    """Where the server says its time went, on the mean, and what is left to HTTP, the network and the client."""
    rows = []
    for name, runs in named:
        shares = [run.scores for run in runs if run.scores.parts]
        if shares:
            parts = {
                part: float(np.mean([one.parts[part]["mean"] for one in shares if part in one.parts] or [0]))
                for part in PARTS
            }
            rows.append((name, parts, float(np.mean([one.mean for one in shares]))))
    if not rows:
        return None
    figure, axes = _axes("Where the time goes, mean of a request", height=1.6 + 0.5 * len(rows))
    for place, (_, parts, whole) in enumerate(rows):
        left = 0.0
        for part, value in [*parts.items(), ("outside", max(0.0, whole - sum(parts.values())))]:
            label = part if place == 0 else None
            axes.barh(place, value, left=left, color=PART_COLOURS.get(part, "#c9d3dd"), label=label)
            left += value
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xlabel("ms")
    return _svg(figure, legend=True)


def batch_sizes(title: str, histogram: Histogram) -> str:
    """How many batches were of which size."""
    figure, axes = _axes(title, height=3)
    kept = [(bound, count) for bound, count in histogram.items() if count]
    axes.bar(range(len(kept)), [count for _, count in kept], color=COLOURS[0])
    axes.set_xticks(range(len(kept)), [f"≤ {bound}" for bound, _ in kept])
    axes.set_ylabel("batches")
    return _svg(figure, legend=False)


def over_time(title: str, label: str, series: Sequence[tuple[float, float]]) -> str:
    """One quantity over seconds."""
    figure, axes = _axes(title, height=3)
    axes.plot([at for at, _ in series], [value for _, value in series], color=COLOURS[0])
    axes.set(xlabel="seconds", ylabel=label, ylim=(0, 1.1 * max(value for _, value in series)))
    return _svg(figure, legend=False)


def of_server(one: Measured) -> np.ndarray:
    """Latencies of the scores of all runs that count."""
    return pooled(one.counted) if one.counted else np.zeros(0)


def _axes(title: str, height: float = 4.2) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.set_title(title, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _plain_numbers(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter("{x:g}")


def _svg(figure: Figure, *, legend: bool) -> str:
    if legend:
        figure.axes[0].legend(frameon=False, fontsize=9)
    written = io.StringIO()
    figure.savefig(written, format="svg")
    plt.close(figure)
    return written.getvalue()
