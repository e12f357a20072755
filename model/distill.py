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

from model.batches import Batch
from model.cli import CommandLine, DataConfig, add_run, add_settings, check_places, device_of, main, settings
from model.config import LARGEST, MODELS, ConfigError, ModelConfig
from model.objective import Objective, weighted
from model.train import fit, report, save
from model.training import TrainConfig
from model.workers import workers
from model.zoo import Network, make_network


@dataclass(frozen=True, slots=True)
class RocketConfig:
    """How booster and light net hang together."""

    booster_hidden: int = field(
        default=108, metadata={"help": "hidden size of the booster; --hidden is the light net's"}
    )
    hint_weight: float = field(default=0.1, metadata={"help": "λ of the hint loss"})
    share: bool = field(default=True, metadata={"help": "one set of embeddings for both nets"})

    def __post_init__(self) -> None:
        if not 0 <= self.hint_weight < float("inf"):
            raise ConfigError(f"hint_weight={self.hint_weight}: finite and not negative")
        if not 1 <= self.booster_hidden <= LARGEST:
            raise ConfigError(f"booster_hidden={self.booster_hidden}: from 1 to {LARGEST}")


class RocketObjective(Objective):
    """L = L_light + L_booster + λ·(z_light - z_booster)², the gap of the logits (Rocket Launching eq. 1-3).

    Gradient block: the hint's gradient does not reach the booster. Shared embeddings are trained by both nets' losses.
    """

    def __init__(self, light: Network, booster: Network, *, hint_weight: float, auxiliary_weight: float) -> None:
        super().__init__()
        self.served, self.booster = light, booster
        self.hint_weight, self.auxiliary_weight = hint_weight, auxiliary_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of both nets and the `hint`."""
        parts = batch.inputs, batch.following, batch.clicks
        light = weighted(self.served.losses(*parts), self.auxiliary_weight)
        booster = weighted(self.booster.losses(*parts), self.auxiliary_weight)
        hint = (light["logits"] - booster["logits"].detach()).square().mean()
        losses = {f"booster_{name}": value for name, value in booster.items()}
        total = light["loss"] + booster["loss"] + self.hint_weight * hint
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
    line = CommandLine("python -m model.distill", __doc__, "--out DIR")
    add_run(line, "light net's artifact").add_argument(
        "--booster-out", type=Path, metavar="DIR", help="folder of the booster's artifact, if it is wanted"
    )
    for kind in (DataConfig, ModelConfig, RocketConfig, TrainConfig):
        add_settings(line, kind)
    return line


def run() -> None:
    """Distil from the command line."""
    args = parser().parse_args()
    device = device_of(args)
    check_places(args, args.out, *([args.booster_out] if args.booster_out else []))
    data_config, config = settings(args, DataConfig), settings(args, TrainConfig)
    rocket, light_config = settings(args, RocketConfig), settings(args, ModelConfig)
    data, schema = data_config.open()
    torch.manual_seed(config.seed)
    if not light_config.definition.recurrent:
        recurrent = ", ".join(name for name, one in MODELS.items() if one.recurrent)
        raise ConfigError(
            f"model={light_config.model}: has no hidden size, in which both nets differ; {recurrent} have"
        )
    booster = make_network(schema, replace(light_config, hidden=rocket.booster_hidden))
    light = make_network(schema, light_config, booster.embeddings if rocket.share else None)
    objective = RocketObjective(
        light, booster, hint_weight=rocket.hint_weight, auxiliary_weight=config.auxiliary_weight
    ).to(device)
    every = asdict(data_config) | asdict(light_config) | asdict(rocket) | asdict(config)
    with workers(device) as group:
        facts = fit(args, objective, data, schema, config, group, settings=every)
        if not group.first:
            return
        training = {
            "data": asdict(data_config),
            "description": data.description,
            "settings": asdict(config) | asdict(rocket),
            "run": facts,
        }
        of_booster = report(booster, data, schema)
        if args.booster_out:
            save(args.booster_out, booster, schema, training, of_booster)
        save(args.out, light, schema, training, report(light, data, schema) | {"booster": of_booster})


if __name__ == "__main__":
    main(run)
