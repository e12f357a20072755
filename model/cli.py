"""What the command lines of training, distillation and evaluation share: options from dataclasses, clear errors."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from kernels import BackendUnavailableError, KernelInputError
from model import checkpoint
from model.artifact import ArtifactError, check_target
from model.artifact_checks import LONGEST_HISTORY, check_name
from model.config import ConfigError
from model.data import BEHAVIORS, DataError, DataSet, open_data
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
    behaviors: str = field(
        default="all",
        metadata={"help": "that count: all, those chosen alone, or all without what was done", "choices": BEHAVIORS},
    )

    def __post_init__(self) -> None:
        if not 1 <= self.max_history <= LONGEST_HISTORY:
            raise ConfigError(f"max_history={self.max_history}: from 1 to {LONGEST_HISTORY}")
        for name, least in (("min_count", 1), ("split_seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: at least {least}")
        if len(set(self.context or ())) < len(self.context or ()):
            raise ConfigError(f"context={','.join(self.context or ())}: a field occurs twice")

    def open(self) -> tuple[DataSet, FeatureSchema]:
        """The data set and the schema fitted to its training split."""
        data = open_data(self.data, split_seed=self.split_seed, prefixes=self.prefixes, behaviors=self.behaviors)
        schema = fit_schema(
            data, min_count=self.min_count, max_history=self.max_history, user_id=self.user_id, context=self.context
        )
        return data, schema


class CommandLine(argparse.ArgumentParser):
    """A parser whose complaints are ConfigErrors, for `main` to say in one line."""

    def __init__(self, prog: str, about: str | None, required: str = "") -> None:
        usage = " ".join(part for part in ("%(prog)s", required, "[options]") if part)
        wide = partial(argparse.HelpFormatter, max_help_position=34, width=110)
        super().__init__(prog=prog, usage=usage, description=about, formatter_class=wide)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the line."""
        raise ConfigError(f"{message}; --help lists the options")


def add_settings(parser: argparse.ArgumentParser, kind: type) -> None:
    """One option for each field of a dataclass of settings."""
    group = parser.add_argument_group((kind.__doc__ or "").splitlines()[0].rstrip("."))
    for one in fields(kind):
        group.add_argument(f"--{one.name}".replace("_", "-"), **_option(one))


def _option(one: Field[Any]) -> dict[str, Any]:
    default = one.default
    if default is MISSING:
        raise TypeError(f"{one.name}: a setting needs a default")
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    text = one.metadata.get("help", "")
    option: dict[str, Any] = {"default": default, "help": text if shown is None else f"{text} (default: {shown})"}
    if isinstance(default, bool):
        return option | {"action": argparse.BooleanOptionalAction}
    if isinstance(default, tuple) or default is None:
        whole = isinstance(default, tuple) and isinstance(default[0], int)
        return option | {"type": _list_of(int if whole else str), "metavar": "A,B"}
    if "choices" in one.metadata:
        return option | {"choices": one.metadata["choices"]}
    return option | {"type": type(default), "metavar": {int: "N", float: "X"}.get(type(default), "TEXT")}


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(",") if part)

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def settings(args: argparse.Namespace, kind: type[Settings]) -> Settings:
    """The dataclass that the options say. Raises ConfigError as its checks do."""
    return kind(**{one.name: getattr(args, one.name) for one in fields(kind)})  # type: ignore[arg-type]


def add_run(parser: argparse.ArgumentParser, what: str = "artifact") -> argparse._ArgumentGroup:
    """Options of where a run happens."""
    group = parser.add_argument_group("Where")
    group.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"folder of the {what} to write")
    group.add_argument(
        "--run", type=Path, metavar="DIR", help="folder of checkpoint, metrics, TensorBoard (default: runs/NAME of out)"
    )
    group.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    add_device(group)
    return group


def add_device(parser: argparse._ActionsContainer) -> None:
    """Options of what computes."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:N; auto: a GPU if it is there"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: torch's own)")


def device_of(args: argparse.Namespace) -> torch.device:
    """The device that `--device` means, torchrun's for this worker, with `--threads` applied."""
    if args.threads < 0:
        raise ConfigError(f"threads={args.threads}: at least 1, or 0 for torch's own number")
    if args.threads:
        torch.set_num_threads(args.threads)
    name = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name!r}: {str(error).splitlines()[0]}") from None
    return device


def folder_of_run(args: argparse.Namespace) -> Path:
    """The run's folder, as stated or by the artifact's name; beside the artifact where that is there itself."""
    if args.run is not None:
        return Path(args.run)
    out: Path = args.out.resolve()
    usual = Path("runs") / out.name
    return usual if usual.resolve() != out else usual.with_name(f"{out.name}-run")


def check_places(args: argparse.Namespace, *outs: Path) -> None:
    """Raise ConfigError or ArtifactError, before any work, where its results could not be written."""
    run = folder_of_run(args).resolve()
    resolved = [out.resolve() for out in outs]
    for out in resolved:
        check_name(out.name, out)
        check_target(out)
        if run.is_relative_to(out):
            raise ConfigError(f"run={run}: inside {out}, which the artifact will replace")
        if any(other != out and other.is_relative_to(out) for other in resolved) or resolved.count(out) > 1:
            raise ConfigError(f"out={out}: two artifacts in one place")
        check_writable(out.parent)


def check_writable(folder: Path) -> None:
    """Make a folder; ConfigError where that, or a file in it, cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written to: {error.strerror}") from None


def run_folder(args: argparse.Namespace, *, first: bool) -> Path:
    """The run's folder, made; ConfigError where it holds another run, or none to resume."""
    folder = folder_of_run(args)
    holds = (folder / checkpoint.FILE).exists()
    if args.resume and not holds:
        raise ConfigError(f"resume: {folder} holds no checkpoint")
    if first and not args.resume and holds:
        raise ConfigError(f"run={folder}: holds a run already; --resume goes on with it, another --run starts anew")
    check_writable(folder)
    return folder


def main(body: Callable[[], None]) -> None:
    """Run a command line; what its user did wrong becomes one line on stderr and exit code 2, Ctrl-C 130."""
    try:
        body()
    except (ArtifactError, BackendUnavailableError, ConfigError, DataError, KernelInputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "stopped", file=sys.stderr)
        raise SystemExit(130) from None
