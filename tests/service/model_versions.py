"""Versions of the small artifact: close to it, far from it, with less in it, broken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.artifact import load_artifact, of_model, save_artifact
from model.zoo.dien import Dien

MODEL, WEIGHTS = "model.json", "model.safetensors"


def near(base: Path, folder: Path, step: float = 0.01) -> str:
    """Weights a little apart; the version."""
    return _with_bias(base, folder, step)


def far(base: Path, folder: Path) -> str:
    """Probabilities near 1."""
    return _with_bias(base, folder, 6.0)


def _with_bias(base: Path, folder: Path, step: float) -> str:
    artifact = load_artifact(base)
    weights = dict(artifact.weights)
    weights["head.output.bias"] = weights["head.output.bias"] + step
    return save_artifact(replace(artifact, weights=weights), folder)


def narrow(base: Path, folder: Path, **changes: Any) -> str:
    """A schema with less in it, and weights to fit."""
    artifact = load_artifact(base)
    schema = replace(artifact.schema, **changes)
    names = (*schema.item_fields, *schema.context_fields, "user_id")
    schema = replace(schema, vocabularies={name: artifact.schema.vocabularies[name] for name in names})
    torch.manual_seed(3)
    return save_artifact(of_model("tiny", Dien(schema, artifact.config), schema, {}, {}), folder)


def flip(folder: Path) -> None:
    """One bit of the weights."""
    file = folder / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


def truncate(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def lose(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def misstate(folder: Path) -> None:
    """The schema is not the one that the version stands for."""
    file = folder / MODEL
    file.write_text(file.read_text().replace('"max_history": 16', '"max_history": 17'))


def unreadable(folder: Path) -> None:
    (folder / MODEL).write_text("{")


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flip, "sha256"),
    "truncated": (truncate, "bytes where model.json states"),
    "missing": (lose, "no such file"),
    "schema": (misstate, "version"),
    "json": (unreadable, "not JSON"),
}


def slow_scorer(served: Any) -> Any:
    """Makes the scorer of a served version wait for `free`; returns it and `busy`."""
    free, busy = threading.Event(), threading.Event()
    score = served.scorer.score_counted

    def held(inputs: Any) -> Any:
        busy.set()
        assert free.wait(10)
        return score(inputs)

    served.scorer.score_counted = held
    return free, busy
