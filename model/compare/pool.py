"""Many cells at once, each in a process of its own, with one bar of progress over all of them."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from model.artifact import ArtifactError
from model.compare.cells import LOG, Cell
from model.config import ConfigError
from model.workers import stop_signals

LOCK = ".lock"
PATIENCE = 60.0  # seconds in which what a killed comparison left has ended
POLL, REFRESH = 0.1, 1.0
BAR = "{percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"


class Failure(NamedTuple):
    """A cell that did not come to its end, and the last it said."""

    cell: Cell
    reason: str
    lines: list[str]


@contextmanager
def alone_in(folder: Path) -> Iterator[IO[str]]:
    """Hold a folder's lock, which trainings inherit: nobody else trains in it, nor does what was left by a kill.

    Raises ConfigError where somebody does.
    """
    with (folder / LOCK).open("w") as lock:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ConfigError(f"out={folder}: another comparison is at work in it") from None
                time.sleep(POLL)
        yield lock


class Running:
    """A cell's process."""

    def __init__(self, cell: Cell, digest: str, lock: IO[str]) -> None:
        self.cell, self.began = cell, time.monotonic()
        command = cell.command(digest)
        with (cell.folder / LOG).open("ab") as log:
            log.write((" ".join(["$ python -m", *command[3:]]) + "\n").encode())
            log.flush()
            # A session of its own: Ctrl-C is for the comparison, which asks its cells to stop once and waits.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )

    def end(self, facts: Mapping[str, Any]) -> Failure | None:
        """Take in what a process that has ended left."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        code = self.process.returncode
        if code:
            reason = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
            return Failure(self.cell, reason, self.cell.last_lines())
        try:
            self.cell.finish({**facts, "wall_seconds": round(time.monotonic() - self.began, 1)})
        except (ArtifactError, ConfigError, OSError) as error:
            return Failure(self.cell, str(error), self.cell.last_lines())
        return None


def train_cells(
    cells: Sequence[Cell],
    seconds: Callable[[Cell], float],
    *,
    workers: int,
    digest: str,
    facts: Mapping[str, Any],
    lock: IO[str],
) -> list[Failure]:
    """Train what is not finished, `workers` at once; those that failed, the others having gone on.

    Raises KeyboardInterrupt, all processes ended and their checkpoints saved, where a signal asked to stop.
    """
    waiting = deque(cell for cell in cells if not cell.finished)
    due, failures, done, shown = len(waiting), list[Failure](), 0.0, 0.0
    running: list[Running] = []
    whole = sum(map(seconds, waiting))
    with stop_signals() as stopping, tqdm(total=whole, bar_format=BAR, smoothing=0, disable=not due) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(Running(waiting.popleft(), digest, lock))
                time.sleep(POLL)
                if stopping():
                    raise KeyboardInterrupt
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    done += seconds(one.cell)
                    failure = one.end(facts)
                    if failure is not None:
                        failures.append(failure)
                        bar.write(said(failure), file=sys.stderr)
                if time.monotonic() - shown > REFRESH:
                    under_way = sum(seconds(one.cell) * one.cell.progress for one in running)
                    bar.n, shown = min(whole, done + under_way), time.monotonic()
                    names = ", ".join(one.cell.name for one in running)
                    bar.set_postfix_str(f"{due - len(waiting) - len(running)} of {due} cells; {names}")
        except KeyboardInterrupt:
            _stop(running)
            over = due - len(waiting) - len(running)
            raise KeyboardInterrupt(f"stopped with {over} of {due} cells; the same command goes on") from None
    return failures


def _stop(running: Sequence[Running]) -> None:
    """Ask every process to save and end, and wait until it has; a second Ctrl-C ends them at once."""
    try:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    except KeyboardInterrupt:
        for one in running:
            one.process.kill()
            one.process.wait()
    finally:
        for one in running:
            if one.process.stdin is not None:
                one.process.stdin.close()


def said(failure: Failure) -> str:
    """A failure as people read it."""
    lines = "".join(f"\n    {line}" for line in failure.lines)
    return f"{failure.cell.name}: {failure.reason}; the end of {failure.cell.folder / LOG}:{lines}"
