"""The marked blocks of a page (see `model.pages`) that results of comparisons fill in.

- `how`: what the tables' figures are.
- `about LABEL`: data, command, recipe, machine.
- `table LABEL/STUDY`: a study's table.
- `pictures LABEL/STUDY [KIND ...]`: its pictures, or those of these kinds.
- `paper LABEL`: its models beside those of DIEN's table 2.
- `even LABEL`: DIEN against all models with the auxiliary loss, which it alone has in that table.

LABEL is a comparison's (`Comparison.label`). A block whose comparison is not among those given, or was made without the
study, says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.compare.grid import STUDIES
from model.compare.pictures import figures_of, picture_name
from model.compare.results import Comparison, Row
from model.compare.tables import HOW, about, difference, short, spread, table
from model.config import MODELS, NONE, ConfigError

MISSING = "Not measured yet."
# DIEN, table 2: mean AUC of 5 runs and its deviation, on Amazon's Electronics and Books.
PAPER = {
    "base": ((0.7435, 0.00128), (0.7686, 0.00253)),
    "wide_deep": ((0.7456, 0.00127), (0.7735, 0.00051)),
    "pnn": ((0.7543, 0.00101), (0.7799, 0.00181)),
    "din": ((0.7603, 0.00028), (0.7880, 0.00216)),
    "gru_attention": ((0.7605, 0.00059), (0.7890, 0.00268)),
    "aigru": ((0.7606, 0.00061), (0.7892, 0.00222)),
    "agru": ((0.7628, 0.00015), (0.7890, 0.00268)),
    "augru": ((0.7640, 0.00073), (0.7911, 0.00150)),
    "dien": ((0.7792, 0.00243), (0.8453, 0.00476)),
}
OURS_HEAD = ("AUC", "above BaseModel", "DIEN above it")
PAPER_HEAD = (*OURS_HEAD, "paper, Electronics", "above BaseModel", "paper, Books", "above BaseModel")


class Blocks:
    """Makes the blocks of a page in a folder `home`, and with `draws` the pictures that they show, in `pictures`."""

    def __init__(self, comparisons: Sequence[Comparison], home: Path, pictures: Path, *, draws: bool = True) -> None:
        self.comparisons = {one.label: one for one in comparisons}
        self.home, self.pictures, self.draws = home, pictures, draws
        self.shown: list[str] = []

    def __call__(self, words: Sequence[str]) -> str:
        """The text of a block. Raises ConfigError for what no block is called."""
        if list(words) == ["how"]:
            return HOW
        of_all: Mapping[str, Any] = {"about": about, "paper": beside_paper, "even": on_even_terms}
        kinds = {**of_all, "table": self._table, "pictures": self._show}
        if len(words) < 2 or words[0] not in kinds or (len(words) > 2 and words[0] != "pictures"):
            raise ConfigError(f"block {' '.join(words)!r}: how, or a name after {', '.join(kinds)}")
        kind, (label, _, name), more = words[0], words[1].partition("/"), words[2:]
        one = self.comparisons.get(label)
        if one is None:
            return MISSING
        if kind in of_all:
            return str(of_all[kind](one))
        studies = {study["name"]: study for study in one.studies}
        if name not in STUDIES:
            raise ConfigError(f"block {' '.join(words)!r}: the studies are {', '.join(STUDIES)}")
        if name not in studies:
            return MISSING
        return str(kinds[kind](one, studies[name], *more))

    def _table(self, one: Comparison, study: Mapping[str, Any]) -> str:
        return table(one.rows(study), int(one.document["seeds"]))

    def _show(self, one: Comparison, study: Mapping[str, Any], *kinds: str) -> str:
        figures = figures_of(one, study)
        for kind in kinds:
            if kind not in figures:
                raise ConfigError(f"block pictures {one.label}/{study['name']} {kind}: one of {', '.join(figures)}")
        files = [self.pictures / picture_name(one, study, kind) for kind in kinds or figures]
        for kind, file in zip(kinds or figures, files, strict=True):
            if self.draws:
                figures[kind]().savefig(file, dpi=100)
        self.shown += map(str, files)
        return "\n\n".join(f"![{study['question']}]({os.path.relpath(file, self.home)})" for file in files)


def beside_paper(one: Comparison) -> str:
    """The models of the comparison with what each is above BaseModel, here and in the paper, and below DIEN here."""
    rows = _rows(one, "models")
    if not rows:
        return MISSING
    by_model = {row.variant["settings"]["model"]: row for row in rows}
    base, dien = by_model.get("base"), by_model.get("dien")
    lines = ["| | " + " | ".join(PAPER_HEAD) + " |", "|---|" + "---|" * len(PAPER_HEAD)]
    for row in rows:
        model = row.variant["settings"]["model"]
        cells = [spread(row.of("auc")), "-" if row is base else difference(row, base, False)]
        cells.append("-" if dien is None or row is dien else difference(dien, row, False))
        for (mean, deviation), (of_base, _) in zip(PAPER[model], PAPER["base"], strict=True):
            cells += [
                f"{short(mean)} ± {short(deviation, places=5)}",
                short(mean - of_base, "+") if mean != of_base else "-",
            ]
        lines.append("| " + " | ".join([MODELS[model].title, *cells]) + " |")
    return "\n".join(lines)


def on_even_terms(one: Comparison) -> str:
    """All models with the auxiliary loss: how far DIEN is above each, and what serving each costs."""
    rows = [row for row in _rows(one, "auxiliary-everywhere") if row.variant["settings"]["auxiliary"] != NONE]
    dien = next((row for row in rows if row.variant["settings"]["model"] == "dien"), None)
    if dien is None:
        return MISSING
    lines = [
        "| with the auxiliary loss | AUC | DIEN above it | serving µs | DIEN's serving, times |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [MODELS[row.variant["settings"]["model"]].title, spread(row.of("auc"))]
        cells.append("-" if row is dien else difference(dien, row, False))
        ours, its = ((one.micros or {}).get("median") for one in (dien, row))
        cells += [f"{its:.2f}", f"{ours / its:.2f}"] if ours and its else ["-", "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rows(one: Comparison, name: str) -> list[Row]:
    """Those of a study, if the comparison has it."""
    study = next((study for study in one.studies if study["name"] == name), None)
    return one.rows(study) if study else []
