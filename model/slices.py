"""Quality by slice: of users, items, context and time, where a figure over all impressions would hide a weak part.

M impressions of one split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from model.batches import Batcher
from model.data.dataset import IntArray
from model.features import OUT_OF_VOCABULARY
from model.metrics import bootstrap, measure

LEAST, LEAST_OF_A_CLASS = 200, 20  # impressions, and clicks or non-clicks; a slice of fewer has no metrics
MOST = 24  # values of a context field that have a slice each
PERIODS = 14  # at most so many
DAY_MS = 86_400_000

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some impressions of a split, and by what they were chosen."""

    by: str
    name: str
    rows: Mask  # [M]


def slices_of(batcher: Batcher) -> list[Slice]:
    """All slices of a split: each `by` cuts its impressions into parts; one that leaves them whole is left out."""
    cuts = [*_lengths(batcher), *_known(batcher), *_contexts(batcher), *_periods(batcher)]
    whole = {one.by for one in cuts if one.rows.all()}
    return [one for one in cuts if one.by not in whole and one.rows.any()]


def _lengths(batcher: Batcher) -> Iterator[Slice]:
    """By how many behaviours the model reads: none, in three steps to the most it takes in, and that many."""
    most, lengths = batcher.schema.max_history, batcher.end - batcher.start
    edges = sorted({0, 1, max(1, most // 5), max(1, 3 * most // 5), most, most + 1})
    for low, high in pairwise(edges):
        name = "none" if high == 1 else f"{low} (full)" if low == most else _span(low, high - 1)
        yield Slice("history", name, (low <= lengths) & (lengths < high))


def _known(batcher: Batcher) -> Iterator[Slice]:
    """By whether user and item have a row of their own or share that of the unknown."""
    schema = batcher.schema
    rows = {"item": schema.item_rows[batcher.target, 0]} | ({} if batcher.user is None else {"user": batcher.user})
    for by, row in rows.items():
        yield Slice(by, "known to the model", row != OUT_OF_VOCABULARY)
        yield Slice(by, "new to the model", row == OUT_OF_VOCABULARY)


def _contexts(batcher: Batcher) -> Iterator[Slice]:
    """By the value of each context field of the data; the rare ones are joined."""
    for field, values in batcher.impressions.context.items():
        found, counts = np.unique(values, return_counts=True)
        frequent = np.argsort(-counts, kind="stable")[:MOST]
        kept = np.sort(found[frequent[counts[frequent] >= LEAST]])
        for value in kept:
            yield Slice(f"context {field}", str(value), values == value)
        others = len(found) - len(kept)
        if others:
            yield Slice(f"context {field}", f"{others} rarer value{'s' * (others > 1)}", ~np.isin(values, kept))


def _periods(batcher: Batcher) -> Iterator[Slice]:
    """By days of 24 hours since the split's first impression, or by spans of several such days."""
    times: IntArray = batcher.impressions.timestamps_ms
    days = (times - times.min()) // DAY_MS
    width = -(-(int(days.max()) + 1) // PERIODS)
    for first in range(0, int(days.max()) + 1, width):
        yield Slice("day", _span(first + 1, first + width), (first <= days) & (days < first + width))


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def measure_slices(batcher: Batcher, scores: npt.NDArray[np.floating[Any]], *, draws: int) -> list[dict[str, Any]]:
    """What each slice holds, and metrics with 95 % intervals, or why it has none (`left_out`).

    A GAUC is null where no user has both clicks and non-clicks.
    """
    shown = batcher.impressions
    found = []
    for one in slices_of(batcher):
        users, clicks, of_slice = shown.user_ids[one.rows], shown.clicks[one.rows], scores[one.rows]
        about: dict[str, Any] = {
            "by": one.by,
            "slice": one.name,
            "impressions": len(clicks),
            "users": len(np.unique(users)),
            "click_rate": round(float(clicks.mean()), 6),
            "mean_prediction": round(float(of_slice.mean(dtype=np.float64)), 6),
        }
        reason = _left_out(clicks)
        if reason:
            found.append(about | {"left_out": reason})
            continue
        intervals = bootstrap(users, clicks, of_slice, draws=draws)
        about["metrics"] = {name: round(value, 6) for name, value in measure(users, clicks, of_slice).items()}
        about["intervals"] = {name: [round(end, 6) for end in ends] for name, ends in intervals.items()}
        found.append(about)
    return found


def _left_out(clicks: npt.NDArray[np.int8]) -> str | None:
    if len(clicks) < LEAST:
        return f"fewer than {LEAST} impressions"
    for name, count in (("clicks", int(clicks.sum())), ("non-clicks", int((clicks == 0).sum()))):
        if count < LEAST_OF_A_CLASS:
            return f"fewer than {LEAST_OF_A_CLASS} {name}"
    return None


def lines_of(slices: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The slices for a terminal; no line where there are none."""
    if not slices:
        return
    counts = f"{'impressions':>11}{'click rate':>12}{'mean prediction':>17}"
    yield f"{'by':<14}{'slice':<22}{counts}   AUC with 95 % interval"
    for one in slices:
        counts = f"{one['impressions']:>11,}{one['click_rate']:>12.4f}{one['mean_prediction']:>17.4f}"
        quality = one.get("left_out") or interval(one, "auc")
        yield f"{one['by']:<14}{one['slice']:<22}{counts}   {quality}"


def interval(one: Mapping[str, Any], metric: str) -> str:
    """A metric with its interval; `-` where it is not defined."""
    value, ends = one["metrics"][metric], one["intervals"][metric]
    if value is None or np.isnan(value):
        return "-"
    low, high = ends
    return f"{value:.4f} ({low:.4f} to {high:.4f})"
