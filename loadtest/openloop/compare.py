"""Two servers in turn, round after round (A B A B ...), so that what changes on the machine meets both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from loadtest.openloop.run import Run

Result = TypeVar("Result")


def in_turn(measures: Sequence[Callable[[int], Result]], rounds: int) -> list[list[Result]]:
    """The results of each by round."""
    found: list[list[Result]] = [[] for _ in measures]
    for number in range(rounds):
        for results, measure in zip(found, measures, strict=True):
            results.append(measure(number))
    return found


def ratio(firsts: Sequence[float | None], seconds: Sequence[float | None]) -> dict[str, float] | None:
    """The second's by the first's, round by round: median, least and greatest. None where a figure is missing or 0."""
    pairs = [(a, b) for a, b in zip(firsts, seconds, strict=True) if a and b]
    if len(pairs) < len(firsts) or not pairs:
        return None
    ratios = [b / a for a, b in pairs]
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}


def quantities(run: Run) -> Mapping[str, float | None]:
    """The figures of a run that are compared."""
    percentiles = {f"{name} ms": value for name, value in run.scores.percentiles.items()}
    return {**percentiles, "server CPU ms/request": run.server_cpu_ms, "achieved/s": run.scores.achieved}


def ratios(firsts: Sequence[Run], seconds: Sequence[Run]) -> dict[str, Any]:
    """Each quantity's ratio."""
    ours, theirs = [quantities(run) for run in firsts], [quantities(run) for run in seconds]
    return {name: ratio([one[name] for one in ours], [one[name] for one in theirs]) for name in ours[0]}
