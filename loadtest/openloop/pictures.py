"""Pictures of a measurement, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence

import matplotlib as mpl
import numpy as np

from loadtest.openloop.run import Run, pooled
from loadtest.openloop.samples import PARTS, percentiles
from loadtest.openloop.table import Measured
from loadtest.openloop.target import Histogram

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

INK, COLOURS = "#1f2933", ("#2563a8", "#d9822b", "#228833", "#aa3377", "#66ccee", "#bbbbbb")
OUTSIDE = "HTTP, network, client"
PART_COLOURS = {"queue": "#d9822b", "store": "#228833", "compute": "#2563a8", OUTSIDE: "#c9d3dd"}
STYLES = {"p50": ":", "p95": "-.", "p99": "-", "p99.9": "--"}
PERCENTILE_COLOURS = ("#8fb3dd", "#5b8fc9", "#2563a8", "#aa3377")
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
    return _svg(figure, legend=bool(drawn))


def latency_against_rate(measured: Sequence[Measured], bound_ms: float | None = None) -> str:
    """Percentiles at all rates that were tried, medians of the tries; p99 of each, hollow where it broke the bound."""
    figure, axes = _axes("Latency against offered rate")
    for one, colour in zip(measured, COLOURS, strict=False):
        points = [point for sweep in one.sweeps for point in sweep.points]
        for (name, style), own in zip(STYLES.items(), PERCENTILE_COLOURS, strict=True):
            line = _medians((point.run.load.rate, point.run.scores.percentiles[name]) for point in points)
            shade = colour if len(measured) > 1 else own
            axes.plot(*line, style, color=shade, linewidth=1.4, label=_label(measured, one, name))
            for point in points if name == "p99" else ():
                face = "white" if point.broken else shade
                at = (point.run.load.rate, point.run.scores.percentiles[name])
                axes.plot(*at, "o", color=shade, markersize=5, markerfacecolor=face, zorder=3)
    axes.plot([], [], "o", color=INK, markersize=5, label="p99 of a run, kept")
    axes.plot([], [], "o", color=INK, markersize=5, markerfacecolor="white", label="not kept")
    if bound_ms:
        axes.axhline(bound_ms, color=INK, linewidth=0.8, linestyle=":", label=f"bound of p99, {bound_ms:g} ms")
    axes.set(xlabel="offered, requests/s", ylabel="ms from when a request was due", xscale="log", yscale="log")
    return _svg(figure, legend=True)


def work_against_rate(measured: Sequence[Measured]) -> str:
    """What was achieved, where the server's time went, its batches, and what failed, at all rates that were tried."""
    figure = plt.figure(figsize=(9, 6.8), layout="constrained")
    for axes, (title, label, quantities) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        _dressed(axes, title).set(
            xlabel="offered, requests/s", ylabel=label, xscale="log", yscale="linear" if label == "%" else "log"
        )
        for one, colour in zip(measured, COLOURS, strict=False):
            runs = [point.run for sweep in one.sweeps for point in sweep.points]
            for style, (name, (own, quantity)) in zip(("-", "--", ":", "-."), quantities.items(), strict=False):
                rates, values = _medians((run.load.rate, quantity(run)) for run in runs)
                shade = colour if len(measured) > 1 else own
                said = name if any(values) or not rates else f"{name} 0"
                axes.plot(
                    rates,
                    values,
                    f"o{style}",
                    color=shade,
                    markersize=3,
                    linewidth=1.4,
                    label=_label(measured, one, said) if rates else None,
                )
        if quantities is ACHIEVED:
            offered = [point.run.load.rate for one in measured for sweep in one.sweeps for point in sweep.points]
            axes.plot([min(offered), max(offered)], [min(offered), max(offered)], ":", color=INK, label="all of it")
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            columns = 2 if len(labels) > 3 else 3
            beside = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "columnspacing": 1}
            axes.legend(handles, labels, ncols=columns, frameon=False, fontsize=8, **beside)
            rows = -(-len(labels) // columns)
            axes.set_title(title, color=INK, loc="left", fontsize=11, pad=6 + 13 * rows)
        else:
            axes.text(0.5, 0.5, "the server does not say", transform=axes.transAxes, ha="center", color=INK)
    return _svg(figure, legend=False)


def _candidates_of_a_batch(run: Run) -> float:
    batches = run.counters.get("augur_batches", 0.0)
    return run.counters["augur_candidates"] / batches if batches else np.nan


def _refused(run: Run) -> float:
    return 100 * run.scores.errors.get("429", 0) / max(1, run.scores.requests)


def _other_errors(run: Run) -> float:
    others = sum(count for name, count in run.scores.errors.items() if name != "429")
    return 100 * others / max(1, run.scores.requests)


Quantities = dict[str, tuple[str, Callable[[Run], float]]]  # of a run, by name: their colour, and how they are had
ACHIEVED: Quantities = {"achieved": (COLOURS[0], lambda run: run.scores.achieved)}
TIMES: Quantities = {
    part: (PART_COLOURS[part], lambda run, part=part: run.scores.parts.get(part, {}).get("mean", np.nan))  # type: ignore[misc]
    for part in PARTS
}
BATCHES: Quantities = {"candidates": (COLOURS[0], _candidates_of_a_batch)}
SHARES: Quantities = {
    "429": (COLOURS[1], _refused),
    "other errors": (COLOURS[3], _other_errors),
    "degraded": (COLOURS[2], lambda run: 100 * run.scores.degraded / max(1, run.scores.requests)),
    "client's CPU": ("#8896a5", lambda run: 100 * run.client_share),
}


PANELS = (
    ("Answered with 200", "requests/s", ACHIEVED),
    ("The server's own time, mean of a request", "ms", TIMES),
    ("Candidates of a batch, mean", "candidates", BATCHES),
    ("Failed, degraded; the client's CPU", "%", SHARES),
)


def _medians(pairs: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """A line through the median of each rate's values; without those that are none."""
    by_rate: dict[float, list[float]] = {}
    for rate, value in pairs:
        if np.isfinite(value):
            by_rate.setdefault(rate, []).append(value)
    rates = sorted(by_rate)
    return rates, [float(np.median(by_rate[rate])) for rate in rates]


def _label(measured: Sequence[Measured], one: Measured, name: str) -> str:
    return f"{one.target.name}, {name}" if len(measured) > 1 else name


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
    figure, axes = _axes("Where the time goes, mean of a request", height=1.5 + 0.4 * len(rows))
    for place, (_, parts, whole) in enumerate(rows):
        left = 0.0
        for part, value in [*parts.items(), (OUTSIDE, max(0.0, whole - sum(parts.values())))]:
            label = part if place == 0 else None
            axes.barh(place, value, 0.6, left=left, color=PART_COLOURS[part], label=label)
            left += value
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xlabel("ms")
    axes.grid(visible=False, axis="y")
    return _svg(figure, legend=True)


def batch_sizes(title: str, what: str, histogram: Histogram) -> str:
    """How many batches were of which size."""
    figure, axes = _axes(title, height=2.8)
    kept = [(bound, count) for bound, count in histogram.items() if count]
    bars = axes.bar(range(len(kept)), [count for _, count in kept], color=COLOURS[0])
    whole = sum(count for _, count in kept)
    axes.bar_label(bars, [f"{count / whole:.0%}" for _, count in kept], padding=2, fontsize=9, color=INK)
    axes.set_xticks(range(len(kept)), [f"≤ {bound}" for bound, _ in kept])
    axes.set(xlabel=f"{what} of a batch", ylabel="batches")
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
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
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    return figure, _dressed(axes, title)


def _dressed(axes: Axes, title: str) -> Axes:
    axes.set_title(title, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _plain_numbers(axis: Axis) -> None:
    """Numbers as people write them along a logarithmic axis; more of them where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, *, legend: bool) -> str:
    """The picture; a legend stands beside what is drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                _plain_numbers(axis)
    if legend:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    written = io.StringIO()
    figure.savefig(written, format="svg")
    plt.close(figure)
    return written.getvalue()
