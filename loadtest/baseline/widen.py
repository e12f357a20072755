"""`python -m loadtest.baseline.widen`: an artifact of another hidden size, for comparisons of speed.

Its weights are fresh ones from a fixed seed: what a forward costs does not depend on them, for products of the same
shapes are taken of any. Its scores mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from model.artifact import load_artifact, of_model, save_artifact
from model.zoo import make_network

SEED = 0


def widen(source: Path, folder: Path, hidden: int) -> str:
    """Writes a model of the source's features and shape but for its hidden size; its version."""
    artifact = load_artifact(source)
    config = dataclasses.replace(artifact.config, hidden=hidden)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = make_network(artifact.schema, config)
    return save_artifact(of_model(artifact.name, model, artifact.schema, {}, {}), folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.baseline.widen", description="A model for speed alone.")
    parser.add_argument("source", type=Path, help="artifact")
    parser.add_argument("folder", type=Path, help="of the new one")
    parser.add_argument("hidden", type=int, help="size of its interest states")
    chosen = parser.parse_args(arguments)
    print(widen(chosen.source, chosen.folder, chosen.hidden))


if __name__ == "__main__":
    main()
