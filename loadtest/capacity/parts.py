"""The parts of the comparison. Each measures on a stand and comes to a dictionary of figures."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from loadtest.capacity.closed import Spent, closed
from loadtest.capacity.stand import Stand
from loadtest.openloop.compare import in_turn, ratio
from loadtest.openloop.run import Bench, Load, Run
from loadtest.openloop.samples import figures
from loadtest.openloop.schedule import LARGE, PROBE
from loadtest.openloop.sweep import Bound, Capacity, Sweep, seconds_for
from loadtest.openloop.table import summary

PART_OF_CAPACITY = 0.7
ADJACENCIES = (0.0, 0.5, 0.9)
ALONE_RATE = 20.0  # so few that requests do not meet in a batch, and compute is each one's own
ONE_RATE = 200.0
MANY_CONNECTIONS = 16
FEW_CANDIDATES, FEW_RATE = 10, 600.0  # where what requests of a user share is most of a request
PROBE_RATE = 50.0
SETTLED = 0.2  # of a soak, before memory is looked at


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A comparison of capacities: histories of a length, sent along or stored."""

    length: int
    stored: bool
    sweeps: list[list[Capacity]]  # of each server by round

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.length} behaviours {'stored' if self.stored else 'sent along'}"

    @property
    def rates(self) -> list[float]:
        """The capacity of each server: the median of its rounds."""
        return [statistics.median(one.rate for one in sweeps) for sweeps in self.sweeps]

    def costs(self) -> list[list[float | None]]:
        """Server CPU for each request at capacity, of each server by round."""
        return [[run.server_cpu_ms if (run := one.at_capacity) else None for one in sweeps] for sweeps in self.sweeps]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rates = [[one.rate for one in sweeps] for sweeps in self.sweeps]
        costs = self.costs()
        return {
            "augur": rates[0],
            "baseline": rates[1],
            "augur_by_baseline": ratio(rates[1], rates[0]),
            "server_cpu_ms": {"augur": costs[0], "baseline": costs[1]},
            "cpu_baseline_by_augur": ratio(costs[0], costs[1]),
            "sweeps": [[one.as_dict() for one in sweeps] for sweeps in self.sweeps],
        }


def load(stand: Stand, rate: float, **settings: Any) -> Load:
    """A load of the stand's length."""
    return Load(rate=rate, seconds=seconds_for(rate, stand.effort.seconds), warmup=stand.effort.warmup, **settings)


def repeated(stand: Stand, bench: Bench, rate: float, **settings: Any) -> list[Run]:
    """Runs of every round."""
    return [bench.run(load(stand, rate, **settings), number) for number in range(stand.effort.rounds)]


def capacity(stand: Stand, benches: Sequence[Bench], length: int, *, stored: bool) -> Case:
    """The capacity of each server at the same bound, in turn."""
    starts = [stand.effort.start] * len(benches)

    def sweep(place: int, number: int) -> Capacity:
        bench = benches[place]

        def run(rate: float, confirming: bool) -> Run:
            seconds = stand.effort.seconds if confirming else stand.effort.seconds / 3
            tried = Load(rate=rate, seconds=seconds_for(rate, seconds), warmup=stand.effort.warmup)
            return bench.run(tried, 10 * number + confirming)

        where = "stored" if stored else "sent along"
        stand.say(f"capacity of {bench.target.name}, {length} behaviours {where}, round {number + 1}:")
        found = Sweep(run, Bound(stand.effort.p99_ms), stand.say).run(starts[place])
        starts[place] = found.rate or starts[place]
        return found

    return Case(length, stored, in_turn([partial(sweep, place) for place in range(len(benches))], stand.effort.rounds))


def below_capacity(stand: Stand, bench: Bench, rate: float) -> dict[str, Any]:
    """At a part of capacity: alone, and beside large requests and a probe of the event loop."""
    stand.say(f"{bench.target.name} at {PART_OF_CAPACITY:.0%} of its capacity")
    offered = PART_OF_CAPACITY * rate
    alone = repeated(stand, bench, offered)
    beside = repeated(stand, bench, offered, large_rate=1.0, probe_rate=PROBE_RATE)
    idle = repeated(stand, bench, ALONE_RATE / 20, probe_rate=PROBE_RATE)
    return {
        "rate": offered,
        "alone": summary(alone),
        "beside_large": summary(beside),
        "large_p99_ms": _of_kind(beside, LARGE),
        "stall_p99_ms": _of_kind(beside, PROBE),
        "stall_idle_p99_ms": _of_kind(idle, PROBE),
    }


def _of_kind(runs: Sequence[Run], kind: int) -> dict[str, float]:
    """The p99 and the largest of all repeats together."""
    found = figures(np.concatenate([run.samples for run in runs]), sum(run.load.seconds for run in runs), kind)
    return {"p50": found.percentiles["p50"], "p99": found.percentiles["p99"], "largest": found.largest}


