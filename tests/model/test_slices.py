"""Slices against an independent writing, row by row."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import STRANGER, UNKNOWN_ITEM, made_up_data

from model.batches import Batcher
from model.data import TEST
from model.features import fit_schema
from model.metrics import auc, gauc, log_losses
from model.slices import DAY_MS, LEAST, Slice, lines_of, measure_slices, slices_of


@pytest.fixture(scope="module")
def batcher() -> Batcher:
    """About 1,000 impressions; one tab is rare, and the hour is one for nearly all."""
    data = made_up_data(impressions=4000, longest=12)
    shown = data.impressions
    rare, rarely = np.arange(len(shown)) % 50 == 7, np.arange(len(shown)) % 9 == 1
    context = {"tab": np.where(rare, -5 - shown.context["tab"] % 2, shown.context["tab"] % 3), "hour": 1 * rarely}
    data = replace(data, impressions=replace(shown, context=context))
    return Batcher(data, fit_schema(data, max_history=8), TEST)


@pytest.fixture(scope="module")
def found(batcher: Batcher) -> dict[str, dict[str, Any]]:
    scores = np.random.default_rng(0).random(len(batcher)).astype(np.float32)
    return {f"{one['by']}: {one['slice']}": one for one in measure_slices(batcher, scores, draws=20)}


def test_each_cut_has_every_impression_once(batcher: Batcher) -> None:
    by: dict[str, list[Slice]] = {}
    for one in slices_of(batcher):
        by.setdefault(one.by, []).append(one)
    assert list(by) == ["history", "item", "user", "context tab", "context hour"]  # the test days are one day
    for parts in by.values():
        assert np.all(sum(one.rows.astype(int) for one in parts) == 1)
        assert all(one.rows.any() for one in parts)


def test_slices_hold_what_their_names_say(batcher: Batcher, found: dict[str, dict[str, Any]]) -> None:
    shown = batcher.impressions
    lengths = batcher.end - batcher.start
    for name, due in {
        "history: none": lengths == 0,
        "history: 1 to 3": (lengths >= 1) & (lengths <= 3),
        "history: 4 to 7": (lengths >= 4) & (lengths <= 7),
        "history: 8 (full)": lengths == 8,
        "item: new to the model": shown.item_ids == UNKNOWN_ITEM,
        "user: new to the model": shown.user_ids == STRANGER,
        "context tab: 2": shown.context["tab"] == 2,
        "context tab: 2 rarer values": shown.context["tab"] < 0,
        "context hour: 0": shown.context["hour"] == 0,
    }.items():
        one = found[name]
        assert (one["impressions"], one["users"]) == (due.sum(), len(np.unique(shown.user_ids[due])))
        assert one["click_rate"] == pytest.approx(shown.clicks[due].mean(), abs=1e-6)


def test_metrics_of_a_slice_are_those_of_its_rows(batcher: Batcher, found: dict[str, dict[str, Any]]) -> None:
    scores = np.random.default_rng(0).random(len(batcher)).astype(np.float32)
    rows = batcher.impressions.context["tab"] == 1
    users, clicks = batcher.impressions.user_ids[rows], batcher.impressions.clicks[rows]
    one = found["context tab: 1"]
    assert one["metrics"]["auc"] == pytest.approx(auc(clicks, scores[rows]), abs=1e-6)
    assert one["metrics"]["gauc"] == pytest.approx(gauc(users, clicks, scores[rows]), abs=1e-6)
    assert one["metrics"]["log_loss"] == pytest.approx(log_losses(clicks, scores[rows]).mean(), abs=1e-6)
    assert one["mean_prediction"] == pytest.approx(scores[rows].mean(), abs=1e-6)
    low, high = one["intervals"]["auc"]
    assert low < one["metrics"]["auc"] < high


def test_too_few_are_said_and_not_measured(found: dict[str, dict[str, Any]]) -> None:
    few = found["context tab: 2 rarer values"]
    assert few["impressions"] < LEAST
    assert few["left_out"] == f"fewer than {LEAST} impressions"
    assert "metrics" not in few
    told = "\n".join(lines_of(list(found.values())))
    assert f"fewer than {LEAST} impressions" in told
    low, high = found["context tab: 1"]["intervals"]["auc"]
    assert f"{found['context tab: 1']['metrics']['auc']:.4f} ({low:.4f} to {high:.4f})" in told
    assert list(lines_of([])) == []


def test_a_class_that_hardly_occurs_is_said(batcher: Batcher) -> None:
    clicks = np.where(batcher.impressions.context["tab"] == 1, 1, batcher.impressions.clicks).astype(np.int8)
    of_one_class = copy(batcher)
    of_one_class.impressions = replace(batcher.impressions, clicks=clicks)
    slices = measure_slices(of_one_class, np.full(len(clicks), 0.5, dtype=np.float32), draws=1)
    (one,) = (one for one in slices if (one["by"], one["slice"]) == ("context tab", "1"))
    assert one["left_out"] == "fewer than 20 non-clicks"
    assert one["click_rate"] == 1


@pytest.mark.parametrize(("days", "names"), [(2, ["1", "2"]), (30, [f"{n} to {n + 2}" for n in range(1, 31, 3)])])
def test_days_are_counted_from_the_first_impression(batcher: Batcher, days: int, names: list[str]) -> None:
    times = 5 + np.arange(len(batcher)) * days * DAY_MS // len(batcher)
    later = copy(batcher)
    later.impressions = replace(batcher.impressions, timestamps_ms=times)
    found = [one for one in slices_of(later) if one.by == "day"]
    assert [one.name for one in found] == names
    assert all(abs(int(one.rows.sum()) - len(batcher) / len(names)) <= 1 for one in found)
