"""`python -m loadtest.zoo`: what each model of the zoo costs as it is served, at one rate.

The scorer's own cost of a candidate leaves out what a request costs with any model: HTTP, JSON, the batch. Here it is
in, as it is in a bill.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.capacity import parts
from loadtest.capacity.options import add_shared, stand_of
from loadtest.capacity.stand import Stand
from loadtest.capacity.words import where
from loadtest.ladder.rungs import HISTORY
from loadtest.openloop import machine
from loadtest.openloop.compare import in_turn, ratio
from loadtest.openloop.options import number
from loadtest.openloop.samples import as_json
from loadtest.openloop.table import spread, summary
from loadtest.openloop.target import TargetError
from loadtest.openloop.worker import WorkerError
from loadtest.servers import ServerError, end_on_term

MODELS = {
    "base": "BaseModel",
    "wide_deep": "Wide&Deep",
    "pnn": "PNN",
    "din": "DIN",
    "gru_attention": "GRU + attention",
    "aigru": "GRU + AIGRU",
    "agru": "GRU + AGRU",
    "augru": "GRU + AUGRU",
    "dien": "DIEN",
}
RATE = 200.0  # so many that nothing falls idle between, and the dearest still keeps up on one core
HEADER = ("", "server CPU ms", "by the first's", "computing, ms", "p50 ms", "p99 ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when a server misbehaved, 2 for a wrong option."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.zoo",
        description="What each model costs as served: fresh weights in the shape of an artifact, one server for each, "
        "measured in turn at one rate, histories sent along. AUGUR_PRECISION=fast measures that.",
    )
    add_shared(parser, Path("runs/zoo"), sweeps=False)
    parser.add_argument("--rate", type=number(0, above=True), default=RATE, help=f"requests a second ({RATE:g})")
    parser.add_argument(
        "--models",
        type=_models,
        default=list(MODELS),
        metavar="A,B",
        help="the first is what others stand beside (all)",
    )
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        with stand_of(chosen, [HISTORY]) as stand:
            found = as_json(measure(stand, chosen.models, chosen.rate))
    except (ServerError, TargetError, WorkerError) as error:
        print(f"loadtest.zoo: {error}", file=sys.stderr)
        return 1
    found["cores"] = {"servers": list(chosen.server_cpus), "client": list(chosen.client_cpus)}
    (chosen.out / "zoo.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(where(found)))
    print(table(found))
    print(f"results: {chosen.out}/zoo.json")
    return 0


def _models(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(MODELS):
        raise argparse.ArgumentTypeError(f"{text}: of {', '.join(MODELS)}")
    return names


def measure(stand: Stand, models: Sequence[str], rate: float) -> dict[str, Any]:
    """The models at this rate, in turn, round after round."""
    found = {
        "what": "models as served",
        "machine": machine.describe(),  # its load is to be that before the servers
        "candidates": stand.effort.candidates,
        "history": HISTORY,
        "rate": rate,
    }
    with ExitStack() as stack:
        targets = [stack.enter_context(stand.augur(HISTORY, model=name, name=name)) for name in models]
        benches = [stand.bench(target, stand.content(HISTORY)) for target in targets]
        load = parts.load(stand, rate)
        measured = in_turn([partial(bench.run, load) for bench in benches], stand.effort.rounds)
    costs = [[run.server_cpu_ms for run in runs] for runs in measured]
    found["models"] = [
        {
            "name": name,
            "description": bench.model["description"],
            "rounds_cpu_ms": own,
            "by_first": ratio(costs[0], own),
            **summary(runs),
        }
        for name, bench, own, runs in zip(models, benches, costs, measured, strict=True)
    ]
    return found


def table(found: dict[str, Any]) -> str:
    """The rows, in Markdown."""
    lines = [HEADER, ("---",) * len(HEADER), *rows(found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each model: medians of the rounds, of ratios also the least and the greatest."""
    cells = []
    for one in found["models"]:
        score = one["score"]
        figures = [one["server_cpu_ms"], score["compute mean"], score["p50"], score["p99"]]
        cpu, *others = (f"{figure['median']:.2f}" if figure else "-" for figure in figures)
        times = "1" if one is found["models"][0] else spread(one["by_first"])
        cells.append((MODELS[one["name"]], cpu, times, *others))
    return cells


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
