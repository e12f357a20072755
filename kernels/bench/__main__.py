"""The command line."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from kernels.bench import ours, report
from kernels.bench.case import Size
from kernels.bench.rounds import Result, Task, measure
from kernels.bench.series import CASES, HEADLINE, Choice, tasks
from kernels.bench.targets import judge

SIZES = {
    "users": "users",
    "candidates": "candidates of each user",
    "steps": "steps of each user",
    "hidden": "hidden size",
}


def parser() -> argparse.ArgumentParser:
    """All options."""
    wide = partial(argparse.HelpFormatter, max_help_position=30, width=110)
    about = "Checks, then times interest evolution against what else one could run. 1 if an output is wrong."
    line = argparse.ArgumentParser(prog="python -m kernels.bench", description=about, formatter_class=wide)
    option = line.add_argument
    option("--cases", choices=CASES, default="default", help="default: headline and growth; all: the whole grid, too")
    for name, what in SIZES.items():
        default = getattr(HEADLINE, name)
        option(f"--{name}", type=_count, default=default, metavar="N", help=f"{what} in the headline case ({default})")
    option("--threads", type=_count, default=1, metavar="N", help="threads of torch, and of ours beside 1 and 2 (1)")
    option("--repeats", type=_count, default=30, metavar="N", help="rounds at most; long cases have fewer (30)")
    option("--compile", action="store_true", help="torch.compile, too: a minute or more")
    option("--isa", nargs="+", choices=ours.ISAS, default=ours.ISAS, help="instruction sets of ours (all)")
    option("--contenders", nargs="+", default=["*"], metavar="PATTERN", help="only these, such as 'native-*'")
    option("--json", type=Path, metavar="FILE", help="also write the last line, the results, to a file")
    option("--plot", type=Path, metavar="FILE.png", help="draw how time grows; needs matplotlib")
    return line


def main(arguments: Sequence[str] | None = None, cases: Callable[[Choice], list[Task]] = tasks) -> int:
    """Checks, times and prints. Returns 0, or 1 for a wrong output: then its case is not timed, nor any after it."""
    line = parser()
    args = line.parse_args(arguments)
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        line.error("--plot: matplotlib is not installed; the extra `train` has it")
    size = Size(*(getattr(args, name) for name in SIZES))
    choice = Choice(size, args.cases, args.threads, args.compile, tuple(args.isa), tuple(args.contenders))
    chosen = cases(choice)
    if not chosen:
        line.error(f"--contenders: no contender of these cases fits {' or '.join(args.contenders)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(choice.threads)
    try:
        with torch.inference_mode():
            results = _run(chosen, args.repeats)
    finally:
        torch.set_num_threads(threads)
    return _conclude(choice, results, args.json, args.plot)


def _run(chosen: Sequence[Task], repeats: int) -> list[Result]:
    """Each case in turn, its table printed when it is done, up to one with a wrong output."""
    print(report.LEGEND, end="\n\n")
    found: list[Result] = []
    peak = ours.peak if ours.isa_in_use() else None
    for task in chosen:
        results = measure(task, repeats, peak)
        found += results
        print(report.table(task, results), end="\n\n", flush=True)
        if any(result.correct is False for result in results):
            break
    return found


def _conclude(choice: Choice, results: Sequence[Result], file: Path | None, picture: Path | None) -> int:
    judged = judge(results, choice.threads)
    grown = report.growth_tables(results, choice.size)
    for part in (grown, report.judged_lines(judged) if judged else ""):
        if part:
            print(part, end="\n\n")
    wrong = [result for result in results if result.correct is False]
    if picture and not wrong:
        importlib.import_module("kernels.bench.plot").plot(results, choice.size, picture)
    text = json.dumps(report.as_json(choice, results, judged), allow_nan=False)
    print(text)
    if file:
        file.write_text(text + "\n")
    for result in wrong:
        error = result.largest_error
        said = "of another shape or no number" if error is None else f"off by {error:.1e}"
        allowed = f"{result.contender.tolerance:g} is allowed"
        print(f"{result.name}: {said}, {allowed} ({result.task.size}); this case was not timed", file=sys.stderr)
    return 1 if wrong else 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
