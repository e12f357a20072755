"""Means, deviations and t-intervals over the few seeds of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean over n seeds; deviation and 95 % interval are NaN for one seed."""

    mean: float
    deviation: float  # standard deviation, n - 1 in the denominator
    low: float
    high: float
    seeds: int

    @property
    def told_from_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean, deviation and the t-interval of the mean. Raises ValueError without a value."""
    count = len(values)
    if not count:
        raise ValueError("values=[]: at least one")
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = t_quantile(level, count - 1) * deviation / math.sqrt(count)
    return Estimate(mean, deviation, mean - half, mean + half, count)


def paired(values: dict[int, float], reference: dict[int, float]) -> Estimate | None:
    """What `values` by seed are above the `reference` of the same seeds; None where they share no seed."""
    shared = [seed for seed in values if seed in reference]
    return estimate([values[seed] - reference[seed] for seed in shared]) if shared else None


def t_quantile(level: float, freedom: int) -> float:
    """The t with P(|T| <= t) = level, for Student's T of whole degrees of freedom."""
    low, high = 0.0, 1.0
    while t_within(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def t_within(t: float, freedom: int) -> float:
    """P(|T| <= t), by the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
