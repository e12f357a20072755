"""The rungs: a server each, under the same requests, cores and bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadtest.capacity import parts
from loadtest.capacity.stand import Stand
from loadtest.openloop import machine
from loadtest.openloop.compare import in_turn, ratio
from loadtest.openloop.run import Bench, Run
from loadtest.openloop.table import summary
from loadtest.openloop.target import Target

HISTORY = 50  # behaviours, sent along
WIDE = 108  # hidden size before distillation


@dataclass(frozen=True, slots=True)
class Rung:
    """What is served, and how."""

    name: str
    what: str
    shared: bool  # Augur, or the plain server
    wide: bool  # a model of hidden size WIDE, or the one that is measured
    fused: bool = False  # of the plain server: its recurrences by the kernels

    def served(self, stand: Stand) -> AbstractContextManager[Target]:
        """Its server."""
        hidden = WIDE if self.wide else None
        if self.shared:
            return stand.augur(HISTORY, hidden, name=self.name)
        return stand.baseline(HISTORY, hidden, fused=self.fused, name=self.name)


RUNGS = (
    Rung("naive", f"plain server, eager PyTorch, hidden {WIDE}", shared=False, wide=True),
    Rung("kernels", "the same, recurrences by fused kernels", shared=False, wide=True, fused=True),
    Rung("shared", "Augur: shared user work and batching, too", shared=True, wide=True),
    Rung("distilled", "plain server, eager PyTorch, distilled", shared=False, wide=False),
    Rung("all", "Augur, distilled", shared=True, wide=False),
)


def climb(stand: Stand, low_rate: float) -> Iterator[dict[str, Any]]:
    """Every rung at a low rate, at its capacity, and below it; all in turn, round after round; yields all so far."""
    found = {
        "what": "the ladder: fused kernels, shared work, distillation",
        "machine": machine.describe(),  # its load is to be that before the servers
        "bound_p99_ms": stand.effort.p99_ms,
        "candidates": stand.effort.candidates,
        "history": HISTORY,
        "low_rate": low_rate,
    }
    with ExitStack() as stack:
        benches = [
            stand.bench(stack.enter_context(rung.served(stand)), stand.content(HISTORY, stored=False)) for rung in RUNGS
        ]
        rungs: list[dict[str, Any]] = [{"name": rung.name, "what": rung.what, "by_first": {}} for rung in RUNGS]
        found["rungs"] = rungs
        low = _in_turn(stand, benches, [low_rate] * len(benches))
        for rung, bench, slow in zip(rungs, benches, low, strict=True):
            rung["model"] = {name: bench.model.get(name) for name in ("name", "version", "description")}
            rung["low"] = summary(slow)
            rung["by_first"]["p50"] = ratio(_medians(slow), _medians(low[0]))
            rung["by_first"]["server_cpu_ms"] = ratio(_costs(slow), _costs(low[0]))
        yield found
        case = parts.capacity(stand, benches, HISTORY, stored=False)
        rates = [[one.rate for one in sweeps] for sweeps in case.sweeps]
        for rung, own, sweeps in zip(rungs, rates, case.sweeps, strict=True):
            rung["capacity"], rung["sweeps"] = own, [one.as_dict() for one in sweeps]
            rung["by_first"]["capacity"] = ratio(rates[0], own)
        yield found
        below = [parts.PART_OF_CAPACITY * rate for rate in case.rates]
        for rung, rate, under in zip(rungs, below, _in_turn(stand, benches, below), strict=True):
            rung["below"] = {"rate": rate, **summary(under)}
    yield found


def _in_turn(stand: Stand, benches: list[Bench], rates: list[float]) -> list[list[Run]]:
    """Runs of each server at its rate, by round; none of a server without a rate."""

    def run(bench: Bench, rate: float, number: int) -> Run | None:
        if not rate:
            return None
        stand.say(f"{bench.target.name} at {rate:.1f}/s, round {number + 1}")
        return bench.run(parts.load(stand, rate), number)

    ways = [partial(run, bench, rate) for bench, rate in zip(benches, rates, strict=True)]
    return [[one for one in runs if one] for runs in in_turn(ways, stand.effort.rounds)]


def _medians(runs: list[Run]) -> list[float | None]:
    return [run.scores.percentiles["p50"] for run in runs]


def _costs(runs: list[Run]) -> list[float | None]:
    return [run.server_cpu_ms for run in runs]
