"""Draws the pictures of docs/ again: `python docs/pictures`. A test holds the files to what this draws."""

from __future__ import annotations

import sys
from pathlib import Path

import factorisation
import ladder
import request
import served

PICTURES = {"factorisation": factorisation, "request": request, "ladder": ladder, "served": served}


def main(folder: Path) -> None:
    """Writes every picture into the folder."""
    for name, module in PICTURES.items():
        (folder / f"{name}.svg").write_text(module.draw())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
