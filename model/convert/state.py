"""A checkpoint's tensors, read without running anything in it: each asked for by name and shape, none left over."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model import safe_tensors
from model.config import ConfigError

SHOWN = 8  # names of a complaint


class State:
    """A state dict. All complaints are ConfigErrors that name the file and the key."""

    def __init__(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        self._tensors, self.file = tensors, file
        self._unread = set(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def under(self, prefix: str) -> list[str]:
        """Names that begin with `prefix`."""
        return sorted(name for name in self._tensors if name.startswith(prefix))

    def rank(self, name: str) -> int | None:
        """How many dimensions a tensor has; None where there is none of this name."""
        return self._tensors[name].dim() if name in self._tensors else None

    def columns(self, name: str) -> int:
        """Size of the last dimension of a tensor that there is."""
        return self._tensors[name].shape[-1]

    def take(self, name: str, *shape: int | None) -> Tensor:
        """A tensor as float64; None stands for a size that is free. ConfigError if it is absent or of another shape."""
        if name not in self._tensors:
            raise ConfigError(f"{self.file}: {name} is missing")
        tensor = self._tensors[name]
        due = [size if size is not None else "any" for size in shape]
        fits = len(shape) == tensor.dim() and all(
            size in (None, found) for size, found in zip(shape, tensor.shape, strict=True)
        )
        if not fits or not tensor.is_floating_point():
            raise ConfigError(f"{self.file}: {name} is {tensor.dtype} {list(tensor.shape)} where floats {due} are due")
        if not torch.isfinite(tensor).all():
            raise ConfigError(f"{self.file}: {name} has a value that is not finite")
        self._unread.discard(name)
        return tensor.double()

    def skip(self, *prefixes: str) -> None:
        """Leave what begins so unread: it has no part in a score, or is part of what was refused."""
        self._unread = {name for name in self._unread if not name.startswith(prefixes)}

    def finish(self) -> None:
        """Raise ConfigError for what nothing has asked for."""
        if self._unread:
            names = sorted(self._unread)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise ConfigError(f"{self.file}: unknown keys: {', '.join(names[:SHOWN])}{more}")


def read_state(file: Path) -> State:
    """A state dict of `torch.save` or of safetensors (by its ending). Raises ConfigError for all that is neither."""
    if file.suffix == ".safetensors":
        try:
            return State(safe_tensors.load(file.read_bytes()), file)
        except ValueError as error:
            raise ConfigError(f"{file}: not safetensors: {error}") from None
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{file}: {_pickled(str(error))}; save the state dict alone: model.state_dict()") from None
    except (RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # it says which file, and why it cannot be opened
        first = (str(error) or "cut short").splitlines()[0]
        raise ConfigError(f"{file}: not a checkpoint of torch.save, or damaged: {first}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: holds a {type(found).__name__}; save the state dict alone: model.state_dict()")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ConfigError(f"{file}: {name!r} is no tensor; save the state dict alone: model.state_dict()")
    return State(found, file)


def _pickled(message: str) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", message)
    return f"more than tensors: reading it would run {asked[1]}" if asked else "not a checkpoint that is safe to read"
