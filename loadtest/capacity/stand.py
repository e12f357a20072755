"""What all parts of the comparison share: servers, workers, the log, and how long to measure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest.openloop.bodies import Content
from loadtest.openloop.run import Bench
from loadtest.openloop.target import Target
from loadtest.openloop.worker import Workers
from loadtest.servers import ROOT, SERVER, ServerError, own_server
from loadtest.traffic import Traffic

BASELINE = (sys.executable, "-m", "loadtest.baseline", "--port", "0")
ECHO = (sys.executable, "-m", "loadtest.baseline.echo", "--port", "0")
BUNDLED = ROOT / "model" / "artifacts" / "kuairand"
ENDINGS = (0, -signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often."""

    p99_ms: float = 100.0
    seconds: float = 8.0  # of a run
    warmup: float = 1.0
    rounds: int = 3
    lengths: tuple[int, ...] = (50, 100)  # of histories
    candidates: int = 200
    users: int = 500
    start: float = 20.0  # first rate of a sweep
    soak: float = 0.0


@dataclass(frozen=True, slots=True)
class Stand:
    """Where servers are measured."""

    folder: Path  # of logs and of models that are made
    effort: Effort
    traffic: Traffic
    workers: Workers
    model: Path = BUNDLED
    cpus: Collection[int] = ()

    @contextmanager
    def augur(
        self, length: int, hidden: int | None = None, *, model: str | None = None, name: str = "augur"
    ) -> Iterator[Target]:
        """Augur, with a model that looks back so far; with `hidden` or `model` another, whose scores mean nothing."""
        environment = {"AUGUR_MODEL": str(self._model(length, hidden, model))}
        with self._own(name, SERVER, environment) as target:
            yield target

    @contextmanager
    def baseline(
        self, length: int, hidden: int | None = None, *, fused: bool = False, name: str = "baseline"
    ) -> Iterator[Target]:
        """The plain server, with the same model; `fused`: its recurrences by the kernels."""
        command = (*BASELINE, "--model", str(self._model(length, hidden)), *(["--fused"] if fused else []))
        with self._own(name, command) as target:
            yield target

    @contextmanager
    def echo(self) -> Iterator[Target]:
        """A server that sends bodies back."""
        with self._own("echo", ECHO) as target:
            yield target

    def bench(self, target: Target, content: Content) -> Bench:
        """A server with requests for it."""
        return Bench(target, self.traffic, content, self.workers)

    def content(self, length: int, *, stored: bool = False, candidates: int | None = None) -> Content:
        """What is asked: histories of a length, sent along or stored."""
        users = self.effort.users
        wanted = candidates or self.effort.candidates
        return Content(wanted, None if stored else length, length if stored else None, users)

    @property
    def say(self) -> Callable[[str], None]:
        """Progress, for people."""
        return partial(print, file=sys.stderr, flush=True)

    @contextmanager
    def _own(self, name: str, command: tuple[str, ...], environment: dict[str, str] | None = None) -> Iterator[Target]:
        log = self.folder / f"{name}.log"
        with own_server(log, command, cpus=self.cpus, endings=ENDINGS, environment=environment) as own:
            yield Target(own.url, own.pid, name)

    def _model(self, length: int, hidden: int | None = None, model: str | None = None) -> Path:
        """A copy of the artifact that looks back so far: a model that looks less far would compute less."""
        longer = self._made("lengthen", self.model, str(length))
        options = [("--hidden", hidden), ("--model", model)]
        changes = [word for name, value in options if value is not None for word in (name, str(value))]
        return self._made("fresh", longer, *changes) if changes else longer

    def _made(self, way: str, source: Path, *options: str) -> Path:
        """What a command of `loadtest.baseline` makes of an artifact; nothing here imports the model's code."""
        folder = self.folder / "_".join([source.name, way, *(word.strip("-") for word in options)])
        if not folder.exists():
            command = [sys.executable, "-m", f"loadtest.baseline.{way}", str(source), str(folder), *options]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ServerError(f"{self.model}: no model to serve: {done.stderr.strip().splitlines()[-1]}")
        return folder


def halves(cpus: Collection[int] | None = None) -> tuple[list[int], list[int]]:
    """Cores of the servers, which get the larger part, and of the client; nothing is pinned on a single core."""
    allowed = sorted(os.sched_getaffinity(0) if cpus is None else cpus)
    client = max(1, len(allowed) // 4)
    return (allowed[:-client], allowed[-client:]) if len(allowed) > 1 else ([], [])
