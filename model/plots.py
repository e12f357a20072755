"""Pictures of a model's quality."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from model.metrics import reliability
from model.scorer import ScoreInput, Scorer

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

INK, ACCENT, FAINT = "#1f2933", "#2563a8", "#c9d3dd"


def plot_reliability(clicks: npt.ArrayLike, scores: npt.ArrayLike, file: Path) -> None:
    """Foretold against observed click rate in bins of equally many impressions, and where the scores lie."""
    bins = reliability(clicks, scores)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.5, 6.5), sharex=True, height_ratios=(4, 1), layout="constrained"
    )
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.5, label="perfect")
    above.plot(bins.predicted, bins.observed, "o-", color=ACCENT, markersize=4, label="model")
    above.set(ylabel="observed click rate", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"Reliability: calibration error {bins.error():.4f}", color=INK)
    above.legend(frameon=False)
    below.hist(np.asarray(scores), bins=50, range=(0, 1), color=ACCENT)
    below.set(xlabel="predicted click probability", ylabel="impressions")
    _save(figure, file)


def plot_interest_evolution(scorer: Scorer, one: ScoreInput, file: Path) -> None:
    """Attention of each candidate over the user's history, oldest first (as in DIEN figure 4)."""
    attention = scorer.attention(one)
    scores = scorer.score([one])[0]
    order = np.argsort(-scores, kind="stable")
    count, steps = attention.shape
    figure, axes = plt.subplots(figsize=(max(6.0, 2.6 + 0.17 * steps), 1.8 + 0.42 * count), layout="constrained")
    image = axes.imshow(attention[order], aspect="auto", cmap="Blues", vmin=0)
    axes.set_yticks(range(count), [f"item {one.item_ids[n]}   p = {scores[n]:.3f}" for n in order])
    newest = list(one.history)[-steps:] if steps else []
    axes.set_xticks(range(steps), [str(item) for item in newest], rotation=90, fontsize=6)
    axes.set_xlabel("behaviours, oldest first (item ids)")
    axes.set_title(f"Attention over the history of user {one.user_id}", color=INK)
    figure.colorbar(image, ax=axes, label="attention", shrink=0.9)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
