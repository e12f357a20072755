"""The comparison in pictures: AUC with intervals, quality against cost, learning curves, effects of one setting."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.compare.results import Comparison, Row
from model.compare.statistics import Estimate
from model.plots import ACCENT, FAINT, INK

# Paul Tol's muted scheme: told apart by the colour-blind too.
COLOURS = ("#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499")
SEEDS = "#8a99a8"
MARKERS = "osD^vP*X<>hp"
SCALE = {"auxiliary_weight": "α of the auxiliary loss", "hidden": "hidden size", "max_history": "behaviours that count"}
COSTLY = ("hidden", "max_history")  # settings that what serving costs depends on


def draw_all(one: Comparison, folder: Path) -> dict[str, list[str]]:
    """All pictures of a comparison; their files by `label/study`."""
    files: dict[str, list[str]] = {}
    for study in one.studies:
        for kind, figure in figures_of(one, study).items():
            file = picture_name(one, study, kind)
            figure().savefig(folder / file, dpi=100)
            files.setdefault(f"{one.label}/{study['name']}", []).append(file)
    return files


def picture_name(one: Comparison, study: Mapping[str, Any], kind: str) -> str:
    """The file of a picture."""
    return f"{one.label}-{study['name']}-{kind}.png"


def figures_of(one: Comparison, study: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
    """What can be drawn of a study, by kind; nothing where no variant has been trained."""
    rows = one.rows(study)
    if not rows:
        return {}
    kinds = {"auc": draw_auc, "curves": draw_curves}
    if any(row.micros or row.cpu_seconds for row in rows):
        kinds["cost"] = draw_cost
    if study["axis"] and len(rows) > 1:
        kinds["effect"] = draw_effect
    return {kind: partial(draw, rows, study) for kind, draw in kinds.items()}


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _title(figure: Figure, study: Mapping[str, Any], what: str = "") -> None:
    figure.suptitle(textwrap.fill(f"{study['question']}{what}", 80), color=INK, fontsize=11)


def _colour(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def draw_auc(rows: Sequence[Row], study: Mapping[str, Any]) -> Figure:
    """Each row's AUC, every seed a dot, with the interval of the mean; beside it the difference to its reference."""
    figure, (left, right) = _figure(10, 1.6 + 0.42 * len(rows), 2)
    by_name = {row.name: row for row in rows}
    for place, row in enumerate(rows):
        values = list(row.by_seed("auc").values())
        left.plot(values, [place] * len(values), "o", color=SEEDS, markersize=4, zorder=3)
        _interval(left, row.of("auc"), place)
        reference = by_name.get(row.reference)
        if reference is not None and reference is not row:
            _interval(right, row.above(reference), place)
    right.axvline(0, color=FAINT, linewidth=1.2, zorder=0)
    left.set_yticks(range(len(rows)), [row.name for row in rows])
    right.set_yticks(range(len(rows)), [""] * len(rows))
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
    left.set_xlabel(f"{rows[0].split} AUC:\nseeds, mean, 95 % interval")
    references = {row.reference for row in rows}
    against = references.pop() if len(references) == 1 else "its reference"
    right.set_xlabel(f"AUC above {against},\nseed by seed: mean, 95 % interval")
    _title(figure, study)
    return figure


def _interval(axes: Axes, found: Estimate | None, place: float) -> None:
    if found is None:
        return
    if not math.isnan(found.low):
        axes.plot([found.low, found.high], [place, place], color=ACCENT, linewidth=2, solid_capstyle="butt")
    axes.plot([found.mean], [place], "D", color=ACCENT, markersize=6)


class Cost(NamedTuple):
    """One thing that rows cost."""

    label: str
    values: list[float | None]  # of each row
    text: str


