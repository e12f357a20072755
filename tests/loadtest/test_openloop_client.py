"""The client against servers that stall, fail, close and lie; figures from what it noted."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
import uvloop
from toy_server import toy_server

from loadtest.openloop.alarm import Alarm
from loadtest.openloop.client import Client, Job, Outcome
from loadtest.openloop.samples import (
    SAMPLE,
    TIMED_OUT,
    as_json,
    figures,
    latencies_ms,
    of_each_kind,
    percentiles,
    send_lag_ms,
)
from loadtest.openloop.schedule import PROBE, SCORE
from loadtest.openloop.worker import WorkerError, Workers

DATA = b'POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 21\r\n\r\n{"item_ids": [1,2,3]}'


def job(url: str, times: npt.ArrayLike, **settings: Any) -> Job:
    address = urlsplit(url)
    assert address.hostname
    at = np.array(times, dtype=np.float64)
    none = np.zeros(len(at), dtype=np.int64)
    begin = time.monotonic() + 0.05
    ready = Job(address.hostname, address.port or 0, [DATA], [3], at, none.astype(np.int8), none, begin)
    return replace(ready, **settings)


def run(url: str, times: npt.ArrayLike, **settings: Any) -> Outcome:
    async def whole() -> Outcome:
        return await Client(job(url, times, **settings)).run()

    return uvloop.run(whole())


def test_latency_counts_from_the_intended_time_when_a_server_stalls() -> None:
    """A closed loop would see one slow request; open-loop users saw every one that came within the stall."""
    times = np.arange(0, 2, 0.01)
    with toy_server(stall_at=50, stall_ms=600) as (toy, url):
        samples = run(url, times).samples
        arrived = np.array([at for at, _, _ in toy.seen])
    assert (samples["status"] == 200).all()
    took = latencies_ms(samples)
    in_stall = (times > 0.51) & (times < 1.05)
    # Each waits for the rest of the stall: the later it was due the less.
    rest = (0.49 + 0.6 - times[in_stall]) * 1000
    assert np.abs(took[in_stall] - rest).max() < 150
    assert 50 <= (took > 60).sum() <= 90
    assert np.median(took) < 60
    # They were sent all the same, while nothing was answered.
    assert ((arrived > arrived[49]) & (arrived < arrived[49] + 0.55)).sum() > 40
    assert percentiles(send_lag_ms(samples))["p50"] < 20


def test_with_one_connection_requests_wait_and_the_wait_counts() -> None:
    with toy_server(service_ms=50) as (toy, url):
        outcome = run(url, [0.0, 0.001, 0.002], connections=1)
    assert toy.connections == outcome.connections == 1
    assert outcome.waited == 2
    assert np.all(latencies_ms(outcome.samples) > [48, 98, 147])
    assert np.all(send_lag_ms(outcome.samples)[1:] > [45, 95])


def test_connections_are_kept_and_opened_when_all_are_busy() -> None:
    with toy_server(service_ms=1) as (toy, url):
        run(url, np.arange(0, 0.4, 0.02))
        assert toy.connections < len(toy.seen)  # few, on a machine that keeps up
    with toy_server(stall_at=1, stall_ms=200) as (toy, url):
        assert run(url, [0, 0.01, 0.02, 0.03]).connections == toy.connections == 4


def test_a_server_that_closes_after_each_answer_is_no_error() -> None:
    with toy_server(close=True) as (toy, url):
        samples = run(url, [0, 0.03, 0.06, 0.09]).samples
    assert (samples["status"] == 200).all()
    assert toy.connections == 4


@pytest.mark.parametrize(
    ("settings", "errors"),
    [
        ({"hang_up": True}, {"connection": 4}),
        ({"garbage": True}, {"connection": 4}),
        ({"silent": True}, {"timeout": 4}),
        ({"status": 429}, {"429": 2}),
        ({"wrong": True}, {"wrong answer": 1}),
    ],
)
def test_failures_are_named(settings: dict[str, Any], errors: dict[str, int]) -> None:
    with toy_server(**settings) as (_, url):
        samples = run(url, [0, 0.05, 0.1, 0.15], timeout=0.2).samples
    found = figures(samples, 1)
    assert found.errors == errors
    assert found.error_rate == sum(errors.values()) / 4
    assert found.achieved == 4 - sum(errors.values())


def test_what_times_out_counts_with_what_it_waited() -> None:
    with toy_server(silent=True) as (_, url):
        samples = run(url, [0, 0.01, 0.02], timeout=0.15, connections=1).samples
    assert (samples["status"] == TIMED_OUT).all()
    assert np.isnan(samples["sent"]).any()
    assert np.all(latencies_ms(samples) >= 149)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    samples = run(f"http://127.0.0.1:{port}", [0, 0.01, 0.02], connections=1, timeout=2).samples
    assert figures(samples, 1).errors == {"connection": 3}


def test_a_server_that_stops_and_takes_its_connections_along() -> None:
    with toy_server(hang_up=True) as (_, url):
        samples = run(url, [0, 0.001, 0.002], connections=1, timeout=2).samples
    assert figures(samples, 1).errors == {"connection": 3}


def test_parts_of_the_servers_time_and_degradation() -> None:
    timing = 'queue;desc="x";dur=0.25, compute;dur=1.5'
    with toy_server(timing=timing, degraded=True) as (_, url):
        found = figures(run(url, [0, 0.01, 0.02]).samples, 1)
    assert found.degraded == 3
    assert found.parts == {
        "queue": {"mean": 0.25, "p50": 0.25, "p99": 0.25},
        "compute": {"mean": 1.5, "p50": 1.5, "p99": 1.5},
    }


def test_no_requests() -> None:
    assert len(run("http://127.0.0.1:1", []).samples) == 0


def test_an_alarm_rings_within_its_millisecond() -> None:
    async def late() -> list[float]:
        rung: list[float] = []
        with Alarm(asyncio.get_running_loop(), lambda: rung.append(time.monotonic())) as alarm:
            for _ in range(20):
                due = time.monotonic() + 0.0034
                alarm.set(due)
                await asyncio.sleep(0.015)
                rung[-1] -= due
            alarm.set(0)
            await asyncio.sleep(0.01)
        return rung

    rung = uvloop.run(late())
    assert len(rung) == 21
    assert min(rung[:20]) >= 0
    assert np.median(rung[:20]) < 0.001


def test_percentiles_are_samples() -> None:
    assert percentiles(np.arange(1, 1001, dtype=float)) == {"p50": 500, "p95": 950, "p99": 990, "p99.9": 999}
    assert percentiles(np.array([7.0, 3.0])) == {"p50": 3, "p95": 7, "p99": 7, "p99.9": 7}
    assert all(np.isnan(value) for value in percentiles(np.zeros(0)).values())
    assert as_json({"a": [float("nan"), 1.5, (float("inf"),)], "b": "x"}) == {"a": [None, 1.5, [None]], "b": "x"}


def test_figures_are_of_one_kind() -> None:
    samples = np.zeros(4, dtype=SAMPLE)
    samples["kind"] = [SCORE, SCORE, PROBE, SCORE]
    samples["status"] = [200, 429, 200, 200]
    samples["intended"], samples["done"] = [0, 1, 2, 3], [0.5, 9, 2.1, 4]
    for part in ("sent", "queue", "store", "compute"):
        samples[part] = np.nan
    found = of_each_kind(samples, 2)
    assert list(found) == ["score", "probe"]
    assert (found["score"].offered, found["score"].achieved, found["score"].requests) == (1.5, 1.0, 3)
    assert (found["score"].mean, found["score"].largest, found["score"].error_rate) == (750, 1000, 1 / 3)
    assert found["probe"].percentiles["p99"] == pytest.approx(100)
    nothing = figures(samples, 2, kind=1)
    assert nothing.error_rate == 0
    assert np.isnan(nothing.mean)


def test_workers_share_a_job() -> None:
    times = np.arange(0, 0.3, 0.005)
    with toy_server() as (toy, url), Workers(2) as workers:
        for _ in range(2):
            mine = job(url, times)
            workers.start(replace(mine, begin=time.monotonic() + 1.0))
            outcome = workers.outcome()
            assert outcome.samples["intended"].tolist() == times.tolist()
            assert (outcome.samples["status"] == 200).all()
    assert len(toy.seen) == 2 * len(times)
    assert toy.connections >= 4


def test_a_worker_that_dies() -> None:
    with Workers(1) as workers:
        workers._processes[0].kill()
        workers._processes[0].wait()
        with pytest.raises(WorkerError, match="ended"):
            workers.start(job("http://127.0.0.1:1", np.zeros(1)))
        with pytest.raises(WorkerError, match="status -9"):
            workers.outcome()
