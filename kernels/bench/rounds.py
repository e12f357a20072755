"""Checks contenders, then times them in rounds in which all take their turn.

What slows a shared machine down for a while slows all of a round, so contenders are compared within rounds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels.bench.case import Case, Size, random_case
from kernels.bench.contender import CannotRunError, Contender, Prepared

LEAST_MILLISECONDS = 2.0  # a shorter call is repeated within a round until it is timed for so long
TRIED = 3  # calls that tell how long one takes, of which the shortest counts
LEAST_ROUNDS = 3
SECONDS = 15.0  # after which a case ends, its least rounds done

Clock = Callable[[Callable[[], Tensor], int], float]
Peak = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Task:
    """One case and those who run it. The first of them is what the others are compared with."""

    size: Size
    contenders: Mapping[str, Contender]
    operation: str = "evolve"
    device: str = "cpu"

    @property
    def multiply_adds(self) -> int:
        """Of the recurrent product alone, or of the head's products."""
        size = self.size
        counts = {"gru": size.gru_multiply_adds, "head": size.head_multiply_adds, "evolve": size.evolve_multiply_adds}
        return counts[self.operation]


@dataclass(slots=True)
class Result:
    """What was found of one contender in one case."""

    task: Task
    name: str
    reason: str | None = None  # why it did not run
    largest_error: float | None = None  # None also for what is of another shape or no number
    calls: int = 0  # timed in each round
    times: list[float] = field(default_factory=list)  # ms of one call, for each round
    peaks: list[float] = field(default_factory=list)  # the machine's, in the same rounds, where it can be told

    @property
    def contender(self) -> Contender:
        """Who it was."""
        return self.task.contenders[self.name]

    @property
    def correct(self) -> bool | None:
        """None for one that did not run."""
        if self.reason is not None:
            return None
        return self.largest_error is not None and self.largest_error <= self.contender.tolerance

    @property
    def rate(self) -> float:
        """Multiply-adds of the recurrent product in a second, at the median time."""
        return self.task.multiply_adds / statistics.median(self.times) * 1e3

    def shares(self) -> tuple[float, float] | None:
        """Of the machine's peak: median of the rounds, and best time against best peak; None where it has no peak."""
        if not self.peaks or not self.times:
            return None
        rates = [self.task.multiply_adds / each * 1e3 for each in self.times]
        in_rounds = [rate / peak for rate, peak in zip(rates, self.peaks, strict=True)]
        return statistics.median(in_rounds), max(rates) / max(self.peaks)


def times_faster(one: Result, other: Result) -> tuple[float, float]:
    """How many times faster `one` is than `other`: median of the rounds' ratios, and ratio of the least times."""
    ratios = [theirs / mine for mine, theirs in zip(one.times, other.times, strict=True)]
    return statistics.median(ratios), min(other.times) / min(one.times)


def wall(call: Callable[[], Tensor], calls: int) -> float:
    """Milliseconds of one of so many calls."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) * 1e3 / calls


def device_events(call: Callable[[], Tensor], calls: int) -> float:
    """The same by the GPU's own clock, from an idle GPU to the end of the last call: gaps between launches count."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / calls


def measure(task: Task, repeats: int, peak: Peak | None = None) -> list[Result]:
    """Every contender checked and, when none is wrong, timed."""
    case = random_case(task.size).to(task.device)
    results, ready = _check(task, case)
    if all(result.correct is not False for result in results):
        _time([result for result in results if result.name in ready], ready, repeats, peak)
    return results


def largest_error(got: Tensor, due: Tensor) -> float | None:
    """The largest absolute difference; None for another shape or what is not a number."""
    if got.shape != due.shape or not bool(torch.isfinite(got).all()):
        return None
    return float((got.double() - due).abs().max()) if got.numel() else 0.0


def _check(task: Task, case: Case) -> tuple[list[Result], dict[str, Prepared]]:
    truths: dict[Any, Tensor] = {}
    results, ready = [], {}
    for name, contender in task.contenders.items():
        result = Result(task, name)
        results.append(result)
        try:
            prepared = contender.prepare(case)
        except CannotRunError as reason:
            result.reason = str(reason)
            continue
        if contender.due not in truths:
            truths[contender.due] = contender.due(case)
        result.largest_error = _error(prepared, truths[contender.due])
        ready[name] = prepared
    return results, ready


def _error(prepared: Prepared, due: Tensor) -> float | None:
    with prepared.around():
        timed = prepared.call()
        got = timed if prepared.checked is None else prepared.checked()
    sound = len(timed) == len(due) and bool(torch.isfinite(timed).all())
    return largest_error(got, due) if sound else None


def _time(results: Sequence[Result], ready: Mapping[str, Prepared], repeats: int, peak: Peak | None) -> None:
    """Fills in the times. Rounds start with another contender each time."""
    if not results:
        return
    clock = wall if results[0].task.device == "cpu" else device_events
    for result in results:
        result.calls = _calls(ready[result.name], clock)
    begin = time.perf_counter()
    for turn in range(repeats):
        if turn >= LEAST_ROUNDS and time.perf_counter() - begin > SECONDS:
            break
        first = turn % len(results)
        for result in (*results[first:], *results[:first]):
            result.times.append(_timed(ready[result.name], clock, result.calls))
        _add_peaks(results, peak)


def _add_peaks(results: Sequence[Result], peak: Peak | None) -> None:
    ours = [result for result in results if result.contender.ours and result.contender.threads]
    if peak is not None:
        found = {number: peak(number) for number in {result.contender.threads or 1 for result in ours}}
        for result in ours:
            result.peaks.append(found[result.contender.threads or 1])


def _calls(prepared: Prepared, clock: Clock) -> int:
    """How many calls take long enough; what is compiled or tuned at the first calls is so before any are timed."""
    with prepared.around():
        prepared.call()
        least = min(clock(prepared.call, 1) for _ in range(TRIED))
        return max(1, math.ceil(LEAST_MILLISECONDS / max(least, 1e-4)))


def _timed(prepared: Prepared, clock: Clock, calls: int) -> float:
    with prepared.around():
        prepared.call()  # brings its data and the processor's clock back from what ran before it
        return clock(prepared.call, calls)
