"""Cells of the grid: one variant trained with one seed, in a folder of its own that says how far it is.

`settings.json` is what is to be trained on which data, `run/` a training under way, `model/` its artifact, `log.txt`
what it said, `result.json` what came of it: a cell that has one is finished.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import checkpoint, strict_json
from model.artifact import load_artifact
from model.compare.grid import Study, Variant, key_of, resolved, seed_words
from model.config import ConfigError
from model.metrics import METRICS
from model.training import UNBOUND

SETTINGS, RESULT, LOG, RUN, MODEL = "settings.json", "result.json", "log.txt", "run", "model"
TRAINING = 0.8  # of a cell's time; the rest is its start and its metrics on test
LAST_LINES = 5  # of a failed cell's log


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant with one seed."""

    key: str
    seed: int
    module: str
    words: tuple[str, ...]
    settings: Mapping[str, Any]
    folder: Path
    keeps_artifact: bool  # of one seed of each variant, to measure what serving costs

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.key} seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        there = (self.folder / MODEL).is_dir() or not self.keeps_artifact
        return there and (self.folder / RESULT).exists()

    @property
    def evaluations(self) -> int:
        """On dev, if it is not stopped early."""
        return int(self.settings["epochs"] * self.settings["evaluations"])

    @property
    def progress(self) -> float:
        """About what share of its time it has behind it, by its evaluations on dev."""
        file = self.folder / RUN / "metrics.json"
        return TRAINING * min(1.0, len(_read(file)["dev"]) / self.evaluations) if file.exists() else 0.0

    def check(self, digest: str) -> None:
        """Raise ConfigError for a folder that holds a training of other settings or other data."""
        file = self.folder / SETTINGS
        if not file.exists():
            return
        found, due = _read(file), self._document(digest)
        for name in [*due, *found]:
            if found.get(name) != due.get(name):
                was = f"{name}={found.get(name)!r} where it is {due.get(name)!r} now"
                raise ConfigError(f"{self.folder}: trained with {was}; remove it, or name another --out")

    def _document(self, digest: str) -> dict[str, Any]:
        bound = {name: value for name, value in self.settings.items() if name not in UNBOUND}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in bound.items()}
        return {"module": self.module, **plain, "data_digest": digest}

    def command(self, digest: str) -> list[str]:
        """What is to be run, in a folder made ready for it; a training under way is gone on with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        strict_json.write(self.folder / SETTINGS, self._document(digest))
        where = ["--out", str(self.folder / MODEL), "--run", str(self.folder / RUN)]
        resume = ["--resume"] if (self.folder / RUN / checkpoint.FILE).exists() else []
        return [sys.executable, "-m", "model.compare.run_cell", self.module, *self.words, *where, *resume]

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Keep what a finished training is worth, and delete the rest. `facts` are written along."""
        artifact = load_artifact(self.folder / MODEL)
        run = artifact.training["run"]
        metrics = {
            split: _metrics_of(artifact.metrics[split]) for split in ("dev", "test") if split in artifact.metrics
        }
        if "booster" in artifact.metrics:
            metrics["booster"] = _metrics_of(
                artifact.metrics["booster"].get("test", artifact.metrics["booster"]["dev"])
            )
        result = {
            "seed": self.seed,
            "parameters": artifact.parameters,
            "metrics": metrics,
            "training": {
                **run,
                "curve": [_rounded(point) for point in _read(self.folder / RUN / "metrics.json")["dev"]],
            },
            **facts,
        }
        strict_json.write(self.folder / RESULT, result)
        self.clear()

    def clear(self) -> None:
        """Delete what a finished cell needs no more: checkpoint and TensorBoard's events, the artifact if not kept."""
        written_in_part = self.folder.glob(f".{MODEL}.*")  # by a process that was killed
        for part in (self.folder / RUN, *written_in_part, *([] if self.keeps_artifact else [self.folder / MODEL])):
            shutil.rmtree(part, ignore_errors=True)

    def result(self) -> dict[str, Any]:
        """What came of a finished cell."""
        return _read(self.folder / RESULT)

    def last_lines(self) -> list[str]:
        """The end of its log, a bar of progress as it was last seen."""
        log = self.folder / LOG
        lines = [line.rpartition("\r")[2] for line in log.read_text("utf-8", "replace").rstrip().split("\n")]
        return [line for line in lines if line.strip()][-LAST_LINES:]


def cells_of(
    studies: Sequence[Study], seeds: int, words: Sequence[str], folder: Path
) -> tuple[list[Cell], dict[str, dict[str, str]]]:
    """All cells, seed after seed and each once, and by study the key of every variant. `words` are shared options."""
    keys = {study.name: {one.name: key_of(one, words) for one in study.variants} for study in studies}
    variants: dict[str, Variant] = {}
    for study in studies:
        for one in study.variants:
            variants.setdefault(keys[study.name][one.name], one)
    cells = []
    for seed in range(seeds):
        for key, one in variants.items():
            own = (*words, *seed_words(seed), *one.words)
            place = folder / "cells" / key / f"seed-{seed}"
            cells.append(Cell(key, seed, one.module, own, resolved(one, own), place, keeps_artifact=seed == 0))
    return cells, keys


def _metrics_of(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: found[name] for name in METRICS}


def _rounded(point: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in point.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        value = strict_json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}; remove its folder") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: must be an object; remove its folder")
    return value
