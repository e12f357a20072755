"""Rocket Launching: train a booster and a light net together, keep the light net (Zhou et al., AAAI 2018).

`python -m model.distill --data ADAPTER:PATH --out DIR` writes the light net's artifact, with `--booster-out` the
booster's too.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.artifact import of_model, save_artifact
from model.batches import Batch
from model.cli import DataConfig, add_run, add_settings, device_of, main, settings
from model.dien import ConfigError, Dien, DienConfig
from model.train import fit, report, save
from model.training import Objective, TrainConfig, weighted, workers


@dataclass(frozen=True, slots=True)
class RocketConfig:
    """How booster and light net hang together."""

    booster_hidden: int = field(
        default=108, metadata={"help": "hidden size of the booster; --hidden is the light net's"}
    )
    hint_weight: float = field(default=0.1, metadata={"help": "λ of the hint loss"})
    share: bool = field(default=True, metadata={"help": "one set of embeddings for both nets"})
    auxiliary_weight: float = field(default=0.2, metadata={"help": "α of DIEN eq. 8"})

    def __post_init__(self) -> None:
        for name in ("hint_weight", "auxiliary_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}: finite and not negative")


class RocketObjective(Objective):
    """L = L_light + L_booster + λ·(z_light - z_booster)², the gap of the logits (Rocket Launching eq. 1-3).

    Gradient block: the hint's gradient does not reach the booster. Shared embeddings are trained by both nets' losses.
    """

    def __init__(self, light: Dien, booster: Dien, config: RocketConfig) -> None:
        super().__init__()
        self.served, self.booster, self.config = light, booster, config

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of both nets and the `hint`."""
        parts = batch.inputs, batch.following, batch.clicks
        light = weighted(self.served.losses(*parts), self.config.auxiliary_weight)
        booster = weighted(self.booster.losses(*parts), self.config.auxiliary_weight)
        hint = (light["logits"] - booster["logits"].detach()).square().mean()
        losses = {f"booster_{name}": value for name, value in booster.items()}
        total = light["loss"] + booster["loss"] + self.config.hint_weight * hint
        return losses | light | {"hint": hint, "loss": total}

    def parameter_groups(self, embedding_decay: float) -> list[dict[str, Any]]:
        """Those of both nets; what they share counts once."""
        groups = self.served.parameter_groups(embedding_decay)
        known = {id(parameter) for group in groups for parameter in group["params"]}
        for group in self.booster.parameter_groups(embedding_decay):
            groups.append(group | {"params": [one for one in group["params"] if id(one) not in known]})
        return [group for group in groups if group["params"]]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m model.distill", description=__doc__)
    add_run(line)
    line.add_argument("--booster-out", type=Path, help="folder of the booster's artifact")
    for kind in (DataConfig, DienConfig, TrainConfig, RocketConfig):
        add_settings(line, kind)
    return line


def run() -> None:
    """Distil from the command line."""
    args = parser().parse_args()
    device = device_of(args)
    data_config, config = settings(args, DataConfig), settings(args, TrainConfig)
    rocket, light_config = settings(args, RocketConfig), settings(args, DienConfig)
    data, schema = data_config.open()
    torch.manual_seed(config.seed)
    booster = Dien(schema, replace(light_config, hidden=rocket.booster_hidden))
    light = Dien(schema, light_config, booster.embeddings if rocket.share else None)
    with workers(device) as group:
        facts = fit(args, RocketObjective(light, booster, rocket), data, schema, config, device, group)
        if not group.first:
            return
        training = {
            "data": asdict(data_config),
            "description": data.description,
            "settings": asdict(config) | asdict(rocket),
            "run": facts,
        }
        metrics = report(light, data, schema, device)
        metrics["booster"] = report(booster, data, schema, device)
        if args.booster_out:
            own = of_model(args.booster_out.name, booster, schema, training, metrics["booster"])
            save_artifact(own, args.booster_out)
        print(f"booster: test AUC {metrics['booster']['test']['auc']:.4f}")
        save(args, light, schema, training, metrics)


if __name__ == "__main__":
    main(run)
