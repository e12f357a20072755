"""What the command lines of training, distillation and evaluation share: options from dataclasses, clear errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from kernels import BackendUnavailableError, KernelInputError
from model.artifact import ArtifactError
from model.data import DataError, DataSet, open_data
from model.dien import ConfigError
from model.features import FeatureSchema, fit_schema

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which data, and which features of it."""

    data: str = field(default="kuairand:data/kuairand_pure", metadata={"help": "ADAPTER:PATH"})
    max_history: int = field(default=50, metadata={"help": "newest behaviours that count"})
    min_count: int = field(default=1, metadata={"help": "an id seen less often shares the out-of-vocabulary row"})
    user_id: bool = field(default=True, metadata={"help": "the user's own id as a feature"})
    context: tuple[str, ...] | None = field(default=None, metadata={"help": "context fields, by comma; all by default"})
    split_seed: int = field(default=0, metadata={"help": "of the split of users, where the data has none of its own"})
    prefixes: bool = field(default=False, metadata={"help": "train on every prefix of a sequence, not the whole alone"})

    def __post_init__(self) -> None:
        for name in ("max_history", "min_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1")

    def open(self) -> tuple[DataSet, FeatureSchema]:
        """The data set and the schema fitted to its training split."""
        data = open_data(self.data, split_seed=self.split_seed, prefixes=self.prefixes)
        schema = fit_schema(
            data, min_count=self.min_count, max_history=self.max_history, user_id=self.user_id, context=self.context
        )
        return data, schema


def add_settings(parser: argparse.ArgumentParser, kind: type, *, prefix: str = "", skip: tuple[str, ...] = ()) -> None:
    """One option for each field of a dataclass of settings."""
    group = parser.add_argument_group((kind.__doc__ or "").splitlines()[0])
    for one in fields(kind):
        if one.name not in skip:
            group.add_argument(f"--{prefix}{one.name}".replace("_", "-"), **_option(one))


def _option(one: Field[Any]) -> dict[str, Any]:
    default = one.default
    if default is MISSING:
        raise TypeError(f"{one.name}: a setting needs a default")
    option: dict[str, Any] = {"default": default, "help": f"{one.metadata.get('help', '')} (default: {default})"}
    if isinstance(default, bool):
        return option | {"action": argparse.BooleanOptionalAction}
    if isinstance(default, tuple) or default is None:
        whole = isinstance(default, tuple) and isinstance(default[0], int)
        return option | {"type": _list_of(int if whole else str), "metavar": "A,B"}
    if "choices" in one.metadata:
        option["choices"] = one.metadata["choices"]
    return option | {"type": type(default)}


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(",") if part)

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def settings(args: argparse.Namespace, kind: type[Settings], *, prefix: str = "", **fixed: Any) -> Settings:
    """The dataclass that the options say. Raises ConfigError as its checks do."""
    names = [one.name for one in fields(kind) if one.name not in fixed]  # type: ignore[arg-type]
    return kind(**{name: getattr(args, f"{prefix}{name}".replace("-", "_")) for name in names}, **fixed)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of where a run happens."""
    group = parser.add_argument_group("Where")
    group.add_argument("--out", type=Path, required=True, help="folder of the artifact to write")
    group.add_argument(
        "--run", type=Path, help="folder of checkpoint, metrics and TensorBoard (default: runs/NAME of out)"
    )
    group.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:N; auto: a GPU if there is one")
    group.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own)")


def device_of(args: argparse.Namespace) -> torch.device:
    """The device that `--device` means, with `--threads` applied."""
    if args.threads < 0:
        raise ConfigError(f"threads={args.threads}: at least 1, or 0 for torch's own number")
    if args.threads:
        torch.set_num_threads(args.threads)
    name = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name!r}: {str(error).splitlines()[0]}") from None
    return device


def run_folder(args: argparse.Namespace, *, first: bool) -> Path:
    """The run's folder, made; ConfigError where it holds another run, or none to resume."""
    folder: Path = args.run or Path("runs") / args.out.name
    if args.resume and not (folder / "checkpoint.pt").is_file():
        raise ConfigError(f"resume: {folder} holds no checkpoint")
    if first and not args.resume and (folder / "checkpoint.pt").exists():
        raise ConfigError(f"run={folder}: holds a run already; --resume goes on with it, another --run starts anew")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(body: Callable[[], None]) -> None:
    """Run a command line; what its user did wrong becomes one line on stderr and exit code 2."""
    try:
        body()
    except (ArtifactError, BackendUnavailableError, ConfigError, DataError, KernelInputError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
