"""What became of each request, and what a run's figures are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.openloop.schedule import KINDS, SCORE

# One request. Seconds after the start; parts of the server's own time in ms, NaN where it does not say.
SAMPLE = np.dtype(
    [
        ("kind", np.int8),
        ("intended", np.float64),  # when it was due
        ("sent", np.float64),  # when its bytes were given to the socket; NaN: never
        ("done", np.float64),  # when its answer was whole, or it was given up
        ("status", np.int16),  # of HTTP, or one of those below
        ("degraded", np.bool_),
        ("queue", np.float32),
        ("store", np.float32),
        ("compute", np.float32),
    ]
)
NO_CONNECTION, TIMED_OUT, WRONG_ANSWER = 0, 1, 2
FAILURES = {NO_CONNECTION: "connection", TIMED_OUT: "timeout", WRONG_ANSWER: "wrong answer"}
PARTS = ("queue", "store", "compute")
PERCENTILES = (50.0, 95.0, 99.0, 99.9)

Samples = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one kind of request in one run; times in ms from when a request was due."""

    offered: float  # requests a second that were due
    achieved: float  # requests a second that were answered with 200
    requests: int
    percentiles: dict[str, float]
    mean: float
    largest: float
    errors: dict[str, int]
    degraded: int
    parts: dict[str, dict[str, float]]  # of the server's own time: median and p99 of each part

    @property
    def error_rate(self) -> float:
        """Failed requests, 429s among them, by all."""
        return sum(self.errors.values()) / self.requests if self.requests else 0.0


def latencies_ms(samples: Samples) -> npt.NDArray[np.float64]:
    """Times from when each was due: of what was answered with 200, and of what timed out, which took longer still."""
    counted = samples[(samples["status"] == 200) | (samples["status"] == TIMED_OUT)]
    return np.asarray((counted["done"] - counted["intended"]) * 1000, dtype=np.float64)


def figures(samples: Samples, seconds: float, kind: int = SCORE) -> Figures:
    """The figures of those samples that are of a kind, due within a span of `seconds`."""
    mine = samples[samples["kind"] == kind]
    times = latencies_ms(mine)
    return Figures(
        offered=len(mine) / seconds,
        achieved=int((mine["status"] == 200).sum()) / seconds,
        requests=len(mine),
        percentiles=percentiles(times),
        mean=float(times.mean()) if len(times) else float("nan"),
        largest=float(times.max()) if len(times) else float("nan"),
        errors=dict(Counter(name_of(int(status)) for status in mine["status"] if status != 200)),
        degraded=int(mine["degraded"].sum()),
        parts=_parts(mine),
    )


def percentiles(times: npt.NDArray[np.float64], wanted: Sequence[float] = PERCENTILES) -> dict[str, float]:
    """`p50`, ...: the smallest sample that so many do not exceed; NaN of none. Nothing is made up between samples."""
    ascending = np.sort(times)
    # The small term is for products such as 0.999 * 1000, which are not whole in binary.
    places = [max(0, math.ceil(each / 100 * len(ascending) - 1e-6) - 1) for each in wanted]
    return {
        f"p{each:g}": float(ascending[place]) if len(ascending) else math.nan
        for each, place in zip(wanted, places, strict=True)
    }


def name_of(status: int) -> str:
    """A status as a report names it."""
    return FAILURES.get(status, str(status))


def send_lag_ms(samples: Samples) -> npt.NDArray[np.float64]:
    """How late each request was sent, which is the client's doing, or its connection limit's."""
    sent = samples[~np.isnan(samples["sent"])]
    return np.asarray((sent["sent"] - sent["intended"]) * 1000, dtype=np.float64)


def of_each_kind(samples: Samples, seconds: float) -> dict[str, Figures]:
    """Figures by kind, of the kinds that there are."""
    return {name: figures(samples, seconds, kind) for kind, name in enumerate(KINDS) if (samples["kind"] == kind).any()}


def _parts(samples: Samples) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for part in PARTS:
        stated = samples[part][~np.isnan(samples[part])]
        if len(stated):
            found[part] = {"mean": float(stated.mean()), **percentiles(stated.astype(np.float64), (50.0, 99.0))}
    return found


def as_json(value: Any) -> Any:
    """For JSON: NaN, which it does not have, becomes null."""
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
