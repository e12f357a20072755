"""`python -m loadtest.baseline.fresh`: an artifact of another model or hidden size, for comparisons of speed.

Its weights are fresh ones from a fixed seed: what a forward costs does not depend on them, for products of the same
shapes are taken of any. Its scores mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model.artifact import load_artifact, of_model, save_artifact
from model.config import AUTO, MODELS
from model.zoo import make_network

SEED = 0


def fresh(source: Path, folder: Path, *, hidden: int | None = None, model: str | None = None) -> str:
    """Writes a model of the source's features and shape but for its hidden size, or for what it is; its version.

    Another model has its own form of attention and cell.
    """
    artifact = load_artifact(source)
    changed: dict[str, Any] = {"hidden": hidden or artifact.config.hidden}
    if model is not None:
        changed |= {"model": model, "cell": AUTO, "attention": AUTO, "auxiliary": AUTO, "inner_bias": False}
    config = dataclasses.replace(artifact.config, **changed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = make_network(artifact.schema, config)
    return save_artifact(of_model(model or artifact.name, network, artifact.schema, {}, {}), folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.baseline.fresh", description="A model for speed alone.")
    parser.add_argument("source", type=Path, help="artifact")
    parser.add_argument("folder", type=Path, help="of the new one")
    parser.add_argument("--hidden", type=int, help="size of its interest states")
    parser.add_argument("--model", choices=tuple(MODELS), help="which of the zoo it is")
    chosen = parser.parse_args(arguments)
    print(fresh(chosen.source, chosen.folder, hidden=chosen.hidden, model=chosen.model))


if __name__ == "__main__":
    main()
