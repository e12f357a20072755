"""The picture: how time grows along each axis, and all contenders of the headline case side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from kernels.bench.case import Size
from kernels.bench.report import Point, growth, machine, threads_growth
from kernels.bench.rounds import Result
from kernels.bench.series import AXES

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator

# Paul Tol's bright scheme: told apart by the colour-blind too.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
MARKERS = "osD^vP*"
OURS, OTHERS = "#228833", "#bbbbbb"
INK = "#1f2933"
LABELS = {"candidates": "candidates of each user", "steps": "steps", "users": "users", "hidden": "hidden size"}


def plot(results: Sequence[Result], base: Size, file: Path) -> None:
    """Writes the PNG, of the GPU's results where there are any timed, else of the CPU's."""
    device = "cuda" if any(result.times and result.task.device == "cuda" for result in results) else "cpu"
    series = {axis: growth(results, axis, base, device) for axis in AXES}
    series["threads"] = threads_growth(results, base)
    lines = list(dict.fromkeys(name for points in series.values() for name in points))
    styles = {name: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(lines)}
    figure, grid = plt.subplots(2, 3, figsize=(14, 9), layout="constrained")
    for axes, (axis, points) in zip(grid.flat, series.items(), strict=False):
        _growth_panel(axes, axis, points, styles)
    _bars(grid.flat[-1], results, base, device)
    figure.suptitle(f"Interest evolution: time of one call ({base} unless varied; {machine()['cpu']})", color=INK)
    legends = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid.flat[:-1]]
    handles = {label: handle for legend in legends for handle, label in legend}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _growth_panel(
    axes: Axes, axis: str, points: Mapping[str, Sequence[Point]], styles: Mapping[str, tuple[str, str]]
) -> None:
    for name, each in points.items():
        colour, marker = styles[name]
        axes.plot(*zip(*each, strict=True), marker=marker, color=colour, label=name, linewidth=1.6, markersize=5)
    axes.set(xscale="log", yscale="log", xlabel=LABELS.get(axis, "threads"), ylabel="median time of a call, ms")
    values = sorted({value for each in points.values() for value, _ in each})
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color="#e4e9ee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if not points:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=INK)


def _bars(axes: Axes, results: Sequence[Result], base: Size, device: str) -> None:
    """Median time of each contender at `base`, the fastest on top."""
    timed = [
        (statistics.median(result.times), result.name, OURS if result.contender.ours else OTHERS)
        for result in results
        if result.times and (result.task.size, result.task.operation, result.task.device) == (base, "evolve", device)
    ]
    timed.sort(reverse=True)
    times, names, colours = zip(*timed, strict=True) if timed else ((), (), ())
    bars = axes.barh(names, times, color=colours)
    axes.bar_label(bars, [f"{ms:.2f}" for ms in times], padding=3, fontsize=7, color=INK)
    axes.set(xscale="log", xlabel="median time of a call, ms")
    axes.legend(handles=[Patch(color=OURS, label="ours"), Patch(color=OTHERS, label="others")], frameon=False)
    axes.tick_params(axis="y", labelsize=7.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)
