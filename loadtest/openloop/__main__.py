"""`python -m loadtest.openloop`: measures a server, or two in turn, and reports."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from loadtest.openloop import machine
from loadtest.openloop.compare import in_turn, ratio, ratios
from loadtest.openloop.options import bound_of, load_of, parse
from loadtest.openloop.run import Bench, Load, Run
from loadtest.openloop.sweep import Bound, Capacity, Sweep, seconds_for
from loadtest.openloop.table import Measured, document, text
from loadtest.openloop.target import Target, TargetError
from loadtest.openloop.worker import WorkerError, Workers
from loadtest.servers import ServerError, end_on_term, own_server, wait_until_ready
from loadtest.traffic import Traffic

ENDINGS = (0, -signal.SIGTERM)  # uvicorn's own way to end is by the signal
NAMES, ALONE = ("first", "second"), "server"
TRY_PART = 1 / 3  # of --duration, for the runs of a bisection
TRY_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when a threshold was not kept or a server misbehaved, 2 for a wrong option."""
    chosen = parse(arguments)
    if chosen.report and find_spec("matplotlib") is None:
        print("loadtest.openloop: --report needs matplotlib: pip install -e '.[loadtest]'", file=sys.stderr)
        return 2
    about = machine.describe()
    try:
        with ExitStack() as stack:
            targets = _targets(chosen, stack)
            workers = stack.enter_context(Workers(chosen.workers, chosen.client_cpus or ()))
            measured, compared = measure(chosen, targets, workers)
    except (ServerError, TargetError, WorkerError) as error:
        print(f"loadtest.openloop: {error}", file=sys.stderr)
        return 1
    failures = _failures(chosen, measured)
    found = document(measured, load_of(chosen), bound_of(chosen), compared, failures, chosen.seed, about)
    report(chosen, measured, found)
    return 1 if failures else 0


def measure(
    chosen: argparse.Namespace, targets: Sequence[Target], workers: Workers
) -> tuple[list[Measured], dict[str, Any] | None]:
    """Each server's runs or sweeps, and the ratios of two."""
    load, traffic = load_of(chosen), Traffic(seed=chosen.seed)
    benches = [Bench(target, traffic, load.content, workers, chosen.seed) for target in targets]
    measured = [Measured(bench.target, bench.model) for bench in benches]
    if chosen.sweep:
        bound = bound_of(chosen) or Bound()
        swept = in_turn([partial(sweep, bench, load, bound) for bench in benches], chosen.repeats)
        for one, sweeps in zip(measured, swept, strict=True):
            one.sweeps = sweeps
        rates = [[one.rate for one in sweeps] for sweeps in swept]
        return measured, {"capacity": ratio(*rates)} if len(rates) == 2 else None
    runs = in_turn([partial(bench.run, load) for bench in benches], chosen.repeats)
    for one, mine in zip(measured, runs, strict=True):
        one.runs = mine
    return measured, ratios(*runs) if len(runs) == 2 else None


def sweep(bench: Bench, load: Load, bound: Bound, number: int = 0) -> Capacity:
    """The capacity of a server, from the load's rate on; rounds differ in their arrivals."""

    def run(rate: float, confirming: bool) -> Run:
        seconds = load.seconds if confirming else max(TRY_SECONDS, load.seconds * TRY_PART)
        warmup = load.warmup if confirming else min(load.warmup, 1.0)
        tried = dataclasses.replace(load, rate=rate, seconds=seconds_for(rate, seconds), warmup=warmup)
        return bench.run(tried, 10 * number + confirming)

    print(f"capacity of {bench.target.name}, round {number + 1}:", file=sys.stderr)
    return Sweep(run, bound, partial(print, file=sys.stderr)).run(load.rate)


def _targets(chosen: argparse.Namespace, stack: ExitStack) -> list[Target]:
    """The servers, ready."""
    pairs = [(chosen.url, chosen.serve), (chosen.compare, chosen.compare_command)]
    names = NAMES if any(pairs[1]) else (ALONE,)
    logs = Path(stack.enter_context(TemporaryDirectory()))
    found = []
    for name, (url, command) in zip(names, pairs, strict=False):
        if command:
            cpus = chosen.server_cpus or ()
            own = stack.enter_context(own_server(logs / f"{name}.log", command, cpus=cpus, endings=ENDINGS))
            found.append(Target(own.url, own.pid, name, chosen.path))
        elif url:
            wait_until_ready(url)
            found.append(Target(url, chosen.pid if name == names[0] else None, name, chosen.path))
    return found


def _failures(chosen: argparse.Namespace, measured: Sequence[Measured]) -> list[str]:
    """Which thresholds were not kept."""
    bound = bound_of(chosen)
    if bound is None:
        return []
    if chosen.sweep:
        return [f"{one.target.name}: no rate kept the bound" for one in measured if not any(s.rate for s in one.sweeps)]
    broken = [(one.target.name, bound.broken(run)) for one in measured for run in one.runs]
    return [f"{name}: {said}" for name, said in broken if said]


def report(chosen: argparse.Namespace, measured: Sequence[Measured], found: dict[str, Any]) -> None:
    """Writes what was asked for, and prints the table."""
    print(text(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    if chosen.samples:
        named = {
            f"{one.target.name}_{number}": run.samples for one in measured for number, run in enumerate(one.counted)
        }
        np.savez_compressed(chosen.samples, allow_pickle=False, **named)
    if chosen.report:
        from loadtest.openloop.pages import page  # noqa: PLC0415  # matplotlib is needed for this alone

        chosen.report.write_text(page(measured, found))


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
