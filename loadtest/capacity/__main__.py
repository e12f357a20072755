"""`python -m loadtest.capacity`: all parts of the comparison, a table, and a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtest.capacity import parts
from loadtest.capacity.options import add_shared, stand_of
from loadtest.capacity.stand import Stand
from loadtest.capacity.words import page, text
from loadtest.openloop import machine
from loadtest.openloop.options import number, whole
from loadtest.openloop.run import Bench
from loadtest.openloop.samples import as_json
from loadtest.openloop.schedule import COMPANION_MS
from loadtest.openloop.target import Target, TargetError
from loadtest.openloop.worker import WorkerError
from loadtest.servers import ServerError, end_on_term


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when a server misbehaved, 2 for a wrong option."""
    chosen = options(arguments)
    if find_spec("matplotlib") is None:
        print("loadtest.capacity: needs matplotlib: pip install -e '.[loadtest]'", file=sys.stderr)
        return 2
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        with stand_of(chosen, chosen.lengths, chosen.soak) as stand:
            found = measure(stand, chosen.costs)
    except (ServerError, TargetError, WorkerError) as error:
        print(f"loadtest.capacity: {error}", file=sys.stderr)
        return 1
    found["cores"] = {"servers": list(chosen.server_cpus), "client": list(chosen.client_cpus)}
    cases = found.pop("cases")
    found["capacity"] = {case.name: case.as_dict() for case in cases}
    found = as_json(found)
    print(text(found))
    (chosen.out / "capacity.json").write_text(json.dumps(found, indent=1) + "\n")
    (chosen.out / "capacity.html").write_text(page(found, cases))
    print(f"reports: {chosen.out}/capacity.html, capacity.json")
    return 0


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options as given, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.capacity",
        description="Augur against FastAPI and eager PyTorch: the same model, requests, machine and bound.",
    )
    add_shared(parser, Path("runs/capacity"))
    parser.add_argument("--lengths", type=whole(1, 100), nargs="+", default=[50, 100], help="of histories (50 100)")
    parser.add_argument("--costs", action="store_true", help="only what a request costs the server's processor")
    parser.add_argument("--soak", type=number(0), default=0.0, help="seconds of one long run at the end (0)")
    return parser.parse_args(arguments)


def measure(stand: Stand, only_costs: bool = False) -> dict[str, Any]:
    """Every part, or what a request costs alone."""
    found: dict[str, Any] = {"what": "augur against a plain server", "machine": machine.describe(), "cases": []}
    found["bound_p99_ms"], found["candidates"] = stand.effort.p99_ms, stand.effort.candidates
    first, *longer = stand.effort.lengths
    if only_costs:
        with stand.augur(first) as target:
            bench = stand.bench(target, stand.content(first))
            found["model"] = _about(bench)
            return found | _costs(stand, bench, first)
    with stand.augur(first) as augur, stand.baseline(first) as baseline:
        found["cases"] += _capacities(stand, (augur, baseline), first)
        found |= _details(stand, (augur, baseline), first, found["cases"][0].rates)
    for length in longer:
        with stand.augur(length) as augur, stand.baseline(length) as baseline:
            found["cases"] += _capacities(stand, (augur, baseline), length)
    return found


def _capacities(stand: Stand, targets: Sequence[Target], length: int) -> list[parts.Case]:
    """With histories sent along, and stored."""
    found = []
    for stored in (False, True):
        benches = [stand.bench(target, stand.content(length, stored=stored)) for target in targets]
        found.append(parts.capacity(stand, benches, length, stored=stored))
    return found


def _details(stand: Stand, targets: Sequence[Target], length: int, rates: Sequence[float]) -> dict[str, Any]:
    """What is measured at one length of histories, below the capacities found."""
    augur, baseline = [stand.bench(target, stand.content(length)) for target in targets]
    pairs = [(bench, rate) for bench, rate in zip((augur, baseline), rates, strict=True) if rate]
    found: dict[str, Any] = {
        "model": _about(augur),
        "below_capacity": {bench.target.name: parts.below_capacity(stand, bench, rate) for bench, rate in pairs},
    }
    found |= _costs(stand, augur, length)
    if rates[0]:
        few = stand.bench(targets[0], stand.content(length, stored=True, candidates=parts.FEW_CANDIDATES))
        found["adjacency"] = parts.adjacency(stand, augur, parts.PART_OF_CAPACITY * rates[0], COMPANION_MS)
        found["adjacency"] += parts.adjacency(stand, few, parts.FEW_RATE, 0)
        if stand.effort.soak:
            found["soak"] = parts.soak(stand, augur, rates[0])
    return found


def _about(bench: Bench) -> dict[str, Any]:
    return {name: bench.model.get(name) for name in ("name", "version", "description")}


def _costs(stand: Stand, augur: Bench, length: int) -> dict[str, Any]:
    """What a request costs the server's processor."""
    content = stand.content(length, candidates=1)
    with stand.echo() as target:
        one, echo = stand.bench(augur.target, content), stand.bench(target, content)
        return {
            "costs": parts.costs(stand, augur, one, echo),
            "outside_the_model": parts.outside_the_model(stand, augur),
            "one_candidate": parts.one_candidate(stand, one, echo),
        }


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
