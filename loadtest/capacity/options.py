"""The options that measurements on a stand share, and the stand that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest.capacity.stand import BUNDLED, Effort, Stand, halves
from loadtest.openloop.options import cores, number, whole
from loadtest.openloop.worker import Workers
from loadtest.traffic import Traffic


def add_shared(parser: argparse.ArgumentParser, out: Path, *, sweeps: bool = True) -> None:
    """Options of all that is measured on a stand, with `sweeps` those of capacity; reports go to `out` unless told."""
    servers, client = halves()
    if sweeps:
        parser.add_argument("--p99-ms", type=number(0, above=True), default=Effort().p99_ms, help="the bound (100)")
        parser.add_argument("--start-rate", type=number(0, above=True), default=Effort().start, help="tried first (20)")
    else:
        parser.set_defaults(p99_ms=Effort().p99_ms, start_rate=Effort().start)
    parser.add_argument("--duration", type=number(0, above=True), default=Effort().seconds, help="of a run, s (8)")
    parser.add_argument("--warmup", type=number(0), default=Effort().warmup, help="before each run, s (1)")
    parser.add_argument("--rounds", type=whole(1), default=Effort().rounds, help="of everything, in turn (3)")
    parser.add_argument("--candidates", type=whole(1), default=Effort().candidates, help="of a request (200)")
    parser.add_argument("--users", type=whole(1), default=Effort().users, help="different users (500)")
    parser.add_argument("--model", type=Path, default=BUNDLED, help="artifact that is served (the bundled one)")
    parser.add_argument("--server-cpus", type=cores, default=servers, metavar="N,...", help=f"({_said(servers)})")
    parser.add_argument("--client-cpus", type=cores, default=client, metavar="N,...", help=f"({_said(client)})")
    parser.add_argument("--out", type=Path, default=out, help=f"folder of the reports ({out})")


@contextmanager
def stand_of(chosen: argparse.Namespace, lengths: Sequence[int], soak: float = 0.0) -> Iterator[Stand]:
    """The stand of these options; its models and logs go with it."""
    effort = Effort(
        chosen.p99_ms,
        chosen.duration,
        chosen.warmup,
        chosen.rounds,
        tuple(lengths),
        chosen.candidates,
        chosen.users,
        start=chosen.start_rate,
        soak=soak,
    )
    with ExitStack() as stack:
        workers = stack.enter_context(Workers(1, chosen.client_cpus))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        yield Stand(folder, effort, Traffic(), workers, chosen.model, chosen.server_cpus)


def _said(cpus: Sequence[int]) -> str:
    return ",".join(map(str, cpus)) or "any"
