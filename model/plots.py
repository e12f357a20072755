"""Pictures of a model's quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from model.metrics import reliability
from model.scorer import ScoreInput, Scorer

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

INK, ACCENT, FAINT = "#1f2933", "#2563a8", "#c9d3dd"
# Paul Tol's bright scheme: told apart by the colour-blind too.
OF_ACTIONS = ("#bbbbbb", "#66ccee", "#ccbb44", "#ee6677", "#228833", "#aa3377", "#4477aa")
UNKNOWN = "unknown"


def plot_reliability(clicks: npt.ArrayLike, scores: npt.ArrayLike, file: Path) -> None:
    """Foretold against observed click rate in bins of equally many impressions, and where the scores lie."""
    bins = reliability(clicks, scores)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.5, 6.5), sharex=True, height_ratios=(4, 1), layout="constrained"
    )
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.5, label="perfect")
    above.plot(bins.predicted, bins.observed, "o-", color=ACCENT, markersize=4, label="model", clip_on=False)
    above.set(ylabel="observed click rate", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"Reliability: calibration error {bins.error():.4f}", color=INK)
    above.legend(frameon=False)
    below.hist(np.asarray(scores), bins=50, range=(0, 1), color=ACCENT)
    below.set(xlabel="predicted click probability", ylabel="impressions")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def plot_slices(slices: Sequence[Mapping[str, Any]], whole: Mapping[str, float], file: Path) -> None:
    """AUC of every slice with its interval against that of the `whole`; beside it what was foretold and what came."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 1.8 + 0.19 * len(slices)), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    for place, one in enumerate(slices):
        right.plot([one["click_rate"], one["mean_prediction"]], [place, place], color=FAINT, linewidth=2, zorder=0)
        if "metrics" in one:
            left.plot(one["intervals"]["auc"], [place, place], color=ACCENT, linewidth=1.5)
            left.plot([one["metrics"]["auc"]], [place], "D", color=ACCENT, markersize=4)
        if place and one["by"] != slices[place - 1]["by"]:
            for axes in (left, right):
                axes.axhline(place - 0.5, color=FAINT, linewidth=0.8)
    places = range(len(slices))
    right.plot([one["click_rate"] for one in slices], places, "o", color=INK, markersize=4, label="click rate")
    foretold = [one["mean_prediction"] for one in slices]
    right.plot(foretold, places, "o", color=ACCENT, markersize=4, label="mean prediction")
    left.axvline(whole["auc"], color=FAINT, linewidth=1.5, zorder=0)
    left.set_yticks(places, [f"{one['by']}: {one['slice']}   {one['impressions']:,}" for one in slices], fontsize=7.5)
    left.set_ylim(len(slices) - 0.5, -0.5)
    left.set_xlabel("AUC with 95 % interval (line: of all)")
    right.set_xlabel("click probability")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, ncols=2, loc="outside upper right", fontsize=8)
    _save(figure, file)


def plot_interest_evolution(scorer: Scorer, one: ScoreInput, file: Path) -> None:
    """Attention of each candidate over the user's history, oldest first (as in DIEN figure 4), the likeliest on top.

    Where the model knows actions, a strip below tells by colour what was done.
    """
    attention, scores = scorer.attention(one), scorer.score([one])[0]
    order = np.argsort(-scores, kind="stable")
    count, steps = attention.shape
    done = _done(scorer, one, steps)
    heights = (max(count, 1), 0.5) if done else (1,)
    size = max(6.5, 3.6 + 0.19 * steps), 2.2 + 0.4 * count + (0.5 if done else 0)
    figure, grid = plt.subplots(
        len(heights), 1, figsize=size, sharex=True, height_ratios=heights, layout="constrained", squeeze=False
    )
    above, below = grid[0, 0], grid[-1, 0]
    shown = attention[order] if steps else np.zeros((count, 1))
    image = above.imshow(shown, aspect="auto", cmap="Blues", vmin=0, vmax=shown.max(initial=0) or 1)
    above.set_yticks(range(count), [f"item {one.item_ids[n]}   p = {scores[n]:.3f}" for n in order])
    user = "" if one.user_id is None else f" of user {one.user_id}"
    above.set_title(f"Attention over the history{user}", color=INK)
    figure.colorbar(image, ax=above, label="attention", pad=0.01)
    if done:
        above.tick_params(bottom=False)
        _strip(figure, below, done)
    below.set_xticks(range(steps), [str(item) for item in list(one.history)[len(one.history) - steps :]])
    below.tick_params(axis="x", rotation=90, labelsize=6.5)
    below.set_xlabel("behaviours, oldest first (item ids)" if steps else "no behaviours")
    _save(figure, file)


def _done(scorer: Scorer, one: ScoreInput, steps: int) -> list[str]:
    """The name of what was done in each behaviour that counts; nothing for a model without actions."""
    if not scorer.actions:
        return []
    if one.actions is None:
        return [scorer.default_action or UNKNOWN] * steps
    newest = list(one.actions)[len(one.actions) - steps :]
    named = (*scorer.actions, UNKNOWN)  # -1, an unknown action, is the last
    return [action if isinstance(action, str) else named[int(action)] for action in newest]


def _strip(figure: Figure, axes: Axes, done: list[str]) -> None:
    names = sorted(set(done))
    colours = [OF_ACTIONS[number % len(OF_ACTIONS)] for number in range(len(names))]
    axes.imshow([[names.index(name) for name in done]], aspect="auto", cmap=ListedColormap(colours))
    axes.set_yticks([0], ["action"])
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(handles=handles, ncols=5, frameon=False, loc="outside lower right", fontsize=8)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=150)
    plt.close(figure)
