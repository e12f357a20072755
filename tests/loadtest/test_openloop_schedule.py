"""When requests are due, and what they are."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from loadtest.openloop.bodies import Bodies, Content, Served
from loadtest.openloop.schedule import (
    BEHAVIOR,
    COMPANION_MS,
    LARGE,
    PROBE,
    SCORE,
    planned,
    poisson,
    replayed,
    with_companions,
)
from loadtest.traffic import Traffic

SERVED = Served("here:80", ("tab", "hour"), ("click", "long_view"))


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic()


def body(data: bytes) -> dict[str, Any]:
    head, _, content = data.partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}".encode() in head
    found: dict[str, Any] = json.loads(content)
    return found


def test_poisson_arrivals_have_exponential_gaps() -> None:
    rate = 500.0
    times = poisson(rate, 100, np.random.default_rng(3))
    gaps = np.sort(np.diff(times))
    # Kolmogorov's statistic against the exponential law, at a level of 0.1 %.
    law = 1 - np.exp(-rate * gaps)
    places = np.arange(1, len(gaps) + 1) / len(gaps)
    assert np.abs(places - law).max() < 1.95 / np.sqrt(len(gaps))
    # Counts of a second vary as much as they are on the mean; uniform arrivals would vary by nothing.
    counts = np.bincount(times.astype(int), minlength=100)
    assert 0.6 < counts.var() / counts.mean() < 1.5
    assert 0 <= times[0] <= times[-1] < 100


def test_a_seed_is_a_schedule() -> None:
    first, again, other = (planned(100, 5, adjacency=0.3, behaviors=0.2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.times, again.times)
    assert np.array_equal(first.kinds, again.kinds)
    assert not np.array_equal(first.times[:50], other.times[:50])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_the_share_of_companions_and_the_rate(share: float) -> None:
    times, groups, follows = with_companions(1000, 60, share, COMPANION_MS / 1000, np.random.default_rng(1))
    assert np.all(np.diff(times) >= 0)
    assert follows.mean() == pytest.approx(share, abs=0.01)
    assert len(times) == pytest.approx(60_000, rel=0.05)
    assert set(Counter(groups[~follows].tolist()).values()) == {1}
    for group in np.unique(groups)[:200]:
        own = times[groups == group]
        assert not follows[groups == group][0]
        assert np.all(np.diff(own) <= COMPANION_MS / 1000)


def test_streams_beside_keep_their_own_rates() -> None:
    plan = planned(200, 50, behaviors=0.25, large_rate=2, probe_rate=10, seed=4)
    counted = np.bincount(plan.kinds, minlength=4)
    assert counted[SCORE] == pytest.approx(7500, rel=0.05)
    assert counted[BEHAVIOR] == pytest.approx(2500, rel=0.08)
    assert counted[LARGE] == pytest.approx(100, rel=0.35)
    assert counted[PROBE] == 500
    assert np.all(np.diff(plan.times) >= 0)
    assert np.allclose(np.diff(plan.times[plan.kinds == PROBE]), 0.1)


def test_a_log_is_replayed_with_its_own_gaps() -> None:
    stamps = np.array([1000, 1000, 1010, 1100, 2000, 9000])
    plan = replayed(stamps, rate=5, seconds=1)
    assert plan.times.tolist() == [0, 0, 0.01, 0.1, 1.0]
    assert not plan.companion.any()


def test_pages_of_the_log_are_in_the_order_of_time(traffic: Traffic) -> None:
    rows, times = traffic.pages(np.random.default_rng(0))
    assert len(rows) == len(times) == len(set(rows.tolist()))
    assert np.all(np.diff(times) >= 0)


def test_bodies_are_requests_of_the_log(traffic: Traffic) -> None:
    made = Bodies(traffic, SERVED, Content(candidates=30, history=12, users=20), seed=1)
    plan = planned(400, 2, adjacency=0.5, behaviors=0.1, large_rate=2, probe_rate=5)
    places = made.assign(plan)
    users: dict[int, set[str]] = {}
    for place, kind, group in zip(places, plan.kinds, plan.groups, strict=True):
        data = made.requests.data[place]
        if kind == PROBE:
            assert data == b"GET /livez HTTP/1.1\r\nhost: here:80\r\n\r\n"
            continue
        asked = body(data)
        if kind == BEHAVIOR:
            assert data.startswith(b"POST /v1/behaviors HTTP/1.1\r\n")
            assert len(asked["events"]) == 1
        elif kind == LARGE:
            assert len(asked["item_ids"]) == made.requests.expected[place] == 2048
        else:
            assert len(set(asked["item_ids"])) == made.requests.expected[place] == 30
            assert len(asked["history"]) == 12
            users.setdefault(int(group), set()).add(asked["user_id"])
    assert all(len(one) == 1 for one in users.values())
    assert len(set.union(*users.values())) == 20


def test_strangers_follow_where_companions_would(traffic: Traffic) -> None:
    plan = planned(400, 2, adjacency=0.9)
    sizes = []
    for strangers in (False, True):
        made = Bodies(traffic, SERVED, Content(users=500, strangers=strangers))
        users = [body(made.requests.data[place])["user_id"] for place in made.assign(plan)]
        group = np.bincount(plan.groups).argmax()
        sizes.append(len({user for user, own in zip(users, plan.groups, strict=True) if own == group}))
    assert sizes[0] == 1 < sizes[1]


def test_histories_are_told_to_a_store_in_order(traffic: Traffic) -> None:
    made = Bodies(traffic, SERVED, Content(stored=70, users=9))
    told = [event for data in made.to_store() for event in body(data)["events"]]
    assert Counter(event["user_id"] for event in told) == {str(traffic.user(int(row))): 70 for row in made.rows}
    row = int(made.rows[0])
    own = [event for event in told if event["user_id"] == str(traffic.user(row))]
    assert [event["item_id"] for event in own] == traffic.history(row, 70)
    assert np.all(np.diff([event["timestamp_ms"] for event in own]) > 0)
    assert all(len(body(data)["events"]) <= 500 for data in made.to_store())
    assert "history" not in body(made.requests.data[0])
    assert Bodies(traffic, SERVED, Content(users=2)).to_store() == []


def test_replayed_bodies_are_of_the_rows(traffic: Traffic) -> None:
    made = Bodies(traffic, SERVED, Content(users=1))
    rows = np.array([5, 90_000])
    for row, place in zip(rows, made.replayed(rows), strict=True):
        assert body(made.requests.data[place])["user_id"] == str(traffic.user(int(row)))


def test_a_history_ends_at_the_row_and_has_its_length(traffic: Traffic) -> None:
    for row in (0, 3, 100_000):
        items = traffic.history(row, 100)
        assert len(items) == 100
        assert items[-1] == traffic._items[row]
    assert traffic.history(5, 0) == []
