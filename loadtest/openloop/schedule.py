"""When requests are due: Poisson arrivals, companions of the same user, streams beside them, a log's own times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCORE, BEHAVIOR, LARGE, PROBE = range(4)
KINDS = ("score", "behaviors", "large", "probe")
COMPANION_MS = 4.0  # a companion follows within

Times = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Schedule:
    """N requests in the order of time."""

    times: Times  # [N] seconds after the start, ascending
    kinds: npt.NDArray[np.int8]  # [N] places in KINDS
    groups: Places  # [N] requests of one group are of one user; of scores alone
    companion: npt.NDArray[np.bool_]  # [N] follows another of its group

    def __len__(self) -> int:
        return len(self.times)


def poisson(rate: float, seconds: float, random: np.random.Generator) -> Times:
    """Arrivals of a Poisson process over a span: their number is Poisson's, their places uniform."""
    return np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))


def with_companions(
    rate: float, seconds: float, adjacency: float, companion_seconds: float, random: np.random.Generator
) -> tuple[Times, Places, npt.NDArray[np.bool_]]:
    """Arrivals of which a share follows another of its group within milliseconds: times, groups, who follows.

    Every request is followed by one more with probability `adjacency`, so groups are of geometric size, the share of
    followers is `adjacency`, and groups arrive as a Poisson process of `rate * (1 - adjacency)`.
    """
    first = poisson(rate * (1 - adjacency), seconds, random)
    sizes = random.geometric(1 - adjacency, len(first))
    groups = np.repeat(np.arange(len(first)), sizes)
    starts = np.cumsum(sizes) - sizes
    follows = np.ones(len(groups), dtype=bool)
    follows[starts] = False
    gaps = np.where(follows, random.uniform(0, companion_seconds, len(groups)), 0)
    walked = np.cumsum(gaps)
    times = first[groups] + walked - walked[starts][groups]
    order = np.argsort(times, kind="stable")
    order = order[times[order] < seconds]
    return times[order], groups[order], follows[order]


def planned(
    rate: float,
    seconds: float,
    *,
    adjacency: float = 0,
    companion_seconds: float = COMPANION_MS / 1000,
    behaviors: float = 0,
    large_rate: float = 0,
    probe_rate: float = 0,
    seed: int = 0,
) -> Schedule:
    """Scores at `rate * (1 - behaviors)`, behaviours for the rest, and beside them large requests and probes.

    Large requests come at random, probes at a steady pace.
    """
    random = np.random.default_rng(seed)
    times, groups, follows = with_companions(rate * (1 - behaviors), seconds, adjacency, companion_seconds, random)
    others = [
        (BEHAVIOR, poisson(rate * behaviors, seconds, random)),
        (LARGE, poisson(large_rate, seconds, random)),
        (PROBE, np.arange(0, seconds, 1 / probe_rate) if probe_rate else np.zeros(0)),
    ]
    return _merged(times, groups, follows, others)


def replayed(stamps_ms: Places, rate: float, seconds: float) -> Schedule:
    """Scores at the gaps of a log's times, compressed or stretched to a mean rate; as many as the span takes."""
    wanted = min(len(stamps_ms), round(rate * seconds))
    stamps = stamps_ms[:wanted].astype(np.float64) - stamps_ms[0]
    span = max(stamps[-1], 1.0)
    return _merged(stamps / span * (wanted / rate), np.arange(wanted), np.zeros(wanted, dtype=bool), [])


def _merged(times: Times, groups: Places, follows: npt.NDArray[np.bool_], others: list[tuple[int, Times]]) -> Schedule:
    all_times = np.concatenate([times, *(one for _, one in others)])
    kinds = np.concatenate(
        [np.full(len(times), SCORE), *(np.full(len(one), kind) for kind, one in others)],
        dtype=np.int8,
        casting="unsafe",
    )
    rest = len(all_times) - len(times)
    order = np.argsort(all_times, kind="stable")
    return Schedule(
        all_times[order],
        kinds[order],
        np.concatenate([groups, np.full(rest, -1)])[order],
        np.concatenate([follows, np.zeros(rest, dtype=bool)])[order],
    )
