"""`GET /metrics`: what Prometheus collects. Nothing here runs before it is asked for.

docs/operations.md says what each metric means.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import logs
from service.engine import Engine, State
from service.tallies import Tally

router = APIRouter()

# Of `Batcher.counts`.
COUNTS = {
    "requests": ("augur_scored_requests", "Requests, or parts of a batch request, that were scored"),
    "candidates": ("augur_candidates", "Candidates that were computed"),
    "batches": ("augur_batches", "Batches that were computed"),
    "histories": ("augur_user_passes", "Histories whose interest states were computed, once for a batch"),
    "fetched_users": ("augur_fetched_users", "Users whose history was read from the store"),
    "shared": ("augur_shared_fetches", "Requests that rode on the fetch of another one of their user"),
    "dropped": ("augur_dropped", "Parts of requests that nobody waited for any more, dropped before they cost compute"),
    "expired": ("augur_expired", "Requests whose deadline passed"),
    "abandoned": ("augur_abandoned", "Requests whose client went away"),
    "refused": ("augur_refused", "Requests refused since the queue was full"),
}
BREAKER_STATES = ("closed", "open", "half_open")


@router.get(
    "/metrics",
    summary="Metrics, for Prometheus",
    tags=["operations"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Counts, histograms and states of this process, as docs/operations.md lists them."""
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    # Some milliseconds of writing: on another thread, so that the requests being served get their turns between.
    content = await asyncio.to_thread(encode, request.app.state.metrics)
    return Response(content, headers={"content-type": kind})


def registry(engine: Engine, version: str) -> CollectorRegistry:
    """All metrics of one application."""
    collected = CollectorRegistry()
    collected.register(EngineCollector(engine, version))
    ProcessCollector(registry=collected)
    GCCollector(registry=collected)
    return collected


class EngineCollector(Collector):
    """Reads what a running engine counted."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine, self._version = engine, version

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known without collecting."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        yield _info("augur_build", "The server", version=self._version, python=platform.python_version())
        yield from self._requests()
        yield from self._batches()
        yield from self._state()
        yield from self._models()
        yield from self._store()
        yield from self._process()

    def _requests(self) -> Iterator[Metric]:
        tallies = self._engine.batcher.tallies
        requests = CounterMetricFamily("augur_requests", "Requests by route and status", labels=["route", "code"])
        for (route, status), count in list(tallies.requests.items()):
            requests.add_metric([route, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("augur_request_seconds", "From a request's head to its end", labels=["route"])
        for route, tally in list(tallies.request_seconds.items()):
            _add(seconds, [route], tally)
        yield seconds
        yield _histogram("augur_queue_seconds", "Waiting for a lane, without the store", tallies.queue_seconds)
        yield _histogram("augur_store_seconds", "Reading the user's history", tallies.store_seconds)
        yield _histogram("augur_compute_seconds", "Computing the batches of a request", tallies.compute_seconds)
        yield _counters("augur_degraded", "Scores computed from less than is stored", "reason", tallies.degraded)
        yield _counters("augur_connections_closed", "Connections that the server ended", "reason", tallies.closed)

    def _batches(self) -> Iterator[Metric]:
        batcher = self._engine.batcher
        for key, (name, meaning) in COUNTS.items():
            yield CounterMetricFamily(name, meaning, value=batcher.counts[key])
        shared = batcher.tallies.shared_users
        yield CounterMetricFamily(
            "augur_shared_users", "Requests that rode on the user pass of another one", value=shared
        )
        yield _histogram("augur_batch_candidates", "Candidates of a batch", batcher.tallies.batch_candidates)
        yield _histogram("augur_batch_users", "Histories of a batch", batcher.tallies.batch_users)

    def _state(self) -> Iterator[Metric]:
        engine, lanes = self._engine, self._engine.batcher.lanes
        yield GaugeMetricFamily("augur_ready", "1 while requests are welcome", value=engine.state is State.READY)
        yield GaugeMetricFamily("augur_queue_candidates", "Candidates that wait", value=engine.batcher.waiting)
        most = engine.settings.queue_candidates
        yield GaugeMetricFamily("augur_queue_limit_candidates", "Candidates that may wait", value=most)
        yield GaugeMetricFamily("augur_lanes", "Batches that can be computed at a time", value=lanes.count)
        yield GaugeMetricFamily("augur_lanes_busy", "Batches that are being computed", value=lanes.busy)
        busy = engine.batcher.tallies.busy_seconds
        yield CounterMetricFamily("augur_lanes_busy_seconds", "Time that batches were being computed", value=busy)
        yield GaugeMetricFamily("augur_lane_longest_seconds", "Age of the oldest of them", value=lanes.longest())

    def _models(self) -> Iterator[Metric]:
        names = ("model", "version", "backend", "precision")
        models = GaugeMetricFamily("augur_model_info", "The models served", labels=names)
        for served in self._engine.models:
            scorer = served.scorer
            models.add_metric([served.name, served.version, scorer.backend, scorer.precision], 1)
        yield models

    def _store(self) -> Iterator[Metric]:
        # Only a store with a breaker has these.
        store: Any = self._engine.store
        counts: Mapping[str, int] | None = getattr(store, "counts", None)
        if counts is not None:
            yield _counters("augur_store_events", "What befell the behaviour store", "event", counts)
        state = getattr(store, "breaker_state", None)
        if state is not None:
            breaker = GaugeMetricFamily("augur_store_breaker", "1 for the state of the breaker", labels=["state"])
            for each in dict.fromkeys([*BREAKER_STATES, str(state)]):
                breaker.add_metric([each], each == state)
            yield breaker

    def _process(self) -> Iterator[Metric]:
        tallies = self._engine.batcher.tallies
        yield _histogram(
            "augur_loop_lag_seconds", "How late the event loop woke, ten samples a second", tallies.loop_lag
        )
        longest, tallies.longest_lag = tallies.longest_lag, 0.0
        yield GaugeMetricFamily("augur_loop_lag_longest_seconds", "The longest since the last scrape", value=longest)
        yield CounterMetricFamily("augur_log_lines_lost", "Log lines that could not be written", value=logs.lost())


def _counters(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for of, value in list(values.items()):
        family.add_metric([of], value)
    return family


def _histogram(name: str, meaning: str, tally: Tally) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=[])
    _add(family, [], tally)
    return family


def _add(family: HistogramMetricFamily, labels: list[str], tally: Tally) -> None:
    upper = [*(f"{bound:g}" for bound in tally.bounds), "+Inf"]
    family.add_metric(labels, list(zip(upper, accumulate(tally.counts), strict=True)), tally.total)


def _info(name: str, meaning: str, **labels: str) -> Metric:
    return InfoMetricFamily(name, meaning, value=labels)
