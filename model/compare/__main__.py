"""Compare models and ideas: `python -m model.compare --data ADAPTER:PATH --models all --seeds 5 --out DIR`.

Trains every variant of the chosen studies with the same seeds, many at once, each in a process of one thread; then
measures what serving each costs and writes results.json, table.md and pictures. After a stop or a kill the same command
goes on: finished cells of the grid are kept, one under way resumes from its checkpoint.
Options after `--` go to every training, over the recipe of the data set.

`python -m model.compare --report RESULTS.json ... --out DIR` makes table and pictures of results that are there; with
`--page FILE` it fills in the marked blocks of that page instead, and DIR gets the pictures that they show.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model import strict_json
from model.cli import CommandLine, check_writable, main
from model.compare import estimates
from model.compare.blocks import Blocks
from model.compare.cells import Cell, cells_of
from model.compare.grid import STUDIES, Study, chosen_studies, recipe_of
from model.compare.pictures import draw_all
from model.compare.pool import alone_in, train_cells
from model.compare.results import Comparison, about_data, commit, digest_of, document_of, read_results
from model.compare.serving import measure_serving
from model.compare.tables import page
from model.compare.tables import said as in_short
from model.config import MODELS, ConfigError
from model.data import open_data
from model.pages import fill


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = CommandLine("python -m model.compare", __doc__, "--out DIR")
    option = line.add_argument
    option("--data", default="kuairand:data/kuairand_pure", metavar="ADAPTER:PATH", help="(default: %(default)s)")
    option("--studies", default="models", metavar="A,B", help=f"of {', '.join(STUDIES)}, or all (default: models)")
    option("--models", default="all", metavar="A,B", help=f"of {', '.join(MODELS)}, or all: rows of studies of models")
    option("--seeds", type=int, default=5, metavar="N", help="each variant has the seeds 0 to N - 1 (default: 5)")
    option("--workers", type=int, default=0, metavar="N", help="trainings at once (default: one for each core)")
    option("--out", type=Path, metavar="DIR", help="folder of the results, and of the cells under way")
    option("--list", action="store_true", help="show the grid, what is finished and an estimate, and end")
    option("--report", type=Path, nargs="+", metavar="FILE", help="results.json of comparisons: train nothing")
    option(
        "--page", type=Path, metavar="FILE", help="a page whose marked blocks --report fills in (docs/models.md is one)"
    )
    option("words", nargs="*", metavar="-- OPTIONS", help="of model.train, for every training")
    return line


def run(arguments: Sequence[str] | None = None) -> None:
    """Compare from the command line; exit status 1 where a cell failed."""
    args = parser().parse_args(arguments)
    for name, least in (("seeds", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"{name}={getattr(args, name)}: at least {least}")
    if args.out is None and not args.list:
        raise ConfigError("out: needed, a folder for the results; --help lists the options")
    if args.page and not args.report:
        raise ConfigError("page: filled in from results; --report names them")
    if args.report:
        found = [read_results(file) for file in args.report]
        check_labels(found)
        check_writable(args.out)
        if args.page:
            fill(args.page, blocks := Blocks(found, args.page.parent, args.out))
            print(f"{args.page}: filled in, with {len(blocks.shown)} pictures in {args.out}")
        else:
            report(found, args.out)
        return
    compare(args, ["python", "-m", "model.compare", *(sys.argv[1:] if arguments is None else arguments)])


def compare(args: argparse.Namespace, command: list[str]) -> None:
    """Train what is missing, measure, and report."""
    data = open_data(args.data)
    recipe = [*recipe_of(data), *args.words]
    shared = ["--data", args.data, "--device", "cpu", "--threads", "1", *recipe]
    studies = chosen_studies(args.studies.split(","), args.models.split(","), data, shared)
    cells, keys = cells_of(studies, args.seeds, shared, args.out or Path())
    about, work = about_data(args.data, data, digest_of(data)), estimates.work_of(data)
    del data
    workers = args.workers or cores()
    for cell in cells:
        cell.check(about["digest"])
    if args.list:
        show(studies, keys, cells, estimates.Estimates(cells, work), workers)
        return
    check_writable(args.out)
    with alone_in(args.out) as lock:
        for cell in cells:
            if cell.finished:
                cell.clear()
        facts = {"commit": commit()}
        seconds = estimates.Estimates(cells, work)
        failures = train_cells(cells, seconds, workers=workers, digest=about["digest"], facts=facts, lock=lock)
        kept = {cell.key: cell.folder / "model" for cell in cells if cell.keeps_artifact and cell.finished}
        serving, wrong = measure_serving(kept)
        failed = {failure.cell.name: failure.reason for failure in failures} | wrong
        how: dict[str, Any] = {"command": command, "recipe": recipe, "seeds": args.seeds, "workers": workers}
        commits = sorted({str(cell.result()["commit"]) for cell in cells if cell.finished})
        document = document_of({**how, "commits": commits, "data": about}, studies, keys, cells, serving, failed)
        strict_json.write(args.out / "results.json", document)
        report([read_results(args.out / "results.json")], args.out)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show(
    studies: Sequence[Study],
    keys: dict[str, dict[str, str]],
    cells: Sequence[Cell],
    seconds: estimates.Estimates,
    workers: int,
) -> None:
    """The grid, for people."""
    by_key: dict[str, list[Cell]] = {}
    for cell in cells:
        by_key.setdefault(cell.key, []).append(cell)
    seen: set[str] = set()
    for study in studies:
        print(f"{study.name}: {study.question}")
        for one in study.variants:
            key = keys[study.name][one.name]
            own = by_key[key]
            over = sum(cell.finished for cell in own)
            again = ", shared" if key in seen else ""
            seen.add(key)
            print(f"  {one.name:<38} {key:<44} {over} of {len(own)} finished, {seconds(own[0]):.0f} s each{again}")
    left = [cell for cell in cells if not cell.finished]
    minutes = sum(map(seconds, left)) / 60
    print(
        f"{len(cells)} cells, {len(left)} to train: {minutes:.0f} minutes of one thread, "
        f"about {minutes / workers:.0f} with {workers} at once"
    )


def check_labels(comparisons: Sequence[Comparison]) -> None:
    """Raise ConfigError for two comparisons of one name."""
    labels = [one.label for one in comparisons]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"report: two results called {label!r}; rename one of the files")


def report(comparisons: Sequence[Comparison], out: Path) -> None:
    """Table and pictures of results."""
    pictures: dict[str, list[str]] = {}
    for one in comparisons:
        pictures |= draw_all(one, out)
        print("\n".join(in_short(one)))
    (out / "table.md").write_text(page(comparisons, pictures), encoding="utf-8")
    print(f"written to {out}: table.md and {sum(map(len, pictures.values()))} pictures")


if __name__ == "__main__":
    main(run)