def draw_cost(rows: Sequence[Row], study: Mapping[str, Any]) -> Figure:
    """Quality against what serving a candidate costs, and, where it was measured, against what training costs."""
    costs = [
        Cost(
            "µs per candidate, one thread (median)",
            [row.micros["median"] if row.micros else None for row in rows],
            "{:.2f} µs",
        ),
        Cost("CPU seconds of training (mean)", [row.cpu_seconds for row in rows], "{:.0f} s"),
    ]
    costs = [cost for cost in costs if any(cost.values)]
    figure, panels = _figure(5 + 4 * len(costs), max(4.5, 1.5 + 0.25 * len(rows)), len(costs))
    for number, row in enumerate(rows):
        own = [cost.text.format(value) for cost in costs if (value := cost.values[number])]
        for axes, cost in zip(panels, costs, strict=True):
            _priced(axes, cost.values[number], row.of("auc"), f"{row.name}: {', '.join(own)}", number)
    for axes, cost in zip(panels, costs, strict=True):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="minor", labelsize=7)
        axes.set_xlabel(cost.label)
        axes.grid(color=FAINT, linewidth=0.5)
    panels[0].set_ylabel(f"{rows[0].split} AUC, mean and 95 % interval")
    shown = {label: mark for axes in panels for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False, fontsize=9)
    _title(figure, study, ": quality against cost")
    return figure


def _priced(axes: Axes, cost: float | None, found: Estimate | None, label: str, number: int) -> None:
    if not cost or found is None:
        return
    about = 0.0 if math.isnan(found.low) else found.mean - found.low
    style = {"linestyle": "none", "elinewidth": 1, "markersize": 8, **_colour(number)}
    axes.errorbar(cost, found.mean, yerr=about or None, label=label, **style)


def draw_curves(rows: Sequence[Row], study: Mapping[str, Any]) -> Figure:
    """AUC on dev against training steps, the mean of the seeds that came so far."""
    figure, (axes,) = _figure(9, max(4.5, 1.5 + 0.25 * len(rows)))
    for number, row in enumerate(rows):
        curves = [{point["step"]: point["auc"] for point in cell["training"]["curve"]} for cell in row.cells]
        # Where a seed was stopped early, a mean of the others would jump.
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        means = [sum(curve[step] for curve in curves) / len(curves) for step in steps]
        axes.plot(steps, means, label=row.name, linewidth=1.5, markersize=5, **_colour(number))
    axes.set(xlabel="training steps", ylabel="dev AUC, mean of seeds")
    axes.grid(color=FAINT, linewidth=0.5)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    _title(figure, study, ": learning curves")
    return figure


def draw_effect(rows: Sequence[Row], study: Mapping[str, Any]) -> Figure:
    """AUC against one setting, every seed a dot; the difference to the reference; what serving costs, if it depends."""
    axis = str(study["axis"])
    ordered = sorted(rows, key=lambda row: float(row.variant["settings"][axis]))
    values = [float(row.variant["settings"][axis]) for row in ordered]
    figure, axes = _figure(13 if axis in COSTLY else 9, 4.2, 3 if axis in COSTLY else 2)
    for value, row in zip(values, ordered, strict=True):
        seeds = list(row.by_seed("auc").values())
        axes[0].plot([value] * len(seeds), seeds, "o", color=SEEDS, markersize=4, zorder=3)
    _means(axes[0], values, [row.of("auc") for row in ordered])
    axes[0].set_ylabel(f"{rows[0].split} AUC: seeds, mean, 95 % interval")
    reference = next((row for row in rows if row.name == rows[0].reference), None)
    if reference is not None:
        _means(axes[1], values, [row.above(reference) for row in ordered])
        axes[1].axhline(0, color=SEEDS, linewidth=1)
    axes[1].set_ylabel(f"AUC above {rows[0].reference}, 95 % interval")
    if axis in COSTLY:
        known = [(value, row.micros["median"]) for value, row in zip(values, ordered, strict=True) if row.micros]
        axes[2].plot([value for value, _ in known], [micros for _, micros in known], "s-", color=ACCENT)
        axes[2].set_ylabel("µs per candidate, one thread (median)")
        axes[2].set_ylim(bottom=0)
    for each in axes:
        each.set_xscale("log")
        each.set_xticks(values, [f"{value:g}" for value in values])
        each.minorticks_off()
        each.set_xlabel(SCALE.get(axis, axis))
        each.grid(color=FAINT, linewidth=0.5)
    _title(figure, study)
    return figure


def _means(axes: Axes, values: Sequence[float], found: Sequence[Estimate | None]) -> None:
    known = [(value, one) for value, one in zip(values, found, strict=True) if one is not None]
    about = [0.0 if math.isnan(one.low) else one.mean - one.low for _, one in known]
    places, means = [value for value, _ in known], [one.mean for _, one in known]
    axes.errorbar(places, means, yerr=about if any(about) else None, fmt="D-", color=ACCENT, capsize=3)
