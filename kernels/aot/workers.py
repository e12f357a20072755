"""Jobs shared out among processes of their own.

A compiler that aborts then takes one job with it, its messages are told from ours, and what this process did to Triton
before (the interpreter changes Triton's own functions as they are imported) has no say.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from kernels.aot.measure import Job, Measurement, measure

# The variable is gone before Triton is first imported. `sys.path` is the parent's: a test's own kernels are found.
_START = """
import json, os, sys
os.unsetenv("TRITON_INTERPRET")
sys.path[:] = json.loads(sys.argv[1])
from kernels.aot.workers import serve
serve()
"""


def serve() -> None:
    """Measure each job that comes in until there is none: a worker's whole life."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is no answer
    with tempfile.TemporaryDirectory(prefix="aot-") as scratch:
        for number, job in enumerate(_read_all(sys.stdin.buffer)):
            place = Path(scratch, str(number))
            place.mkdir()
            pickle.dump(measure(job, place), answers)
            answers.flush()


def _read_all(stream: BinaryIO) -> Iterable[Job]:
    while stream.peek(1):  # type: ignore[attr-defined]
        yield pickle.load(stream)


class _Worker:
    """A process that measures one job after another."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        # PIPE gives both; the types allow for none.
        self._jobs, self._answers = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)

    def measure(self, job: Job) -> Measurement | None:
        """None where the process ended instead."""
        try:
            pickle.dump(job, self._jobs)
            self._jobs.flush()
            answer: Measurement = pickle.load(self._answers)
        except (EOFError, BrokenPipeError):
            return None
        return answer

    def close(self) -> int:
        """End the process; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self._jobs.close()
        self._answers.close()
        return self._process.wait()


def measure_all(jobs: Iterable[Job], done: Callable[[Measurement], None] = lambda _: None) -> list[Measurement]:
    """Every job's measurement, in order. `done` is called, in no order, as each is ready."""
    waiting: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
    for numbered in enumerate(jobs):
        waiting.put(numbered)
    found: dict[int, Measurement] = {}

    def drain() -> None:
        worker = _Worker()
        while True:
            try:
                number, job = waiting.get_nowait()
            except queue.Empty:
                break
            measurement = worker.measure(job)
            if measurement is None:
                measurement = Measurement.of(job)
                measurement.failures.append(f"the compiler ended with status {worker.close()}")
                worker = _Worker()
            found[number] = measurement
            done(measurement)
        worker.close()

    processes = min(os.cpu_count() or 1, waiting.qsize())
    with ThreadPoolExecutor(max(1, processes)) as pool:
        for each in [pool.submit(drain) for _ in range(processes)]:
            each.result()
    return [found[number] for number in sorted(found)]
