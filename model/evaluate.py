"""Judge an artifact on a data set: `python -m model.evaluate --artifact DIR --data ADAPTER:PATH --out DIR`.

Writes metrics.json (with bootstrap intervals, of all and by slice: histories, context, users and items that the model
never saw, days), reliability.png, slices.png, and of a model with attention interest_evolution.png: the attention over
one user's history for several candidates. Also says how far the served scorer is from the network on real impressions.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model import strict_json
from model.artifact import Artifact, load_artifact
from model.batches import Batcher
from model.cli import CommandLine, add_device, check_writable, device_of, main
from model.config import ConfigError
from model.data import SPLITS, TRAIN, DataSet, open_data
from model.metrics import bootstrap, measure
from model.plots import plot_interest_evolution, plot_reliability, plot_slices
from model.scorer import ScoreInput, Scorer
from model.slices import lines_of, measure_slices
from model.training import predict

BUNDLED = Path("model/artifacts/kuairand")
COMPARED = 512


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = CommandLine("python -m model.evaluate", __doc__)
    option = line.add_argument
    option("--artifact", type=Path, default=BUNDLED, metavar="DIR", help="(default: the bundled one, %(default)s)")
    option("--data", default="kuairand:data/kuairand_pure", metavar="ADAPTER:PATH", help="(default: %(default)s)")
    option("--split", choices=SPLITS, default="test", help="(default: %(default)s)")
    option("--split-seed", type=int, default=0, metavar="N", help="as in training, where the data has no splits itself")
    option("--out", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="(default: %(default)s)")
    option("--user", type=int, metavar="ID", help="whose interest evolution to draw (default: one with much to see)")
    option("--candidates", type=int, default=6, metavar="N", help="at most so many in that picture (default: 6)")
    option("--draws", type=int, default=200, metavar="N", help="bootstrap draws (default: 200)")
    add_device(line)
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


def interest_evolution(data: DataSet, batcher: Batcher, user: int | None, count: int) -> ScoreInput:
    """The first `count` different items a user was shown in the split, and what they had done before the first of them.

    Without a user, one with many of both.
    """
    shown = batcher.impressions
    order = np.lexsort((shown.timestamps_ms, shown.user_ids))
    users, firsts = np.unique(shown.user_ids[order], return_index=True)
    if user is None:
        of_user = np.repeat(np.arange(len(users)), np.diff([*firsts, len(order)]))
        pairs = np.unique(np.stack([of_user, shown.item_ids[order]]), axis=1)
        choices = np.minimum(np.bincount(pairs[0]), count)
        lengths = (batcher.end - batcher.start)[order[firsts]]
        user = int(users[np.argmax(lengths * choices)])
    rows = order[shown.user_ids[order] == user]
    if not len(rows):
        raise ConfigError(f"user={user}: has no impression in this split")
    one = score_inputs(data, batcher, rows[:1])[0]
    items = list(dict.fromkeys(shown.item_ids[rows].tolist()))[:count]
    return replace(one, item_ids=items)


def check_features(artifact: Artifact, data: DataSet, split: int) -> None:
    """Raise ConfigError where the data cannot feed the model, or has nothing that it knows."""
    schema, shown = artifact.schema, data.split(split)
    missing = sorted(set(schema.context_fields) - set(data.impressions.context))
    if missing:
        raise ConfigError(f"data: {data.name} has no context field {missing[0]!r}, which {artifact.name} reads")
    if schema.actions != data.actions:
        names = [", ".join(actions) or "none" for actions in (data.actions, schema.actions)]
        raise ConfigError(f"data: {data.name} has the actions {names[0]}; {artifact.name} reads {names[1]}")
    if not len(shown):
        raise ConfigError(f"split={SPLITS[split]}: {data.name} has no impressions in it")
    if split == TRAIN and data.sampled_negatives:
        raise ConfigError(f"split=train: {data.name} has clicks alone there; its negatives are drawn in training")
    if not schema.catalogue.rows(shown.item_ids).any():
        raise ConfigError(f"data: {data.name} has no item in {SPLITS[split]} that {artifact.name} knows")


def judge(artifact: Artifact, data: DataSet, batcher: Batcher, scorer: Scorer, draws: int) -> dict[str, Any]:
    """Metrics of the network on a split, and how far the scorer is from it."""
    shown = batcher.impressions
    scores = predict(artifact.model().to(scorer.device), batcher, scorer.device)
    rows = np.linspace(0, len(batcher) - 1, min(COMPARED, len(batcher))).astype(int)
    served = np.concatenate(scorer.score(score_inputs(data, batcher, rows)))
    unknown = scorer.count_unknown(shown.item_ids) / len(batcher)
    return {
        "scores": scores,
        "metrics": measure(shown.user_ids, shown.clicks, scores),
        "intervals": bootstrap(shown.user_ids, shown.clicks, scores, draws=draws),
        "click_rate": float(shown.clicks.mean()),
        "mean_prediction": float(scores.mean(dtype=np.float64)),
        "unknown_items": unknown,
        "scorer_largest_difference": float(np.abs(served - scores[rows]).max()),
        "slices": measure_slices(batcher, scores, draws=draws),
    }


def run() -> None:
    """Evaluate from the command line."""
    args = parser().parse_args()
    for name, least in (("candidates", 1), ("draws", 1), ("split_seed", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"{name}={getattr(args, name)}: at least {least}")
    device, split = device_of(args), SPLITS.index(args.split)
    check_writable(args.out)
    artifact = load_artifact(args.artifact)
    data = open_data(args.data, split_seed=args.split_seed)
    check_features(artifact, data, split)
    batcher = Batcher(data, artifact.schema, split)
    one = interest_evolution(data, batcher, args.user, args.candidates)
    scorer = Scorer(artifact, device=str(device))
    results: dict[str, Any] = {
        "artifact": {
            "name": artifact.name,
            "version": artifact.version,
            "model": artifact.config.model,
            "parameters": artifact.parameters,
        },
        "data": {"name": args.data, "split": args.split, "impressions": len(batcher)},
    }
    results |= judge(artifact, data, batcher, scorer, args.draws)
    scores = results.pop("scores")
    strict_json.write(args.out / "metrics.json", results)
    plot_reliability(batcher.impressions.clicks, scores, args.out / "reliability.png")
    written = ["metrics.json", "reliability.png"]
    if results["slices"]:
        plot_slices(results["slices"], results["metrics"], args.out / "slices.png")
        written.append("slices.png")
    if scorer.attends:
        plot_interest_evolution(scorer, one, args.out / "interest_evolution.png")
        written.append("interest_evolution.png")
    print(f"{artifact.name} {artifact.version}: {artifact.title}")
    _say(results)
    print(f"written to {args.out}: {', '.join(written)}")


def _say(results: dict[str, Any]) -> None:
    for name, value in results["metrics"].items():
        low, high = results["intervals"][name]
        print(f"{name:18} {value:.4f}  95 % interval {low:.4f} to {high:.4f}")
    print(f"{results['unknown_items']:.1%} of the impressions are of items that the model does not know")
    print(f"scorer and network differ by at most {results['scorer_largest_difference']:.1e}")
    for line in lines_of(results["slices"]):
        print(line)


if __name__ == "__main__":
    main(run)
