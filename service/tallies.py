"""Counts and histograms that grow while requests are served; `metrics.py` shows them.

All of it is written on the event loop, so that it needs no lock: a histogram of prometheus_client takes one for each
value and looks through its buckets one by one, ten times what this costs.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.visit import VISIT

if TYPE_CHECKING:
    from service.jobs import Job, Scored

MS = 1e-3
SECONDS = tuple(
    n * MS
    for n in (
        *(0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75),
        *(100, 150, 200, 300, 500, 1000, 2500, 5000, 10_000),
    )
)
CANDIDATES = (1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 1000, 2048, 4096, 8192, 16_384)
USERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)

LAG_PERIOD = 0.1


class Tally:
    """A histogram: how many values fell between bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Adds a value; one that equals a bound is below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Tallies:
    """What one server counts besides `Batcher.counts`."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and status
        self.request_seconds: defaultdict[str, Tally] = defaultdict(lambda: Tally(SECONDS))  # by route
        self.queue_seconds, self.store_seconds, self.compute_seconds = Tally(SECONDS), Tally(SECONDS), Tally(SECONDS)
        self.batch_candidates, self.batch_users = Tally(CANDIDATES), Tally(USERS)
        self.shared_users = 0
        self.busy_seconds = 0.0  # of lanes, and of the event loop where it computes
        self.degraded: Counter[str] = Counter()  # by reason
        self.closed: Counter[str] = Counter()  # connections that the server ended, by reason
        self.loop_lag = Tally(SECONDS)
        self.longest_lag = 0.0  # since it was last shown

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests[route, status] += 1
        self.request_seconds[route].observe(seconds)

    def scored(self, job: Job, scored: Scored) -> None:
        """A job was scored: where its time went. The request it belongs to gets to know it too."""
        self.queue_seconds.observe(scored.queued)
        if scored.store:
            self.store_seconds.observe(scored.store)
        self.compute_seconds.observe(scored.computed)
        if scored.degraded is not None:
            self.degraded[scored.degraded] += 1
        visit = VISIT.get()
        if visit is not None:
            visit.scored.append((job, scored))

    def computed(self, parts: int, candidates: int, users: int, seconds: float) -> None:
        """A batch was computed."""
        self.busy_seconds += seconds
        self.batch_candidates.observe(candidates)
        self.batch_users.observe(users)
        self.shared_users += parts - users

    async def watch_loop(self) -> None:
        """Measures, without end, how late the event loop wakes who asked for it: what every request waits besides."""
        while True:
            due = time.perf_counter() + LAG_PERIOD
            await asyncio.sleep(LAG_PERIOD)
            lag = max(0.0, time.perf_counter() - due)
            self.loop_lag.observe(lag)
            self.longest_lag = max(self.longest_lag, lag)
