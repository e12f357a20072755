"""`python -m loadtest.baseline.lengthen`: an artifact that looks further back, for comparisons of speed.

The recurrent weights hold for any number of steps, so the copy computes what a model trained for longer histories would
compute. Its scores are those of a model that never saw such histories: nothing for production.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from model.artifact import load_artifact, save_artifact


def lengthen(source: Path, folder: Path, max_history: int) -> str:
    """Writes the copy; its version."""
    artifact = load_artifact(source)
    schema = dataclasses.replace(artifact.schema, max_history=max_history)
    return save_artifact(dataclasses.replace(artifact, schema=schema), folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.baseline.lengthen", description="A model for speed alone."
    )
    parser.add_argument("source", type=Path, help="artifact")
    parser.add_argument("folder", type=Path, help="of the copy")
    parser.add_argument("max_history", type=int, help="behaviours it looks back")
    chosen = parser.parse_args(arguments)
    print(lengthen(chosen.source, chosen.folder, chosen.max_history))


if __name__ == "__main__":
    main()
