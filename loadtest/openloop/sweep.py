"""Capacity: the greatest offered rate at which a server keeps a bound. Bisection over short runs, then confirmation.

A rate is given up after two runs that broke the bound, and those in which the client itself was late do not count, as
far as there are not too many: a machine with other tenants stops for everyone now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loadtest.openloop.run import Run

LOWEST_RATE = 0.5
HIGHEST_RATE = 200_000.0
CLOSE = 1.05  # bisection ends when the bounds are so close
STEP_DOWN = 0.95  # after a confirmation that failed; further with each
FEWEST_REQUESTS = 50  # of a run that is judged by its p99, where it can have so many in
LONGEST = 3.0  # times its usual length
LATE_PART = 0.1  # of the bound: a client that is later counts half against the server


@dataclass(frozen=True, slots=True)
class Bound:
    """What a server has to keep."""

    p99_ms: float = 50.0
    error_rate: float = 0.0  # at most; 429s are errors

    def broken(self, run: Run) -> str | None:
        """How a run broke it, or None."""
        scores = run.scores
        if scores.error_rate > self.error_rate:
            said = ", ".join(f"{count} {name}" for name, count in scores.errors.items())
            return f"errors {scores.error_rate:.2%} ({said}), at most {self.error_rate:.2%}"
        if not scores.percentiles["p99"] <= self.p99_ms:  # of no requests there is no p99, and no bound is kept
            return f"p99 {scores.percentiles['p99']:.2f} ms, at most {self.p99_ms:g} ms"
        return None


@dataclass(frozen=True, slots=True)
class Point:
    """A rate that was tried."""

    run: Run
    broken: str | None
    confirming: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"broken": self.broken, "confirming": self.confirming, **self.run.as_dict()}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a sweep found; rate 0: not even the lowest rate was kept."""

    rate: float
    points: list[Point] = field(default_factory=list)

    @property
    def at_capacity(self) -> Run | None:
        """The run that confirmed it."""
        kept = [point.run for point in self.points if point.confirming and point.broken is None]
        return kept[-1] if kept else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"capacity": self.rate, "points": [point.as_dict() for point in self.points]}


Measure = Callable[[float, bool], Run]  # at a rate, longer for a confirmation


class Sweep:
    """Looks for the capacity of one server."""

    def __init__(self, measure: Measure, bound: Bound, said: Callable[[str], None] = lambda line: None) -> None:
        self._measure, self._bound, self._said = measure, bound, said
        self._points: list[Point] = []

    def run(self, start: float) -> Capacity:
        """From a first guess."""
        kept, broke = self._bracket(start)
        while kept and broke / kept > CLOSE:
            rate = (kept * broke) ** 0.5
            kept, broke = (rate, broke) if self._keeps(rate) else (kept, rate)
        step = STEP_DOWN
        while kept >= LOWEST_RATE and not self._keeps(kept, confirming=True):
            kept, step = kept * step, step * STEP_DOWN
        return Capacity(kept if kept >= LOWEST_RATE else 0.0, self._points)

    def _bracket(self, start: float) -> tuple[float, float]:
        """A rate that is kept (0 if none is) and one that is not, a factor of two apart."""
        rate = start
        if self._keeps(rate):
            while rate < HIGHEST_RATE and self._keeps(rate * 2):
                rate *= 2
            return rate, rate * 2
        while rate / 2 >= LOWEST_RATE and not self._keeps(rate / 2):
            rate /= 2
        return (rate / 2 if rate / 2 >= LOWEST_RATE else 0.0), rate

    def _keeps(self, rate: float, confirming: bool = False) -> bool:
        broken = 0.0
        while broken < 1:
            point = self._try(rate, confirming)
            if point.broken is None:
                return True
            late = point.run.lag["p99"] > LATE_PART * self._bound.p99_ms
            broken += 0.25 if late else 0.5
        return False

    def _try(self, rate: float, confirming: bool) -> Point:
        run = self._measure(rate, confirming)
        point = Point(run, self._bound.broken(run), confirming)
        self._points.append(point)
        late = f", client late by {run.lag['p99']:.1f} ms" if run.client_late else ""
        kind, p99 = "confirm" if confirming else "try", run.scores.percentiles["p99"]
        self._said(f"  {kind} {rate:9.1f}/s: p99 {p99:8.2f} ms{late}; {point.broken or 'kept'}")
        return point


def seconds_for(rate: float, seconds: float) -> float:
    """How long a run must be to hold enough requests, within reason."""
    return min(max(seconds, FEWEST_REQUESTS / rate), LONGEST * seconds)
