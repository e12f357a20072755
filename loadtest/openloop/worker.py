"""`python -m loadtest.openloop.worker`: a client in a process of its own; jobs at its stdin, outcomes at its stdout.

A process and not a thread, so that neither the other workers nor what the report needs takes the interpreter from it.
"""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO

import numpy as np

from loadtest.openloop.client import Client, Job, Outcome
from loadtest.servers import ROOT, pinned


class WorkerError(RuntimeError):
    """A worker that ended before its job did."""


def work(jobs: BinaryIO, outcomes: BinaryIO) -> None:
    """Runs the jobs of a stream until it ends."""
    import uvloop  # noqa: PLC0415  # those who start workers need none

    async def run(job: Job) -> Outcome:
        return await Client(job).run()

    while True:
        try:
            job = pickle.load(jobs)
        except EOFError:
            return
        # Nothing here makes cycles that matter in a run, and a collection would make requests late.
        gc.collect()
        gc.disable()
        outcome = uvloop.run(run(job))
        gc.enable()
        pickle.dump(outcome, outcomes)
        outcomes.flush()


class Workers:
    """Some workers, pinned to cores if asked."""

    def __init__(self, count: int, cpus: Collection[int] = ()) -> None:
        command = [sys.executable, "-m", "loadtest.openloop.worker"]
        pipe = subprocess.PIPE
        self.cpus = cpus
        with pinned(cpus):
            self._processes = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) for _ in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.communicate()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def start(self, job: Job) -> None:
        """Deals a job out."""
        for number, process in enumerate(self._processes):
            # Every so many-th: each has the same mix at the same times.
            mine = slice(number, None, len(self._processes))
            share = replace(
                job,
                times=job.times[mine],
                kinds=job.kinds[mine],
                places=job.places[mine],
                connections=max(1, job.connections // len(self._processes)),
            )
            if process.stdin is None:
                raise WorkerError("a worker without a stdin")
            try:
                pickle.dump(share, process.stdin)
                process.stdin.flush()
            except OSError as error:
                raise WorkerError(f"a worker ended: {error}") from None

    def outcome(self) -> Outcome:
        """What became of the job that was dealt last, in the order of time."""
        found = []
        for process in self._processes:
            try:
                found.append(pickle.load(process.stdout))  # type: ignore[arg-type]
            except (EOFError, pickle.UnpicklingError):
                raise WorkerError(f"a worker ended with status {process.wait()}") from None
        samples = np.concatenate([one.samples for one in found])
        order = np.argsort(samples["intended"], kind="stable")
        return Outcome(samples[order], sum(one.connections for one in found), sum(one.waited for one in found))


if __name__ == "__main__":
    # Buffered whatever PYTHONUNBUFFERED says: a raw write to a pipe may end half way, and nobody would send the rest.
    with open(0, "rb", closefd=False) as jobs, open(1, "wb", closefd=False) as outcomes:
        work(jobs, outcomes)
