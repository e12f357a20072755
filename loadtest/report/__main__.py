"""`python -m loadtest.report`: every measurement that is not there yet, and one report of all."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from loadtest.report import document
from loadtest.report.parts import PARTS, Part
from loadtest.report.running import is_there, run
from loadtest.servers import end_on_term

WIDEST = 160  # of a part's lines on the terminal


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Returns 0, 1 when a part failed, 2 for a wrong option."""
    chosen = options(arguments, parts)
    if find_spec("matplotlib") is None:
        print("loadtest.report: needs matplotlib: pip install -e '.[loadtest]'", file=sys.stderr)
        return 2
    out = chosen.out.resolve()
    for part in chosen.again:
        shutil.rmtree(out / part.name, ignore_errors=True)
    todo = [part for part in chosen.parts if not is_there(part, out, chosen.quick)]
    there = "".join(f"; {part.name} is there" for part in chosen.parts if part not in todo)
    minutes = math.ceil(sum(part.about(chosen.quick) for part in todo))
    print(f"{len(todo)} parts, about {minutes} minutes{there}", flush=True)
    failed = [
        part for number, part in enumerate(todo) if not _ran(part, out, chosen.quick, f"{number + 1}/{len(todo)}")
    ]
    _report(parts, out)
    return 1 if failed else 0


def options(arguments: Sequence[str] | None, parts: Sequence[Part]) -> argparse.Namespace:
    """The options as given, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.report",
        description="Runs every measurement, each in a folder of its own, and writes report.md and report.html. What "
        "is there is not run again. Parts: " + ", ".join(part.name for part in parts),
    )
    some = _some(parts)
    parser.add_argument("--parts", type=some, default=list(parts), metavar="PART,...", help="only these (all)")
    parser.add_argument("--again", type=some, default=[], metavar="PART,...", help="run these though they are there")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that all works: figures say little")
    parser.add_argument("--out", type=Path, default=Path("runs/report"), help="folder of all of it (runs/report)")
    return parser.parse_args(arguments)


def _some(parts: Sequence[Part]) -> Callable[[str], list[Part]]:
    """A type for argparse: names of parts."""

    def read(text: str) -> list[Part]:
        wrong = set(text.split(",")) - {part.name for part in parts}
        if wrong:
            names = ", ".join(part.name for part in parts)
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(wrong))}: none of {names}")
        return [part for part in parts if part.name in text.split(",")]

    return read


def _ran(part: Part, out: Path, quick: bool, place: str) -> bool:
    """Whether it ran well."""
    print(f"\n{place} {part.name}: {part.title} (about {part.about(quick):g} min)", flush=True)
    ran = run(part, out, quick, lambda line: print(f"  {line[:WIDEST]}", flush=True))
    print(
        f"{place} {part.name}: {'done' if ran.status == 0 else f'FAILED, status {ran.status}'} in {ran.seconds:.0f} s"
    )
    return ran.status == 0


def _report(parts: Sequence[Part], out: Path) -> None:
    """Of all that is there, from whichever run."""
    found = document.sections(parts, out)
    missing = [part for part in parts if part not in [each.part for each in found]]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(document.markdown(found, missing, out))
    (out / "report.html").write_text(document.page(found, missing, out))
    print()
    for each in found:
        if each.ran.status:
            print(f"{each.part.name} FAILED, status {each.ran.status}: {each.command}\n{each.last_lines}\n", flush=True)
    print(f"reports: {out}/report.html, report.md")


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
