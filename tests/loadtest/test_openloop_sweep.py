"""Capacity and comparison, from runs whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtest.openloop.compare import in_turn, ratio, ratios
from loadtest.openloop.run import Cost, Load, Run
from loadtest.openloop.samples import SAMPLE
from loadtest.openloop.schedule import BEHAVIOR
from loadtest.openloop.sweep import Bound, Sweep, seconds_for
from loadtest.openloop.table import Measured, remarks
from loadtest.openloop.target import Target, batch_histograms


def a_run(rate: float, ms: float, status: int = 200, late_ms: float = 0.0, cpu: float | None = 1.0) -> Run:
    """A hundred requests, each of the same latency, a part of them perhaps failed."""
    samples = np.zeros(100, dtype=SAMPLE)
    samples["intended"] = np.arange(100) / 100
    samples["sent"] = samples["intended"] + late_ms / 1000
    samples["done"] = samples["intended"] + ms / 1000
    samples["status"] = 200
    samples["status"][:1] = status
    for part in ("queue", "store", "compute"):
        samples[part] = np.nan
    return Run(Load(rate, 1.0), samples, 0.0, Cost(1.0, cpu, 0.9, []), 1, 1, 0, {}, {})


@pytest.mark.parametrize("start", [1, 100, 9000])
def test_a_sweep_finds_a_known_capacity(start: float) -> None:
    def measure(rate: float, confirming: bool) -> Run:
        return a_run(rate, 10.0 if rate <= 737 else 90.0)

    found = Sweep(measure, Bound(50)).run(start)
    assert 737 / 1.05 <= found.rate <= 737
    assert found.at_capacity is not None
    assert found.points[-1].confirming
    assert found.at_capacity.load.rate == found.rate == found.as_dict()["capacity"]


def test_errors_break_a_bound_as_lateness_does() -> None:
    def measure(rate: float, confirming: bool) -> Run:
        return a_run(rate, 10.0, status=429 if rate > 100 else 200)

    said: list[str] = []
    found = Sweep(measure, Bound(50), said.append).run(20)
    assert 95 <= found.rate <= 100
    assert any("errors 1.00% (1 429), at most 0.00%" in line for line in said)
    assert Bound(50, error_rate=0.01).broken(a_run(1, 10.0, status=429)) is None


def test_a_confirmation_that_fails_goes_down() -> None:
    def measure(rate: float, confirming: bool) -> Run:
        return a_run(rate, 10.0 if rate <= (80 if confirming else 100) else 90.0)

    found = Sweep(measure, Bound(50)).run(100)
    assert 68 <= found.rate <= 80


def test_one_bad_run_does_not_break_a_rate() -> None:
    tried: list[float] = []

    def measure(rate: float, confirming: bool) -> Run:
        tried.append(rate)
        return a_run(rate, 90.0 if rate > 400 or tried.count(rate) == 1 else 10.0)

    assert Sweep(measure, Bound(50)).run(100).rate > 380


def test_runs_of_a_late_client_count_half() -> None:
    tried: list[float] = []

    def measure(rate: float, confirming: bool) -> Run:
        tried.append(rate)
        return a_run(rate, 90.0, late_ms=20.0)

    found = Sweep(measure, Bound(50)).run(1.5)
    assert found.rate == 0
    assert found.at_capacity is None
    assert tried[:5] == [1.5] * 4 + [0.75]


def test_nothing_is_no_capacity() -> None:
    nothing = a_run(1, 10.0)
    empty = Run(nothing.load, nothing.samples[:0], 0.0, nothing.cost, 1, 0, 0, {}, {})
    assert Bound(50).broken(empty) == "p99 nan ms, at most 50 ms"
    assert empty.server_cpu_ms is None


def test_runs_are_long_enough_for_their_rate() -> None:
    assert [seconds_for(rate, 5.0) for rate in (1000, 8, 0.5)] == [5.0, 6.25, 15.0]


def test_servers_are_measured_in_turn() -> None:
    order: list[str] = []

    def of(name: str, number: int) -> str:
        order.append(f"{name}{number}")
        return order[-1]

    assert in_turn([lambda n: of("a", n), lambda n: of("b", n)], 2) == [["a0", "a1"], ["b0", "b1"]]
    assert order == ["a0", "b0", "a1", "b1"]


def test_ratios_are_of_rounds() -> None:
    assert ratio([1, 2, 4], [2, 2, 12]) == {"median": 2, "least": 1, "greatest": 3}
    assert ratio([1, None], [1, 1]) is None
    assert ratio([1, 0.0], [1, 1]) is None
    found = ratios([a_run(10, 10.0), a_run(10, 20.0)], [a_run(10, 30.0, cpu=None), a_run(10, 40.0)])
    assert found["p99 ms"]["median"] == pytest.approx(2.5)
    assert found["server CPU ms/request"] is None
    assert found["achieved/s"]["median"] == 1


def test_what_a_reader_has_to_know() -> None:
    late = Measured(Target("http://127.0.0.1:1", name="a"), {}, [a_run(10, 10.0, late_ms=5.0)] * 2)
    said = remarks([late])
    assert said == [
        "client and server share the machine",
        "a: the client sent late (p99 5.0 ms); latencies include it",
        "a: the client was short of CPU; use more --workers or another machine",
        "a: 2 repeats; fewer than three say little",
    ]
    elsewhere = Measured(Target("http://192.0.2.1:80", name="b"), {}, [a_run(10, 10.0)] * 3)
    assert "client and server share the machine" not in remarks([elsewhere])
    assert not Target("http://no.such.host.invalid", name="c").same_machine


def test_an_address_of_ipv6_is_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "model", lambda self: {})
    served = Target("http://[::1]:81").served()
    assert (served.host, served.checked) == ("[::1]:81", False)
    assert Target("http://[::1]:81").address == ("::1", 81)


def test_histograms_of_batches_between_two_looks() -> None:
    def look(*counts: float) -> dict[str, list[tuple[dict[str, str], float]]]:
        bounds = ("+Inf", "8", "64")
        lines = [({"le": bound}, count) for bound, count in zip(bounds, counts, strict=True)]
        return {
            "augur_batch_users_bucket": lines,
            "augur_request_seconds_bucket": lines,
            "augur_batch_users_sum": lines,
        }

    assert batch_histograms(look(10, 5, 7), look(30, 10, 27)) == {"augur_batch_users": {"8": 5, "64": 15, "+Inf": 0}}
    assert batch_histograms({}, look(3, 1, 2)) == {"augur_batch_users": {"8": 1, "64": 1, "+Inf": 1}}


def test_cpu_of_a_server_is_of_each_score_it_answered() -> None:
    run = a_run(10, 10.0, status=429, cpu=0.5)
    run.samples["kind"][-9:] = BEHAVIOR
    assert run.server_cpu_ms == pytest.approx(500 / 90)


def test_the_spread_leaves_out_what_is_not_known() -> None:
    run = a_run(10, 10.0, cpu=None)
    assert run.as_dict()["server_cpu_ms"] is None
    assert math.isclose(run.client_share, 0.9)
