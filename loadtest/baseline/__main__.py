"""`python -m loadtest.baseline`: the plain server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from loadtest.baseline.app import create_app, histories_of
from loadtest.baseline.network import EagerDien
from loadtest.baseline.serving import add_address, serve
from model.artifact import ArtifactError
from model.config import ConfigError
from model.data import DataError, open_data

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until told to stop. Returns 0, or 2 when the model or the data cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.baseline", description="DIEN served the plain way.")
    add_address(parser)
    parser.add_argument("--model", type=Path, default=ROOT / "model/artifacts/kuairand", help="artifact (the bundled)")
    parser.add_argument("--seed", default=f"kuairand:{ROOT / 'data/kuairand_pure'}", help="histories (the bundled)")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch (one for each core)"
    )
    parser.add_argument("--fused", action="store_true", help="the recurrences by this project's kernels")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        app = create_app(EagerDien(chosen.model, fused=chosen.fused), histories_of(open_data(chosen.seed)))
    except (ArtifactError, ConfigError, DataError) as error:
        print(f"loadtest.baseline: {error}", file=sys.stderr)
        return 2
    serve(app, chosen.host, chosen.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
