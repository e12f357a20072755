"""`results.json`: everything a comparison measured and what it was measured on, to write, to read and to look up."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.bench.report import machine
from model import strict_json
from model.compare.cells import Cell
from model.compare.grid import Study
from model.compare.statistics import Estimate, estimate, paired
from model.config import ConfigError
from model.data import DEV, TEST, TRAIN, DataSet

FORMAT, FORMAT_VERSION = "augur-comparison", 1
RESULTS = "results"
OF_A_CELL = ("seed", "split_seed")  # settings that a variant's cells do not share


def digest_of(data: DataSet) -> str:
    """SHA-256 of a data set as its adapter makes it of files: items, behaviours, impressions."""
    total = hashlib.sha256()
    items, past, shown = data.items, data.behaviors, data.impressions
    columns: list[npt.NDArray[Any]] = [items.item_ids, *items.fields.values(), past.user_ids, past.offsets]
    columns += [past.item_ids, past.timestamps_ms]
    columns += [column for column in (past.actions, past.negatives) if column is not None]
    columns += [shown.user_ids, shown.item_ids, shown.timestamps_ms, shown.clicks, shown.splits]
    columns += list(shown.context.values())
    for column in columns:
        total.update(f"{column.dtype}{len(column)}".encode())
        total.update(np.ascontiguousarray(column).data)
    return total.hexdigest()


def about_data(name: str, data: DataSet, digest: str) -> dict[str, Any]:
    """What was learnt from."""
    splits = {"train": TRAIN, "dev": DEV, "test": TEST}
    return {
        "name": name,
        "description": data.description,
        "digest": digest,
        "items": len(data.items.item_ids),
        "users": len(data.behaviors.user_ids),
        "behaviors": len(data.behaviors.item_ids),
        **{split: int((data.impressions.splits == number).sum()) for split, number in splits.items()},
        "negatives_drawn": data.sampled_negatives,
    }


def commit() -> str | None:
    """The commit of this checkout, with `+` behind it where files differ from it; None outside of one."""

    def git(*words: str) -> str:
        line = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("augur", "torch", "numpy")}


def document_of(
    about: Mapping[str, Any],
    studies: Sequence[Study],
    keys: Mapping[str, Mapping[str, str]],
    cells: Sequence[Cell],
    serving: Mapping[str, Any],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """The whole of `results.json`. `about` says how and on what; `failed` why by the name of a cell or variant."""
    variants: dict[str, Any] = {}
    for cell in cells:
        own = {name: value for name, value in cell.settings.items() if name not in OF_A_CELL}
        one = variants.setdefault(cell.key, {"module": cell.module, "settings": own, "parameters": None, "cells": []})
        if cell.finished:
            result = cell.result()
            one["parameters"] = result.pop("parameters") if one["parameters"] is None else one["parameters"]
            one["cells"].append(result)
    for key, one in variants.items():
        one["serving"] = serving.get(key)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "machine": machine(),
        "versions": versions(),
        **about,
        "studies": [_study(study, keys[study.name]) for study in studies],
        "variants": variants,
        "failed": dict(failed),
    }


def _study(study: Study, keys: Mapping[str, str]) -> dict[str, Any]:
    rows = [
        {"name": one.name, "variant": keys[one.name], "reference": study.reference_of(one)} for one in study.variants
    ]
    return {"name": study.name, "question": study.question, "axis": study.axis, "rows": rows}


def _known(by_seed: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in by_seed.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Row:
    """A variant as one study has it."""

    name: str
    reference: str
    variant: Mapping[str, Any]
    split: str  # that it is judged on

    @property
    def cells(self) -> Sequence[Mapping[str, Any]]:
        """What came of every seed that was trained."""
        cells: Sequence[Mapping[str, Any]] = self.variant["cells"]
        return cells

    def by_seed(self, metric: str, split: str | None = None) -> dict[int, float]:
        """A metric of each seed."""
        found = {cell["seed"]: cell["metrics"][split or self.split].get(metric) for cell in self.cells}
        return _known(found)

    def of(self, metric: str, split: str | None = None) -> Estimate | None:
        """A metric over all seeds; None where none has it."""
        values = list(self.by_seed(metric, split).values())
        return estimate(values) if values else None

    def above(self, other: Row, metric: str = "auc") -> Estimate | None:
        """What a metric is above another row's, seed by seed."""
        return paired(self.by_seed(metric), other.by_seed(metric))

    def of_boosters(self, metric: str = "auc") -> dict[int, float]:
        """By seed, the metric of the booster that a net was distilled from; empty for one that was not."""
        found = {cell["seed"]: cell["metrics"].get("booster", {}).get(metric) for cell in self.cells}
        return _known(found)

    @property
    def seconds(self) -> float:
        """Of training by the clock, the mean over seeds."""
        return estimate([cell["training"]["seconds"] for cell in self.cells]).mean

    @property
    def cpu_seconds(self) -> float | None:
        """CPU seconds of training, the mean over seeds; None where a seed was trained before they were counted."""
        found = [cell["training"].get("cpu_seconds") for cell in self.cells]
        return None if None in found else estimate(found).mean

    @property
    def micros(self) -> Mapping[str, float] | None:
        """Of serving a candidate: median and least."""
        found: Mapping[str, float] | None = (self.variant["serving"] or {}).get("us_per_candidate")
        return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """A `results.json` to look things up in."""

    document: Mapping[str, Any] = field(repr=False)
    name: str = RESULTS  # its file's, without `.json`

    @property
    def label(self) -> str:
        """What it goes by: its file's name, or of a plain `results.json` the data set's."""
        if self.name != RESULTS:
            return self.name
        location = str(self.document["data"]["name"]).partition(":")[2].rstrip("/")
        return Path(location).name or "data"

    @property
    def split(self) -> str:
        """What variants are judged on: test, where there is one."""
        return "test" if self.document["data"]["test"] else "dev"

    @property
    def studies(self) -> Sequence[Mapping[str, Any]]:
        """All studies."""
        studies: Sequence[Mapping[str, Any]] = self.document["studies"]
        return studies

    def rows(self, study: Mapping[str, Any]) -> list[Row]:
        """A study's rows that have at least one seed trained."""
        variants = self.document["variants"]
        rows = [Row(one["name"], one["reference"], variants[one["variant"]], self.split) for one in study["rows"]]
        return [row for row in rows if row.cells]


def read_results(file: Path) -> Comparison:
    """A `results.json`. Raises ConfigError for what is none of this build."""
    try:
        document = strict_json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    stated = (document.get("format"), document.get("format_version")) if isinstance(document, dict) else None
    if stated != (FORMAT, FORMAT_VERSION):
        raise ConfigError(f"{file}: not the results of a comparison that this build reads")
    return Comparison(document, file.stem)
