"""`python -m kernels.aot`: compiles every GPU kernel for the targets asked for, and reports what the binaries hold.

Exit status 0, 1 when a kernel fails (a message of a compiler, a spill, local memory, a missing class of instructions,
a loop that cannot be counted), 2 for bad options or without Triton.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kernels.aot.measure import Job, Measurement
from kernels.aot.workers import measure_all
from kernels.contract import PRECISIONS
from kernels.triton.variants import WIDEST_HIDDEN, variants

TARGETS = ("cuda:80", "cuda:86", "cuda:89", "cuda:90", "cuda:100", "hip:gfx942")
# What has the matrix instructions and, of NVIDIA's, the tanh that the kernels use, and that Triton compiles for.
KNOWN = (*TARGETS[:5], "cuda:87", "cuda:103", "cuda:120", "hip:gfx942", "hip:gfx950")
COLUMNS = {
    "kernel": "kernel",
    "target": "target",
    "precision": "precision",
    "hidden": "hidden",
    "num_warps": "warps",
    "registers": "registers",
    "spills": "spills",
    "local_bytes": "local",
    "shared_bytes": "shared",
    "instructions_per_step_per_16_candidates": "per step, warp",
    "instructions_per_step_per_16_candidates_all_warps": "all warps",
    "attention_instructions_per_step_per_16_candidates": "attention",
}
LEGEND = """\
registers: of a thread; spills: bytes (NVIDIA), registers (AMD); local: bytes of a thread; shared: bytes of a program.
per step, warp: instructions that one warp issues in a pass of the time loop for 16 candidates (gru: users) of its
program, padding (NOP) left out; all warps: the same of all warps that share them;
attention: for 16 candidates and a step, of the loops over scores before the time loop."""


def jobs(targets: Sequence[str], hiddens: Sequence[int], precisions: Sequence[str]) -> list[Job]:
    """Everything to compile; a variant that both precisions use only once."""
    found: dict[str, Job] = {}
    for target in targets:
        for hidden in hiddens:
            for precision in precisions:
                for variant in variants(hidden, precision, target):
                    found.setdefault(f"{target} {variant}", Job(variant, target, precision))
    return list(found.values())


def table(found: Sequence[Measurement]) -> str:
    """For people to read."""
    rows = [list(COLUMNS.values())]
    for one in found:
        values = (getattr(one, name) for name in COLUMNS)
        rows.append(["-" if each is None else f"{each:g}" if isinstance(each, float) else str(each) for each in values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 3  # columns of text
    return "\n".join(
        "  ".join(
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def unavailable() -> str | None:
    """Why nothing can be compiled and read here, or None. The kernels themselves run on older versions, too."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version = importlib.metadata.version("triton")
    older = tuple(int(part) for part in version.split(".")[:2]) < (3, 9)
    return f"triton {version} is older than 3.9, whose assembler it needs" if older else None


def main(
    arguments: Sequence[str] | None = None,
    plan: Callable[[Sequence[str], Sequence[int], Sequence[str]], list[Job]] = jobs,
) -> int:
    """Compiles what `plan` makes of the options, prints, and returns the exit status."""
    chosen = _parser().parse_args(arguments)
    missing = unavailable()
    if missing:
        print(f"python -m kernels.aot: {missing}", file=sys.stderr)
        return 2
    todo, begin, ready = plan(chosen.target, chosen.hidden, chosen.precision), time.monotonic(), 0

    def progress(one: Measurement) -> None:
        nonlocal ready
        ready += 1
        if sys.stderr.isatty():
            print(f"\r\033[K{ready}/{len(todo)} {one.target} {one.kernel}", end="", file=sys.stderr, flush=True)

    found = measure_all(todo, progress)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(table(found))
    print(LEGEND)
    failed = [one for one in found if one.failures]
    print(f"{len(found)} kernels compiled and read in {time.monotonic() - begin:.0f} s, {len(failed)} with failures")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    for one in failed:
        for failure in one.failures:
            name = f"{one.kernel} {one.target} {one.precision} hidden {one.hidden} warps {one.num_warps}"
            print(f"failed: {name}: {failure}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.aot", description="Compiles the GPU kernels, with no GPU, and reads their binaries."
    )
    parser.add_argument(
        "--target",
        nargs="+",
        type=_target,
        default=TARGETS,
        metavar="T",
        help=f"of {' '.join(KNOWN)} ({' '.join(TARGETS)})",
    )
    parser.add_argument(
        "--hidden", nargs="+", type=_hidden, default=[32], metavar="H", help=f"1 to {WIDEST_HIDDEN} (32)"
    )
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="(both)")
    parser.add_argument(
        "--json", type=_file, metavar="FILE", help="also write the table, and more, as a list of objects"
    )
    return parser


def _target(text: str) -> str:
    if text not in KNOWN:
        raise argparse.ArgumentTypeError(f"{text}: none of {', '.join(KNOWN)}")
    return text


def _hidden(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= WIDEST_HIDDEN:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to {WIDEST_HIDDEN}")
    return int(text)


def _file(text: str) -> Path:
    if not Path(text).parent.is_dir() or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: not a file in a folder that exists")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
