"""How long a grid will take: from its own finished cells, and before there are any from the size of the work."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from model.compare.cells import Cell
from model.config import MODELS
from model.data import TRAIN, DataSet

# Microseconds of one thread for a training row: what every model takes, and what a step of its history adds. Rough:
# they give a grid its first estimate; cells that are finished replace them.
ROW, STEP = 60.0, 0.4
OF_STEP = {"din": 2.0, "gru_attention": 4.0, "aigru": 6.0, "agru": 6.0, "augru": 6.0, "dien": 7.0}
AUXILIARY = 3.0  # of a step, for a model that has no interest states of its own
START = 12.0  # seconds until a process trains, and for what it reports at the end


class Work(NamedTuple):
    """How much there is to train on."""

    rows: int  # of the training split, drawn negatives included
    lengths: Any  # [rows] behaviours before each


def work_of(data: DataSet) -> Work:
    """The training split's."""
    shown = data.split(TRAIN)
    first, end = data.behaviors.before(shown.user_ids, shown.timestamps_ms)
    return Work(len(shown) * (2 if data.sampled_negatives else 1), end - first)


def guess(cell: Cell, work: Work) -> float:
    """Seconds of a cell before any of its kind has been trained."""
    settings = cell.settings
    steps = float(np.minimum(work.lengths, settings["max_history"]).mean()) if len(work.lengths) else 0.0
    rows = work.rows * (max(steps, 1.0) if settings["prefixes"] else 1.0)
    hidden = [settings["hidden"], *([settings["booster_hidden"]] if "booster_hidden" in settings else [])]
    own = OF_STEP.get(settings["model"], STEP)
    if settings["auxiliary"] != "none" and not MODELS[settings["model"]].recurrent:
        own += AUXILIARY
    micros = sum(ROW + steps * own * max(0.5, size / 32) for size in hidden)
    return float(START + rows * settings["epochs"] * micros / 1e6)


class Estimates:
    """Seconds of a cell: the median of its variant's finished cells, else a guess at the pace of those of others."""

    def __init__(self, cells: Sequence[Cell], work: Work) -> None:
        self.work = work
        self.known: dict[str, list[float]] = {}
        pace = []
        for cell in cells:
            if cell.finished:
                took = float(cell.result()["wall_seconds"])
                self.known.setdefault(cell.key, []).append(took)
                pace.append(took / guess(cell, work))
        self.pace = statistics.median(pace) if pace else 1.0

    def __call__(self, cell: Cell) -> float:
        """Of one cell."""
        known = self.known.get(cell.key)
        return statistics.median(known) if known else self.pace * guess(cell, self.work)
