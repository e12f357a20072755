"""Metrics against scikit-learn, by hand, and by their properties."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from model.metrics import METRICS, auc, bootstrap, gauc, log_losses, measure, reliability, user_aucs

Array = npt.NDArray[Any]
ROWS = st.lists(
    st.tuples(st.integers(-2, 3), st.integers(0, 1), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60
)


def columns(rows: list[tuple[int, int, int, int]]) -> tuple[Array, Array, Array, Array]:
    """Users, clicks, scores with many ties, repetitions."""
    users, clicks, scores, times = (np.array(column) for column in zip(*rows, strict=True))
    return users, clicks, scores / 7 + 0.1, times


def made(seed: int = 0, size: int = 3000, users: int = 200) -> tuple[Array, Array, Array]:
    """Calibrated scores with ties, and clicks drawn from them."""
    generator = np.random.default_rng(seed)
    scores = np.round(generator.beta(2, 2, size), 2).clip(0.01, 0.99)
    clicks = (generator.random(size) < scores).astype(np.int8)
    return generator.integers(0, users, size), clicks, scores


def expected_auc(clicks: Array, scores: Array) -> float:
    return float(roc_auc_score(clicks, scores)) if len(set(clicks.tolist())) == 2 else math.nan


@given(ROWS)
def test_auc_is_scikit_learns(rows: list[tuple[int, int, int, int]]) -> None:
    _, clicks, scores, times = columns(rows)
    assert auc(clicks, scores) == pytest.approx(expected_auc(clicks, scores), nan_ok=True)
    repeated = expected_auc(np.repeat(clicks, times), np.repeat(scores, times))
    assert auc(clicks, scores, times) == pytest.approx(repeated, nan_ok=True)


@given(ROWS)
def test_auc_knows_order_alone(rows: list[tuple[int, int, int, int]]) -> None:
    _, clicks, scores, _ = columns(rows)
    value = auc(clicks, scores)
    assert auc(clicks, np.exp(3 * scores)) == pytest.approx(value, nan_ok=True)
    assert auc(clicks, -scores) == pytest.approx(1 - value, nan_ok=True)
    assert auc(1 - clicks, scores) == pytest.approx(1 - value, nan_ok=True)
    assert auc(clicks[::-1], scores[::-1]) == pytest.approx(value, nan_ok=True)


@given(ROWS)
def test_gauc_is_the_mean_of_users_with_both_classes(rows: list[tuple[int, int, int, int]]) -> None:
    users, clicks, scores, _ = columns(rows)
    aucs, counts = user_aucs(users, clicks, scores)
    total = weight = 0.0
    for n, user in enumerate(sorted(set(users.tolist()))):
        own = users == user
        expected = expected_auc(clicks[own], scores[own])
        assert aucs[n] == pytest.approx(expected, nan_ok=True)
        assert counts[n] == own.sum()
        if not math.isnan(expected):
            total, weight = total + own.sum() * expected, weight + own.sum()
    assert gauc(users, clicks, scores) == pytest.approx(total / weight if weight else math.nan, nan_ok=True)


@given(ROWS)
def test_log_loss_is_scikit_learns(rows: list[tuple[int, int, int, int]]) -> None:
    _, clicks, scores, _ = columns(rows)
    expected = log_loss(clicks, scores, labels=[0, 1])
    assert log_losses(clicks, scores).mean() == pytest.approx(expected)


def test_log_loss_stays_finite() -> None:
    np.testing.assert_allclose(log_losses([1, 0, 0], [0.0, 1.0, 0.0]), [-math.log(1e-7), -math.log(1e-7), 1e-7], 1e-6)
    assert log_losses([1], np.array([0.25], dtype=np.float32)) == pytest.approx([math.log(4)])


def test_one_class_alone_has_no_auc() -> None:
    assert math.isnan(auc([1, 1], [0.2, 0.3]))
    assert math.isnan(auc([0, 0], [0.2, 0.3]))
    assert math.isnan(auc([1, 0], [0.2, 0.3], [1, 0]))
    assert math.isnan(auc([], []))
    assert math.isnan(gauc([1, 1, 2], [1, 1, 0], [0.1, 0.2, 0.3]))
    assert math.isnan(gauc([], [], []))
    # A user with one class changes nothing, however many impressions they have.
    assert gauc([1, 1, 2, 2, 2], [0, 1, 1, 1, 1], [0.1, 0.2, 0.0, 0.0, 0.0]) == 1.0


def test_gauc_by_hand() -> None:
    users = [5, 5, -1, -1, -1, 5]
    clicks, scores = [1, 0, 0, 1, 1, 0], [0.5, 0.5, 0.3, 0.2, 0.4, 0.1]
    assert user_aucs(users, clicks, scores)[0].tolist() == [0.5, 0.75]  # ascending: -1, then 5
    assert gauc(users, clicks, scores) == pytest.approx((3 * 0.5 + 3 * 0.75) / 6)


def test_calibration_error_by_hand() -> None:
    clicks = [0, 1, 1, 1, 0, 0]
    scores = [0.1, 0.3, 0.6, 0.8, 0.9, 0.2]
    table = reliability(clicks, scores, bins=3)  # 0.1 0.2 | 0.3 0.6 | 0.8 0.9
    assert table.counts.tolist() == [2, 2, 2]
    np.testing.assert_allclose(table.predicted, [0.15, 0.45, 0.85])
    np.testing.assert_allclose(table.observed, [0.0, 1.0, 0.5])
    assert table.error() == pytest.approx((0.15 + 0.55 + 0.35) / 3)


def test_calibration_error_counts_repetitions() -> None:
    clicks, scores = [0, 1, 1, 1], [0.1, 0.3, 0.6, 0.8]
    table = reliability(clicks, scores, weights=[3, 1, 0, 0], bins=2)
    assert table.counts.tolist() == [4]
    np.testing.assert_allclose(table.predicted, [(3 * 0.1 + 0.3) / 4])
    np.testing.assert_allclose(table.observed, [0.25])
    both = reliability(clicks, scores, weights=[3, 1, 0, 4], bins=2)
    assert both.counts.tolist() == [4, 4]
    assert both.error() == pytest.approx((abs(0.15 - 0.25) + 0.2) / 2)


def test_a_bin_holds_equally_many_and_few_rows_fill_few_bins() -> None:
    _, clicks, scores = made(size=1003)
    table = reliability(clicks, scores)
    assert len(table.counts) == 20
    assert set(table.counts.tolist()) == {50.0, 51.0}
    assert np.all(np.diff(table.predicted) >= 0)
    assert table.counts.sum() == 1003
    few = reliability([1, 0], [0.9, 0.2])
    assert few.counts.tolist() == [1, 1]
    assert few.error() == pytest.approx((0.1 + 0.2) / 2)


def test_a_perfect_and_a_bad_calibration() -> None:
    _, clicks, scores = made(size=20000)
    assert reliability(clicks, scores).error() < 0.02
    assert reliability(clicks, np.clip(scores + 0.2, 0, 1)).error() == pytest.approx(0.19, abs=0.02)


def test_measure_gives_all_of_them() -> None:
    users, clicks, scores = made()
    metrics = measure(users, clicks, scores)
    assert tuple(metrics) == METRICS
    assert metrics["auc"] == pytest.approx(roc_auc_score(clicks, scores))
    assert metrics["log_loss"] == pytest.approx(log_loss(clicks, scores))
    assert metrics["gauc"] == gauc(users, clicks, scores)
    assert metrics["calibration_error"] == reliability(clicks, scores).error()


def test_bootstrap_intervals_hold_the_value_and_are_reproducible() -> None:
    users, clicks, scores = made()
    intervals = bootstrap(users, clicks, scores, draws=60, seed=3)
    assert tuple(intervals) == METRICS
    metrics = measure(users, clicks, scores)
    for name in ("auc", "gauc", "log_loss"):
        low, high = intervals[name]
        assert low < metrics[name] < high
        assert high - low < 0.1
    assert intervals == bootstrap(users, clicks, scores, draws=60, seed=3)
    assert intervals != bootstrap(users, clicks, scores, draws=60, seed=4)


def test_bootstrap_is_resampling_by_hand() -> None:
    """One draw: the metrics of the table in which each user stands as often as they were drawn."""
    users, clicks, scores = made(size=80, users=9)
    interval = bootstrap(users, clicks, scores, draws=1, seed=5)
    drawn = np.random.default_rng(5).integers(0, 9, 9)
    rows = np.concatenate([np.flatnonzero(users == user) for user in drawn])
    assert len(set(drawn.tolist())) < 9
    assert interval["auc"] == pytest.approx([auc(clicks[rows], scores[rows])] * 2)
    assert interval["log_loss"] == pytest.approx([log_loss(clicks[rows], scores[rows])] * 2)
    assert interval["gauc"] == pytest.approx([gauc(users[rows], clicks[rows], scores[rows])] * 2)


def test_bootstrap_resamples_users_not_rows() -> None:
    """Rows of a user that repeat each other tell nothing new: the interval must not shrink."""
    users, clicks, scores = made(size=300, users=60)
    once = bootstrap(users, clicks, scores, draws=100)
    often = bootstrap(np.tile(users, 9), np.tile(clicks, 9), np.tile(scores, 9), draws=100)
    assert often["auc"] == pytest.approx(once["auc"])
    assert often["log_loss"] == pytest.approx(once["log_loss"])


def test_bootstrap_of_more_rows_is_narrower() -> None:
    few, many = (bootstrap(*made(size=size, users=size // 10), draws=60)["auc"] for size in (400, 6400))
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_bootstrap_skips_draws_without_both_classes() -> None:
    """Four users, one of whom clicked both ways: many draws miss that one and have no GAUC."""
    users, clicks, scores = np.array([1, 1, 2, 3, 4]), np.array([1, 0, 0, 1, 1]), np.array([0.6, 0.4, 0.3, 0.7, 0.2])
    low, high = bootstrap(users, clicks, scores, draws=50)["gauc"]
    assert low == high == 1.0


def test_nothing_to_measure_is_not_a_number() -> None:
    nothing = np.zeros(0)
    assert np.isnan(reliability(nothing, nothing).error())
    one_class = bootstrap([1, 2], [1, 1], [0.5, 0.6], draws=3)
    assert np.isnan(one_class["auc"]).all()
    assert np.isnan(one_class["gauc"]).all()
    assert np.isfinite(one_class["log_loss"]).all()
