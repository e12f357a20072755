"""`python -m model.bench`: the whole scorer against the network's own forward, checked first and then timed."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from model.artifact import Artifact, load_artifact
from model.embeddings import Inputs
from model.scorer import ScoreInput, Scorer, Scores
from model.zoo import Network

BUNDLED = Path(__file__).with_name("artifacts") / "kuairand"
TOLERANCE = 1e-5
SECONDS = 2.0  # of each contender in each case


class Case(NamedTuple):
    """Requests of different users, all alike."""

    requests: int
    candidates: int
    steps: int


CASES = [
    *(Case(1, candidates, 50) for candidates in (1, 20, 50, 200, 1000)),
    *(Case(1, 200, steps) for steps in (0, 10, 20)),
    *(Case(requests, 200, 50) for requests in (2, 10)),
    Case(50, 20, 50),
]


def random_requests(artifact: Artifact, case: Case) -> list[ScoreInput]:
    """Known items, actions and values, as arrays; always the same for a case."""
    random, schema = np.random.default_rng(0), artifact.schema
    ids = schema.catalogue.ids
    return [
        ScoreInput(
            item_ids=random.choice(ids, case.candidates),
            history=random.choice(ids, case.steps),
            actions=random.integers(0, len(schema.actions), case.steps) if schema.actions else None,
            context={name: int(random.choice(schema.vocabularies[name].ids)) for name in schema.context_fields},
            user_id=int(random.choice(schema.vocabularies["user_id"].ids)) if schema.uses_user_id else None,
        )
        for _ in range(case.requests)
    ]


def padded(artifact: Artifact, requests: Sequence[ScoreInput]) -> Inputs:
    """The network's own input: a row with its history for each candidate."""
    schema, counts = artifact.schema, [len(one.item_ids) for one in requests]

    def repeated(rows: Sequence[Any]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.stack([np.asarray(row, dtype=np.int64) for row in rows]), counts, axis=0))

    def steps(rows: Any) -> Any:
        return np.append(rows, 0) if not len(rows) else rows  # the network wants one step, if only to mask it

    fields = schema.context_fields
    contexts = [np.array([schema.vocabularies[name].rows(one.context[name]) for name in fields]) for one in requests]
    users = [schema.vocabularies["user_id"].rows(one.user_id or 0) if schema.uses_user_id else 0 for one in requests]
    actions = [np.zeros(len(one.history)) if one.actions is None else np.asarray(one.actions) + 1 for one in requests]
    return Inputs(
        user=repeated(users),
        context=repeated(contexts),
        target=torch.from_numpy(np.concatenate([schema.catalogue.rows(one.item_ids) for one in requests])),
        history=repeated([steps(schema.catalogue.rows(one.history)) for one in requests]),
        actions=repeated([steps(each) for each in actions]),
        lengths=repeated([len(one.history) for one in requests]),
    )


def forward(model: Network, inputs: Inputs) -> Scores:
    """What one serves first: the trained network in eager torch."""
    with torch.inference_mode():
        return torch.sigmoid(model(inputs)).numpy()


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Microseconds of call after call."""
    call()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        found.append((time.perf_counter() - begin) * 1e6)
    return found


def check(scorer: Scorer, model: Network, requests: Sequence[ScoreInput], inputs: Inputs) -> float:
    """How far the scorer is from the network at most. Raises ArithmeticError where that is too far."""
    difference = float(np.abs(np.concatenate(scorer.score(requests)) - forward(model, inputs)).max())
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"scores differ by {difference:.1e}")
    return difference


def measure(artifact: Artifact, scorer: Scorer, model: Network, case: Case, seconds: float) -> dict[str, Any]:
    """One case. Raises ArithmeticError where the two differ."""
    requests = random_requests(artifact, case)
    inputs = padded(artifact, requests)
    difference = check(scorer, model, requests, inputs)
    ours = timed(lambda: scorer.score(requests), seconds)
    theirs = timed(lambda: forward(model, inputs), seconds)
    return case._asdict() | {
        "difference": difference,
        "scorer_us": {"least": min(ours), "median": statistics.median(ours)},
        "forward_us": {"least": min(theirs), "median": statistics.median(theirs)},
    }


def parser() -> argparse.ArgumentParser:
    """All options."""
    wide = partial(argparse.HelpFormatter, max_help_position=30, width=110)
    about = "Checks, then times the scorer against the network's own forward. 1 if the scores differ."
    line = argparse.ArgumentParser(prog="python -m model.bench", description=about, formatter_class=wide)
    line.add_argument("--artifact", type=Path, default=BUNDLED, metavar="DIR", help="the model (the bundled one)")
    line.add_argument("--precision", choices=("exact", "fast"), default="exact", help="of the scorer (exact)")
    line.add_argument("--threads", type=int, default=1, metavar="N", help="of both (1)")
    line.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"of each in each case ({SECONDS:g})")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the last line, the results, to a file")
    return line


def main(arguments: Sequence[str] | None = None, cases: Sequence[Case] = tuple(CASES)) -> int:
    """Prints a table and one line of JSON."""
    args = parser().parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        return _run(args, cases)
    finally:
        torch.set_num_threads(threads)


def _run(args: argparse.Namespace, cases: Sequence[Case]) -> int:
    artifact = load_artifact(args.artifact)
    scorer = Scorer(artifact, device="cpu", precision=args.precision, threads=args.threads)
    model, found = artifact.model(), []
    print(f"{scorer.description}, {args.threads} thread(s)\n")
    print("requests candidates steps  least us   median forward least  times")
    for case in cases:
        try:
            one = measure(artifact, scorer, model, case, args.seconds)
        except ArithmeticError as error:
            print(f"{case}: {error}", file=sys.stderr)
            return 1
        found.append(one)
        ours, theirs = one["scorer_us"], one["forward_us"]
        print(
            f"{case.requests:>8}{case.candidates:>11}{case.steps:>6}{ours['least']:>10.0f}{ours['median']:>9.0f}"
            f"{theirs['least']:>14.0f}{theirs['least'] / ours['least']:>7.1f}",
            flush=True,
        )
    print()
    text = json.dumps({"scorer": scorer.description, "threads": args.threads, "cases": found})
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
