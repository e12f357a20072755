"""Checkpoints of a run: written whole or not at all, read only by the run they are of."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.config import ConfigError

FILE = "checkpoint.pt"
KEYS = {"settings", "step", "seconds", "cpu_seconds", "objective", "optimizer", "history", "best"}


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the folder's checkpoint, over an older one too."""
    writing = folder / f".{FILE}.new"
    torch.save(dict(state), writing)
    os.replace(writing, folder / FILE)


def read_checkpoint(folder: Path, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The folder's checkpoint. Raises ConfigError for a damaged one, and for one of a run with other settings."""
    file = folder / FILE
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{file}: not a checkpoint, or damaged: {(str(error) or 'cut short').splitlines()[0]}"
        ) from None
    if not isinstance(state, dict) or state.keys() != KEYS:
        raise ConfigError(f"{file}: not a checkpoint of this build; another --run starts anew")
    for name, value in settings.items():
        if name not in state["settings"] or state["settings"][name] != value:
            raise ConfigError(f"{name}={value!r}: {file} is of a run with {state['settings'].get(name)!r}")
    return state
