"""Train one DIEN and write its artifact: `python -m model.train --data ADAPTER:PATH --out DIR`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import torch

from model.artifact import of_model, save_artifact
from model.batches import Batcher
from model.cli import DataConfig, add_run, add_settings, device_of, main, run_folder, settings
from model.data import DEV, TEST, TRAIN, DataSet
from model.dien import Dien, DienConfig
from model.features import FeatureSchema
from model.metrics import bootstrap, measure
from model.training import ClickObjective, Objective, TrainConfig, Trainer, Workers, predict, workers


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m model.train", description=__doc__)
    add_run(line)
    add_settings(line, DataConfig)
    add_settings(line, DienConfig)
    add_settings(line, TrainConfig)
    line.add_argument("--auxiliary-weight", type=float, default=0.2, help="α of DIEN eq. 8 (default: 0.2)")
    return line


def fit(
    args: argparse.Namespace,
    objective: Objective,
    data: DataSet,
    schema: FeatureSchema,
    config: TrainConfig,
    device: torch.device,
    group: Workers,
) -> dict[str, Any]:
    """Train `objective` on a data set, or go on where a run stopped; the facts of the run."""
    train, dev = (Batcher(data, schema, split, negatives=config.negatives) for split in (TRAIN, DEV))
    folder = run_folder(args, first=group.first)
    trainer = Trainer(objective.to(device), train, dev, config, folder, group)
    if args.resume:
        trainer.resume()
    return dict(trainer.run())


def report(model: Dien, data: DataSet, schema: FeatureSchema, device: torch.device) -> dict[str, Any]:
    """Metrics of a finished model on dev, and on test with their 95 % intervals."""
    metrics: dict[str, Any] = {}
    for name, split in (("dev", DEV), ("test", TEST)):
        batcher = Batcher(data, schema, split)
        shown, scores = batcher.impressions, predict(model, batcher, device)
        metrics[name] = {key: round(value, 5) for key, value in measure(shown.user_ids, shown.clicks, scores).items()}
        if split == TEST:
            intervals = bootstrap(shown.user_ids, shown.clicks, scores)
            metrics[name]["intervals"] = {key: [round(end, 5) for end in ends] for key, ends in intervals.items()}
    return metrics


def save(args: argparse.Namespace, model: Dien, schema: FeatureSchema, training: dict[str, Any], metrics: Any) -> None:
    """Write the artifact and say what it is worth."""
    version = save_artifact(of_model(args.out.name, model, schema, training, metrics), args.out)
    test = metrics["test"]
    print(f"{args.out}: version {version}, after {training['run']['seconds']:.0f} s of training; on test:")
    for name, (low, high) in test["intervals"].items():
        print(f"  {name:18} {test[name]:.4f}  95 % interval {low:.4f} to {high:.4f}")


def run() -> None:
    """Train from the command line."""
    args = parser().parse_args()
    device = device_of(args)
    data_config, config = settings(args, DataConfig), settings(args, TrainConfig)
    model_config = settings(args, DienConfig)
    data, schema = data_config.open()
    torch.manual_seed(config.seed)
    with workers(device) as group:
        model = Dien(schema, model_config)
        facts = fit(args, ClickObjective(model, args.auxiliary_weight), data, schema, config, device, group)
        if group.first:
            training = {
                "data": asdict(data_config),
                "description": data.description,
                "settings": asdict(config) | {"auxiliary_weight": args.auxiliary_weight},
                "run": facts,
            }
            save(args, model, schema, training, report(model, data, schema, device))


if __name__ == "__main__":
    main(run)
