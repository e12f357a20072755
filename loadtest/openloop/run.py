"""One server under one load: a run is a warm-up and a span that counts; repeats of it have the same offered rate."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from loadtest.openloop import machine
from loadtest.openloop.bodies import Bodies, Content
from loadtest.openloop.client import Job
from loadtest.openloop.samples import Figures, Samples, figures, latencies_ms, of_each_kind, percentiles, send_lag_ms
from loadtest.openloop.schedule import COMPANION_MS, SCORE, Schedule, planned, replayed
from loadtest.openloop.target import Histogram, Target, batch_histograms, grown
from loadtest.openloop.worker import Workers
from loadtest.traffic import Traffic

LEAD_SECONDS = 0.3  # for the workers to take up their jobs
LOOKS_PER_SECOND = 2  # at the server's memory
LATE_MS = 1.0  # a client whose requests leave later than this (p99) says so


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered."""

    rate: float = 100.0
    seconds: float = 10.0
    warmup: float = 2.0
    adjacency: float = 0.0
    companion_ms: float = COMPANION_MS
    behaviors: float = 0.0
    large_rate: float = 0.0
    probe_rate: float = 0.0
    replay: bool = False
    timeout: float = 10.0
    connections: int = 1000
    content: Content = field(default_factory=Content)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a span that counts took of the machine."""

    wall: float  # seconds, until the last answer
    server_cpu: float | None  # seconds
    client_cpu: float  # seconds, of all workers
    memory: list[tuple[float, int]]  # seconds after the start, bytes resident


@dataclass(frozen=True)
class Run:
    """One run."""

    load: Load
    samples: Samples  # those due after the warm-up
    adjacency: float  # the share of scores that followed another of their user within milliseconds
    cost: Cost
    workers: int  # processes of the client
    connections: int  # opened
    waited: int  # requests that found all allowed connections busy
    batches: dict[str, Histogram]
    counters: dict[str, float]  # of the server, by how much they grew

    @cached_property
    def scores(self) -> Figures:
        """The figures of score requests."""
        return figures(self.samples, self.load.seconds)

    @cached_property
    def lag(self) -> dict[str, float]:
        """How late requests were sent, in ms."""
        return percentiles(send_lag_ms(self.samples), (50.0, 99.0, 100.0))

    @property
    def server_cpu_ms(self) -> float | None:
        """CPU time of the server for each score request that it answered; other kinds' time is in it too."""
        answered = int(((self.samples["status"] == 200) & (self.samples["kind"] == SCORE)).sum())
        cpu = self.cost.server_cpu
        return None if cpu is None or not answered else cpu * 1000 / answered

    @property
    def client_share(self) -> float:
        """What part of its cores the client used: at 1 it is the client that is measured."""
        return self.cost.client_cpu / self.cost.wall / self.workers

    @property
    def client_late(self) -> bool:
        """Whether the client itself made requests late."""
        return self.lag["p99"] > LATE_MS

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kinds = of_each_kind(self.samples, self.load.seconds)
        return {
            "rate": self.load.rate,
            "kinds": {name: asdict(each) | {"error_rate": each.error_rate} for name, each in kinds.items()},
            "adjacency": self.adjacency,
            "lag_ms": self.lag,
            "client_cpu_share": self.client_share,
            "server_cpu_ms": self.server_cpu_ms,
            "connections": self.connections,
            "waited_for_a_connection": self.waited,
            "batches": self.batches,
            "counters": self.counters,
            "memory": self.cost.memory,
        }


class Bench:
    """A server, and the bodies for it, ready to be measured at any rate."""

    def __init__(self, target: Target, traffic: Traffic, content: Content, workers: Workers, seed: int = 0) -> None:
        self.target, self.content, self.seed = target, content, seed
        self.model = target.model()
        self._traffic, self._workers = traffic, workers
        self._bodies = Bodies(traffic, target.served(), content, seed)
        for data in self._bodies.to_store():
            target.tell(data)

    @property
    def scores(self) -> list[bytes]:
        """Whole requests for scores, of all users."""
        return self._bodies.of_scores()

    def run(self, load: Load, repeat: int = 0) -> Run:
        """Measures once. Repeats differ in their arrivals; the same repeat of two servers has the same."""
        span = load.warmup + load.seconds
        schedule, places = self._plan(load, span, self.seed + 1000 * repeat)
        requests = self._bodies.requests
        before = self.target.metrics()
        begin = time.monotonic() + LEAD_SECONDS + len(requests.data) * 2e-5
        host, port = self.target.address
        self._workers.start(
            Job(
                host,
                port,
                requests.data,
                requests.expected,
                schedule.times,
                schedule.kinds,
                places,
                begin,
                load.timeout,
                load.connections,
            )
        )
        meter = _Meter(self.target.pid, self._workers.pids)
        meter.watch(begin + load.warmup, begin + span)
        outcome = self._workers.outcome()
        cost = meter.cost(begin + load.warmup)
        counted = outcome.samples["intended"] >= load.warmup
        asked = (schedule.kinds == SCORE) & (schedule.times >= load.warmup)
        after = self.target.metrics()
        return Run(
            load,
            outcome.samples[counted],
            float(schedule.companion[asked].mean()) if asked.any() else 0.0,
            cost,
            len(self._workers.pids),
            outcome.connections,
            outcome.waited,
            batch_histograms(before, after),
            grown(before, after),
        )

    def _plan(self, load: Load, span: float, seed: int) -> tuple[Schedule, np.ndarray]:
        if load.replay:
            rows, stamps = self._traffic.pages(np.random.default_rng(seed))
            schedule = replayed(stamps, load.rate, span)
            return schedule, self._bodies.replayed(rows[: len(schedule)])
        schedule = planned(
            load.rate,
            span,
            adjacency=load.adjacency,
            companion_seconds=load.companion_ms / 1000,
            behaviors=load.behaviors,
            large_rate=load.large_rate,
            probe_rate=load.probe_rate,
            seed=seed,
        )
        return schedule, self._bodies.assign(schedule)


class _Meter:
    """Looks at the processes while a run is under way."""

    def __init__(self, server: int | None, workers: list[int]) -> None:
        self._server, self._workers = server, workers
        self._first = (0.0, 0.0)
        self._memory: list[tuple[float, int]] = []

    def watch(self, begin: float, end: float) -> None:
        """From `begin`, where what counts begins, to `end`."""
        _sleep_until(begin)
        self._first = self._used()
        number = 0
        while self._server is not None and (at := begin + number / LOOKS_PER_SECOND) < end:
            _sleep_until(at)
            self._memory.append((at - begin, machine.resident_bytes(machine.tree(self._server))))
            number += 1

    def cost(self, begin: float) -> Cost:
        """From there until now."""
        server, client = self._used()
        wall = time.monotonic() - begin
        known = self._server is not None
        return Cost(wall, server - self._first[0] if known else None, client - self._first[1], self._memory)

    def _used(self) -> tuple[float, float]:
        server = machine.cpu_seconds(machine.tree(self._server)) if self._server is not None else 0.0
        return server, machine.cpu_seconds(self._workers)


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))


def pooled(runs: list[Run]) -> np.ndarray:
    """Times in ms of the scores of several runs together."""
    return np.concatenate([latencies_ms(run.samples[run.samples["kind"] == SCORE]) for run in runs])
