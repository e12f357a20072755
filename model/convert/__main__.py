"""Turn a DIEN that another library trained into an artifact.

What our DIEN cannot express is named, part by part, with exit code 1, and nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from model.artifact import Artifact, check_target, save_artifact
from model.artifact_checks import check_name
from model.cli import CommandLine, check_writable, main
from model.convert import deepctr_torch, fuxictr, torch_rechub
from model.convert.assemble import assemble
from model.convert.description import Description, read_description
from model.convert.peer import PeerDien
from model.convert.refusal import NotExpressibleError, Refusals
from model.convert.state import State, read_state


class Library(NamedTuple):
    """How a library's checkpoints are read."""

    read: Callable[[State, Description, Refusals], PeerDien]
    settings: frozenset[str]


LIBRARIES = {
    "torch-rechub": Library(torch_rechub.read, torch_rechub.SETTINGS),
    "deepctr-torch": Library(deepctr_torch.read, deepctr_torch.SETTINGS),
    "fuxictr": Library(fuxictr.read, fuxictr.SETTINGS),
}
FEATURES = """\
What the state dict does not say stands in a JSON file:
  max_history    behaviours that the model was trained with at most
  items          {"ids": [...]}: the ids of the catalogue
  columns        the sparse features in the order in which the model has them, each
                 {"name", "kind": "item" | "user" | "context", "rows": [...]}: the row of the embedding table for each
                 of items.ids, or, for user and context, for each of its own "ids": [...]; where they differ from the
                 name, "table" and "history_table", the tables' names; "unknown", the row for all other ids (default:
                 zeros)
  history        the item columns that a behaviour has, in the order of the recurrent layer's input
  settings       arguments of the constructor that the state dict does not show, where they are not the default
  training_only  tables that only the auxiliary loss reads
docs/convert.md has an example for each library."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = CommandLine("python -m model.convert", __doc__, "--from LIBRARY FILE --features JSON --out DIR")
    line.formatter_class = argparse.RawDescriptionHelpFormatter
    line.epilog = (
        FEATURES
        + "\n"
        + "\n".join(f"settings of {name}: {', '.join(sorted(library.settings))}" for name, library in LIBRARIES.items())
    )
    line.add_argument("--from", dest="library", required=True, choices=LIBRARIES, help="what trained the model")
    line.add_argument("file", type=Path, metavar="FILE", help="the state dict: of torch.save, or *.safetensors")
    line.add_argument("--features", type=Path, required=True, metavar="JSON", help="the model's features, see below")
    line.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the artifact to write")
    return line


def convert(library: str, file: Path, features: Path, name: str) -> Artifact:
    """The artifact of a checkpoint.

    Raises NotExpressibleError with every part that our DIEN cannot express, ConfigError for files that are not what
    they are said to be.
    """
    reader = LIBRARIES[library]
    described = read_description(features, reader.settings)
    state, refusals = read_state(file), Refusals()
    peer = reader.read(state, described, refusals)
    state.finish()
    refusals.check()
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return assemble(peer, described, name, {"converted": {"library": library, "file": file.name, "sha256": digest}})


def run() -> None:
    """Convert from the command line."""
    args = parser().parse_args()
    out = args.out.resolve()
    check_name(out.name, out)
    check_target(out)
    try:
        artifact = convert(args.library, args.file, args.features, out.name)
    except NotExpressibleError as error:
        print(f"{args.file}: not expressible:\n{error}", file=sys.stderr)
        raise SystemExit(1) from None
    check_writable(out.parent)
    version = save_artifact(artifact, out)
    fields = ", ".join(artifact.schema.context_fields) or "none"
    print(f"{args.out}: version {version}; {len(artifact.schema.catalogue) - 1} items, context fields: {fields}")


if __name__ == "__main__":
    main(run)
