"""The parts of the report: commands, what they take, and who reads their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.capacity.stand import halves
from loadtest.report import comparisons, tables
from loadtest.report.tables import Table


@dataclass(frozen=True, slots=True)
class Part:
    """One measuring command; `{out}` in it is the part's own folder."""

    name: str
    title: str
    command: tuple[str, ...]  # what Python is given
    tables: Callable[[Path], list[Table]]  # of that folder
    minutes: float  # about, on two cores
    quick: tuple[str, ...] = ()  # further options, for a short run
    quick_minutes: float = 0.2

    def arguments(self, quick: bool) -> list[str]:
        """What Python is given, `{out}` as it is."""
        return [*self.command, *(self.quick if quick else ())]

    def about(self, quick: bool) -> float:
        """Minutes that it takes."""
        return self.quick_minutes if quick else self.minutes


def _pinned() -> tuple[str, ...]:
    """As the comparisons do: some cores for the server, others for the client."""
    servers, client = (",".join(map(str, cores)) for cores in halves())
    return ("--server-cpus", servers, "--client-cpus", client) if servers else ()


OPEN_LOOP = (
    *("-m", "loadtest.openloop", "--serve", "python -m service"),
    *("--json", "{out}/openloop.json", "--report", "{out}/openloop.html"),
    *_pinned(),
)
SENT_ALONG = ("--candidates", "200", "--history-length", "50")
SHORT = ("--duration", "2", "--warmup", "0.5", "--repeats", "1")
SHORTEST = ("--duration", "1", "--warmup", "0.3", "--rounds", "1", "--users", "100")


def _adjacent(share: str) -> Part:
    """Requests of a user that come close together; the stored history is what they can share."""
    percent = f"{float(share):.0%}".rstrip("%")
    title = f"Open loop: same-user adjacency {percent} %, 200 requests/s of 50 candidates, stored histories"
    load = ("--adjacency", share, "--rate", "200", "--candidates", "50", "--stored-length", "50")
    return Part(f"adjacency-{percent}", title, (*OPEN_LOOP, *load), tables.openloop, 1, SHORT, 0.1)


PARTS = (
    Part(
        "kernels",
        "Kernels beside what else one could run",
        ("-m", "kernels.bench", "--json", "{out}/bench.json", "--plot", "{out}/bench.png"),
        tables.kernels,
        4,
        ("--cases", "headline", "--repeats", "3"),
        0.5,
    ),
    Part(
        "compiled",
        "Kernels compiled for GPUs, without one",
        ("-m", "kernels.aot", "--json", "{out}/aot.json"),
        tables.compiled,
        3,
        ("--target", "cuda:90", "--precision", "fast"),
        0.4,
    ),
    Part(
        "scorer",
        "The scorer beside the network's own forward",
        ("-m", "model.bench", "--json", "{out}/scorer.json"),
        tables.scorer,
        1,
        ("--seconds", "0.2"),
    ),
    Part(
        "reading",
        "Reading a request",
        ("tests/service/decode_bench.py", "--json", "{out}/reading.json"),
        tables.reading,
        0.2,
    ),
    Part(
        "readers",
        "Closed loop: readers of a feed, a spike of them",
        ("-m", "loadtest", "--out", "{out}"),
        tables.readers,
        2.3,
        ("--seconds", "15", "--users", "10"),
        0.5,
    ),
    Part(
        "sweep",
        "Open loop: 200 candidates, histories of 50 sent along, p99 within 50 ms",
        (*OPEN_LOOP, *SENT_ALONG, "--sweep", "--p99-ms", "50"),
        tables.openloop,
        5,
        SHORT,
        0.9,
    ),
    Part(
        "large",
        "Open loop: 2,048 candidates for one history, p99 within 80 ms, the bound of MLPerf's recommender",
        (*OPEN_LOOP, "--candidates", "2048", "--history-length", "50", "--sweep", "--p99-ms", "80", "--rate", "20"),
        tables.openloop,
        5,
        SHORT,
        0.9,
    ),
    *map(_adjacent, ("0", "0.5", "0.9")),
    Part(
        "capacity",
        "Augur beside a plain server",
        ("-m", "loadtest.capacity", "--duration", "3", "--warmup", "0.5", "--soak", "300", "--out", "{out}"),
        comparisons.capacity,
        25,
        (*SHORTEST, "--lengths", "50", "--soak", "2"),
        1.5,
    ),
    Part(
        "costs",
        "What the server costs outside the model",
        ("-m", "loadtest.capacity", "--costs", "--duration", "6", "--users", "300", "--out", "{out}"),
        comparisons.capacity,
        3,
        SHORTEST,
        0.4,
    ),
    Part(
        "ladder",
        "What kernels, shared work and a distilled model each give",
        ("-m", "loadtest.ladder", "--duration", "3", "--out", "{out}"),
        comparisons.ladder,
        15,
        SHORTEST,
        1,
    ),
    Part(
        "models",
        "What each model of the zoo costs as served",
        ("-m", "loadtest.zoo", "--duration", "4", "--rounds", "5", "--out", "{out}"),
        comparisons.zoo,
        5,
        (*SHORTEST, "--models", "base,dien"),
        0.4,
    ),
)
