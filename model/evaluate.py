"""Judge an artifact on a data set: `python -m model.evaluate --artifact DIR --data ADAPTER:PATH --out DIR`.

Writes metrics.json (with bootstrap intervals), reliability.png, and interest_evolution.png: the attention over one
user's history for several candidates. Also says how far the served scorer is from the network on real impressions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact import Artifact, load_artifact
from model.batches import Batcher
from model.cli import device_of, main
from model.data import SPLITS, DataSet, open_data
from model.dien import ConfigError
from model.metrics import bootstrap, measure
from model.plots import plot_interest_evolution, plot_reliability
from model.scorer import ScoreInput, Scorer
from model.training import predict

COMPARED = 512


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m model.evaluate", description=__doc__)
    line.add_argument(
        "--artifact", type=Path, default=Path("model/artifacts/kuairand"), help="(default: the bundled one)"
    )
    line.add_argument("--data", default="kuairand:data/kuairand_pure", help="ADAPTER:PATH (default: the bundled one)")
    line.add_argument(
        "--split-seed", type=int, default=0, help="as in training, where the data has no splits of its own"
    )
    line.add_argument("--split", choices=SPLITS, default="test")
    line.add_argument(
        "--out", type=Path, default=Path("runs/evaluation"), help="folder to write to (default: %(default)s)"
    )
    line.add_argument("--user", type=int, help="whose interest evolution to draw (default: one with a long history)")
    line.add_argument("--candidates", type=int, default=6, help="how many candidates the picture shows")
    line.add_argument("--draws", type=int, default=200, help="bootstrap draws")
    line.add_argument("--device", default="auto", help="cpu, cuda, cuda:N; auto: a GPU if there is one")
    line.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own)")
    return line


def score_inputs(data: DataSet, batcher: Batcher, rows: Any) -> list[ScoreInput]:
    """Impressions as the scorer takes them: ids of the user's own data, no rows of tables."""
    shown, behaviors = batcher.impressions, data.behaviors
    inputs = []
    for row in rows:
        past = slice(batcher.start[row], batcher.end[row])
        inputs.append(
            ScoreInput(
                item_ids=shown.item_ids[row : row + 1],
                history=behaviors.item_ids[past],
                actions=None if behaviors.actions is None else behaviors.actions[past],
                context={name: int(shown.context[name][row]) for name in batcher.schema.context_fields},
                user_id=int(shown.user_ids[row]),
            )
        )
    return inputs


def interest_evolution(data: DataSet, batcher: Batcher, scorer: Scorer, user: int | None, count: int) -> ScoreInput:
    """A user's newest history in the split, against the first `count` different items he was shown there."""
    shown = batcher.impressions
    if user is None:
        lengths = batcher.end - batcher.start
        candidates = np.flatnonzero(lengths == lengths.max())
        users, times = np.unique(shown.user_ids[candidates], return_counts=True)
        user = int(users[np.argmax(times)])
    rows = np.flatnonzero(shown.user_ids == user)
    if not len(rows):
        raise ConfigError(f"user={user}: has no impression in this split")
    one = score_inputs(data, batcher, rows[:1])[0]
    items = list(dict.fromkeys(shown.item_ids[rows].tolist()))[:count]
    return ScoreInput(items, one.history, one.actions, one.context, user)


def check_features(artifact: Artifact, data: DataSet) -> None:
    """Raise ConfigError where the data cannot feed the model."""
    missing = sorted(set(artifact.schema.context_fields) - set(data.impressions.context))
    if missing:
        raise ConfigError(f"data: {data.name} has no context field {missing[0]!r}, which {artifact.name} reads")
    if artifact.schema.actions != data.actions:
        raise ConfigError(
            f"data: {data.name} has actions {data.actions}; {artifact.name} reads {artifact.schema.actions}"
        )


def run() -> None:
    """Evaluate from the command line."""
    args = parser().parse_args()
    for name in ("candidates", "draws"):
        if getattr(args, name) < 1:
            raise ConfigError(f"{name}={getattr(args, name)}: at least 1")
    device = device_of(args)
    artifact = load_artifact(args.artifact)
    data = open_data(args.data, split_seed=args.split_seed)
    check_features(artifact, data)
    batcher = Batcher(data, artifact.schema, SPLITS.index(args.split))
    if not len(batcher):
        raise ConfigError(f"split={args.split}: {data.name} has no impressions in it")
    shown = batcher.impressions
    scores = predict(artifact.model().to(device), batcher, device)
    scorer = Scorer(artifact, device=device.type)
    rows = np.linspace(0, len(batcher) - 1, min(COMPARED, len(batcher))).astype(int)
    served = np.concatenate(scorer.score(score_inputs(data, batcher, rows)))
    results = {
        "artifact": {"name": artifact.name, "version": artifact.version},
        "data": {"name": args.data, "split": args.split, "impressions": len(batcher)},
        "metrics": measure(shown.user_ids, shown.clicks, scores),
        "intervals": bootstrap(shown.user_ids, shown.clicks, scores, draws=args.draws),
        "scorer_largest_difference": float(np.abs(served - scores[rows]).max()),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    plot_reliability(shown.clicks, scores, args.out / "reliability.png")
    one = interest_evolution(data, batcher, scorer, args.user, args.candidates)
    plot_interest_evolution(scorer, one, args.out / "interest_evolution.png")
    _say(results, args.out)


def _say(results: dict[str, Any], out: Path) -> None:
    for name, value in results["metrics"].items():
        low, high = results["intervals"][name]
        print(f"{name:18} {value:.4f}  95 % interval {low:.4f} to {high:.4f}")
    print(f"scorer and network differ by at most {results['scorer_largest_difference']:.1e}")
    print(f"written to {out}: metrics.json, reliability.png, interest_evolution.png")


if __name__ == "__main__":
    main(run)
