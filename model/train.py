"""Train a model of the zoo and write its artifact: `python -m model.train --model NAME --data ADAPTER:PATH --out DIR`.

Data-parallel: `torchrun --nproc-per-node N -m -- model.train ...` (the `--` keeps torchrun from reading our options).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.artifact import of_model, save_artifact
from model.batches import Batcher
from model.cli import (
    CommandLine,
    DataConfig,
    add_run,
    add_settings,
    check_places,
    device_of,
    main,
    run_folder,
    settings,
)
from model.config import ConfigError, ModelConfig
from model.data import DEV, SPLITS, TEST, TRAIN, DataSet
from model.features import FeatureSchema
from model.metrics import METRICS, bootstrap, measure
from model.objective import ClickObjective, Objective
from model.training import TrainConfig, Trainer, predict
from model.workers import Workers, workers
from model.zoo import Network, make_network


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = CommandLine("python -m model.train", __doc__, "--out DIR")
    add_run(line)
    for kind in (DataConfig, ModelConfig, TrainConfig):
        add_settings(line, kind)
    return line


def fit(
    args: argparse.Namespace,
    objective: Objective,
    data: DataSet,
    schema: FeatureSchema,
    config: TrainConfig,
    group: Workers,
    *,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Train `objective` on a data set, or go on where a run with the same `settings` stopped; the facts of the run."""
    for split in (TRAIN, DEV):
        if not len(data.split(split)):
            raise ConfigError(f"data: {data.name} has no impressions in {SPLITS[split]}")
    if len(set(data.split(DEV).clicks.tolist())) < 2:
        raise ConfigError(f"data: {data.name} needs both clicks and non-clicks in dev, for its AUC")
    train, dev = (Batcher(data, schema, split, negatives=config.negatives) for split in (TRAIN, DEV))
    folder = run_folder(args, first=group.first)
    trainer = Trainer(objective, train, dev, config, folder, settings=settings, workers=group)
    if args.resume:
        trainer.resume()
    return dict(trainer.run())


def report(model: Network, data: DataSet, schema: FeatureSchema) -> dict[str, Any]:
    """Metrics of a finished model on dev, and on test, where there are impressions, with their 95 % intervals."""
    metrics: dict[str, Any] = {}
    device = next(model.parameters()).device
    for name, split in (("dev", DEV), ("test", TEST)):
        batcher = Batcher(data, schema, split)
        if not len(batcher):
            continue
        shown, scores = batcher.impressions, predict(model, batcher, device)
        metrics[name] = {key: round(value, 5) for key, value in measure(shown.user_ids, shown.clicks, scores).items()}
        if split == TEST:
            intervals = bootstrap(shown.user_ids, shown.clicks, scores)
            metrics[name]["intervals"] = {key: [round(end, 5) for end in ends] for key, ends in intervals.items()}
    return metrics


def save(
    folder: Path, model: Network, schema: FeatureSchema, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Write an artifact and say what it is worth."""
    artifact = of_model(folder.resolve().name, model, schema, training, metrics)
    version = save_artifact(artifact, folder)
    split = "test" if "test" in metrics else "dev"
    print(f"{folder}: version {version}, {artifact.title}")
    print(f"after {training['run']['seconds']:.0f} s of training, on {split}:")
    intervals = metrics[split].get("intervals", {})
    for name in METRICS:
        interval = "  95 % interval {:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else ""
        print(f"  {name:18} {metrics[split][name]:.4f}{interval}")


def run() -> None:
    """Train from the command line."""
    args = parser().parse_args()
    device = device_of(args)
    check_places(args, args.out)
    data_config, config = settings(args, DataConfig), settings(args, TrainConfig)
    model_config = settings(args, ModelConfig)
    data, schema = data_config.open()
    torch.manual_seed(config.seed)
    with workers(device) as group:
        model = make_network(schema, model_config)
        every = asdict(data_config) | asdict(model_config) | asdict(config)
        facts = fit(
            args, ClickObjective(model, config.auxiliary_weight).to(device), data, schema, config, group, settings=every
        )
        if group.first:
            training = {
                "data": asdict(data_config),
                "description": data.description,
                "settings": asdict(config),
                "run": facts,
            }
            save(args.out, model, schema, training, report(model, data, schema))


if __name__ == "__main__":
    main(run)
