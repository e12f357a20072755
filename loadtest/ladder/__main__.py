"""`python -m loadtest.ladder`: every rung, a table, a page, and a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtest.capacity.options import add_shared, stand_of
from loadtest.ladder.pictures import drawn
from loadtest.ladder.rungs import HISTORY, climb
from loadtest.ladder.words import page, text
from loadtest.openloop.options import number
from loadtest.openloop.samples import as_json
from loadtest.openloop.target import TargetError
from loadtest.openloop.worker import WorkerError
from loadtest.servers import ServerError, end_on_term

LOW_RATE = 2.0  # so few that a request of the first rung seldom finds another before it


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when a server misbehaved, 2 for a wrong option."""
    chosen = options(arguments)
    if find_spec("matplotlib") is None:
        print("loadtest.ladder: needs matplotlib: pip install -e '.[loadtest]'", file=sys.stderr)
        return 2
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        with stand_of(chosen, [HISTORY]) as stand:
            for so_far in climb(stand, chosen.low_rate):
                so_far["cores"] = {"servers": list(chosen.server_cpus), "client": list(chosen.client_cpus)}
                found = as_json(so_far)
                (chosen.out / "ladder.json").write_text(json.dumps(found, indent=1) + "\n")
    except (ServerError, TargetError, WorkerError) as error:
        print(f"loadtest.ladder: {error}", file=sys.stderr)
        return 1
    report(found, chosen.out)
    return 0


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options as given, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.ladder",
        description="What fused kernels, shared work and a distilled model each give, from the plain server to Augur.",
    )
    add_shared(parser, Path("runs/ladder"))
    parser.add_argument(
        "--low-rate", type=number(0, above=True), default=LOW_RATE, help=f"of all rungs alike ({LOW_RATE:g})"
    )
    return parser.parse_args(arguments)


def report(found: dict[str, Any], out: Path) -> None:
    """Says it, and writes it."""
    print(text(found))
    (out / "ladder.html").write_text(page(found))
    (out / "ladder.png").write_bytes(drawn(found, "png"))
    print(f"reports: {out}/ladder.html, ladder.json, ladder.png")


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
