"""How good probabilities are: AUC, GAUC, log loss, calibration error, and their bootstrap intervals.

M impressions, U users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
METRICS = ("auc", "gauc", "log_loss", "calibration_error")


_Ranked = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def auc(clicks: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Area under the ROC curve, ties counting half; NaN where only one class occurs. `weights` count repetitions."""
    return _weighted_auc(*_by_score(np.asarray(clicks), np.asarray(scores)), weights)


def _by_score(clicks: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> _Ranked:
    """Order by score, the group of equal scores of each place in it, and the clicks in it."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    group = np.cumsum(np.concatenate([[False], ranked[1:] != ranked[:-1]])[: len(ranked)])
    return order, group, clicks[order].astype(np.int64)


def _weighted_auc(
    order: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    clicks: npt.NDArray[np.int64],
    weights: npt.ArrayLike | None,
) -> float:
    weight = np.ones(len(order)) if weights is None else np.asarray(weights, dtype=np.float64)[order]
    positives = np.bincount(group, weight * clicks)
    negatives = np.bincount(group, weight * (1 - clicks))
    total = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / total) if total > 0 else float("nan")


def user_aucs(users: npt.ArrayLike, clicks: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """AUC of each user (NaN for one who clicked all or nothing) and their impressions: two `[U]`, users ascending."""
    _, user = np.unique(np.asarray(users), return_inverse=True)
    click = np.asarray(clicks).astype(np.float64)
    score = np.asarray(scores)
    order = np.lexsort((score, user))
    user, click, score = user[order], click[order], score[order]
    counts = np.bincount(user).astype(np.float64)
    positives = np.bincount(user, click)
    # Average rank within the user: ties share the middle of their places.
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    new = np.concatenate([[True], (user[1:] != user[:-1]) | (score[1:] != score[:-1])])
    group = np.cumsum(new) - 1
    sizes = np.bincount(group)
    starts = np.flatnonzero(new)
    rank = (starts + (sizes - 1) / 2)[group] - first[user] + 1
    ranks = np.bincount(user, rank * click)
    pairs = positives * (counts - positives)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks - positives * (positives + 1) / 2) / pairs, counts


def gauc(users: npt.ArrayLike, clicks: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean of the users' AUCs weighted by impressions (DIN section 4.2.2), over users with both classes."""
    aucs, counts = user_aucs(users, clicks, scores)
    both = ~np.isnan(aucs)
    return float(np.average(aucs[both], weights=counts[both])) if both.any() else float("nan")


def log_losses(clicks: npt.ArrayLike, scores: npt.ArrayLike) -> FloatArray:
    """Log loss of each impression, `[M]`; probabilities are kept 1e-7 off 0 and 1."""
    click = np.asarray(clicks, dtype=np.float64)
    score = np.clip(np.asarray(scores, dtype=np.float64), 1e-7, 1 - 1e-7)
    return -(click * np.log(score) + (1 - click) * np.log1p(-score))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Equal-count bins of the score: what was foretold and what came."""

    predicted: FloatArray  # [bins]
    observed: FloatArray  # [bins]
    counts: FloatArray  # [bins]

    def error(self) -> float:
        """Expected calibration error: mean gap, weighted by impressions; NaN without any."""
        if not len(self.counts):
            return float("nan")
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


def reliability(
    clicks: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, bins: int = 20
) -> Reliability:
    """Bins of equally many impressions, ascending in score; `weights` count repetitions."""
    score = np.asarray(scores, dtype=np.float64)
    weight = np.ones(len(score)) if weights is None else np.asarray(weights, dtype=np.float64)
    return _binned(np.asarray(clicks, dtype=np.float64), score, _bins(score, bins), weight)


def _bins(score: FloatArray, bins: int = 20) -> npt.NDArray[np.int64]:
    """The bin of each impression."""
    place = np.empty(len(score), dtype=np.int64)
    place[np.argsort(score, kind="stable")] = np.arange(len(score)) * bins // max(len(score), 1)
    return place


def _binned(click: FloatArray, score: FloatArray, place: npt.NDArray[np.int64], weight: FloatArray) -> Reliability:
    counts = np.bincount(place, weight).astype(np.float64)
    kept = counts > 0
    predicted = np.bincount(place, weight * score)[kept] / counts[kept]
    observed = np.bincount(place, weight * click)[kept] / counts[kept]
    return Reliability(predicted, observed, counts[kept])


def measure(users: npt.ArrayLike, clicks: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, float]:
    """All of METRICS."""
    return {
        "auc": auc(clicks, scores),
        "gauc": gauc(users, clicks, scores),
        "log_loss": float(log_losses(clicks, scores).mean()),
        "calibration_error": reliability(clicks, scores).error(),
    }


def bootstrap(
    users: npt.ArrayLike, clicks: npt.ArrayLike, scores: npt.ArrayLike, *, draws: int = 200, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of METRICS from resampling whole users, whose impressions are not independent."""
    _, user = np.unique(np.asarray(users), return_inverse=True)
    click, score = np.asarray(clicks, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    place = _bins(score)
    generator = np.random.default_rng(seed)
    ranked = _by_score(click, score)
    aucs, counts = user_aucs(user, click, score)
    both = ~np.isnan(aucs)
    losses = log_losses(click, score)
    samples = np.empty((draws, len(METRICS)))
    for number in range(draws):
        times = np.bincount(generator.integers(0, len(counts), len(counts)), minlength=len(counts)).astype(np.float64)
        weight = times[user]
        grouped = (times * counts)[both]
        samples[number] = (
            _weighted_auc(*ranked, weight),
            float(np.average(aucs[both], weights=grouped)) if grouped.sum() else float("nan"),
            float(np.average(losses, weights=weight)),
            _binned(click, score, place, weight).error(),
        )
    return {name: _interval(sample) for name, sample in zip(METRICS, samples.T, strict=True)}


def _interval(sample: FloatArray) -> tuple[float, float]:
    known = sample[~np.isnan(sample)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