def costs(stand: Stand, augur: Bench, one: Bench, echo: Bench) -> list[dict[str, Any]]:
    """What a request costs the processor on connections that are never without one, beside an echo of the same body."""
    found = []
    for bench, connections in ((augur, 1), (one, 1), (one, MANY_CONNECTIONS)):
        candidates = bench.content.candidates
        stand.say(f"{candidates} candidates on {connections} connections, against an echo")
        echoed = echo if bench is one else stand.bench(echo.target, bench.content)

        def measured(each: Bench, number: int, connections: int = connections) -> Spent:
            return closed(each, connections, stand.effort.seconds / 2, stand.effort.warmup, stand.workers.cpus)

        ways = [partial(measured, each) for each in (echoed, bench)]
        plain, own = in_turn(ways, stand.effort.rounds)
        outside = [each.outside_ms for each in own]
        found.append(
            {
                "candidates": candidates,
                "connections": connections,
                "rate": [each.rate for each in own],
                "cpu_ms": [each.cpu_ms for each in own],
                "model_ms": [each.model_ms for each in own],
                "outside_ms": outside,
                "echo_cpu_ms": [each.cpu_ms for each in plain],
                "outside_by_echo": ratio([each.cpu_ms for each in plain], outside),
            }
        )
    return found


def adjacency(stand: Stand, bench: Bench, rate: float, companion_ms: float) -> list[dict[str, Any]]:
    """What requests of one user gain from coming together: against the same arrivals of different users."""
    found = []
    strangers = stand.bench(bench.target, dataclasses.replace(bench.content, strangers=True))
    for share in ADJACENCIES:
        stand.say(f"{bench.target.name}, same-user adjacency {share:.0%} within {companion_ms:g} ms")
        ways = [
            partial(
                lambda each, number, share: each.run(
                    load(stand, rate, adjacency=share, companion_ms=companion_ms), number
                ),
                each,
                share=share,
            )
            for each in (strangers, bench)
        ]
        different, same = in_turn(ways, stand.effort.rounds)
        costs = [[run.server_cpu_ms for run in runs] for runs in (different, same)]
        found.append(
            {
                "adjacency": share,
                "companion_ms": companion_ms,
                "candidates": bench.content.candidates,
                "rate": rate,
                "companions": [run.adjacency for run in same],
                "passes": [passes(run) for run in same],
                "same": summary(same),
                "different": summary(different),
                "cpu_same_by_different": ratio(*costs),
            }
        )
    return found


def passes(run: Run) -> float | None:
    """User passes for each request, by the server's own counters."""
    requests = run.counters.get("augur_scored_requests", 0)
    return run.counters["augur_user_passes"] / requests if requests else None


def outside_the_model(stand: Stand, bench: Bench) -> dict[str, Any]:
    """Server CPU for each request, less what the server says it computed; requests one at a time."""
    stand.say(f"{bench.target.name}: cost outside the model")
    runs = repeated(stand, bench, ALONE_RATE)
    compute = [run.scores.parts.get("compute", {}).get("mean") for run in runs]
    outside = [
        None if cpu is None or spent is None else cpu - spent
        for cpu, spent in zip([run.server_cpu_ms for run in runs], compute, strict=True)
    ]
    return {"server_cpu_ms": [run.server_cpu_ms for run in runs], "compute_ms": compute, "outside_ms": outside}


def one_candidate(stand: Stand, augur: Bench, echo: Bench) -> dict[str, Any]:
    """A request of one candidate against the same body sent back."""
    stand.say("one candidate against an echo")
    runs = in_turn(
        [partial(lambda each, number: each.run(load(stand, ONE_RATE), number), each) for each in (echo, augur)],
        stand.effort.rounds,
    )
    costs = [[run.server_cpu_ms for run in mine] for mine in runs]
    return {
        "echo_cpu_ms": costs[0],
        "augur_cpu_ms": costs[1],
        "augur_by_echo": ratio(*costs),
        "echo": summary(runs[0]),
        "augur": summary(runs[1]),
    }


def soak(stand: Stand, bench: Bench, rate: float) -> dict[str, Any]:
    """One long run: errors, and how memory grows once it has settled."""
    stand.say(f"{bench.target.name}: a soak of {stand.effort.soak:g} s")
    run = bench.run(Load(rate=PART_OF_CAPACITY * rate, seconds=stand.effort.soak, warmup=stand.effort.warmup))
    memory = [(at, size / 2**20) for at, size in run.cost.memory]
    settled = [one for one in memory if one[0] >= SETTLED * stand.effort.soak]
    times, sizes = [at for at, _ in settled], [size for _, size in settled]
    slope = float(np.polyfit(times, sizes, 1)[0]) if len(settled) > 1 else float("nan")
    return {
        "seconds": stand.effort.soak,
        "summary": summary([run]),
        "errors": run.scores.errors,
        "mib_first": settled[0][1] if settled else None,
        "mib_last": settled[-1][1] if settled else None,
        "mib_per_hour": slope * 3600,
        "memory": memory,
    }
