"""Runs a part in a folder of its own, and keeps there what became of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.openloop.machine import commit
from loadtest.report.parts import Part
from loadtest.servers import ROOT

RECORD, OUTPUT = "part.json", "output.txt"


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a part."""

    command: list[str]  # as one would type it in the checkout
    status: int
    seconds: float
    began: str
    commit: str
    load_before: float


def known(part: Part, out: Path) -> Ran | None:
    """What became of it before, if it was run."""
    try:
        return Ran(**json.loads((out / part.name / RECORD).read_text()))
    except FileNotFoundError:
        return None


def is_there(part: Part, out: Path, quick: bool) -> bool:
    """Whether the same command has succeeded before."""
    ran = known(part, out)
    return ran is not None and ran.status == 0 and ran.command == command(part, out, quick)


def command(part: Part, out: Path, quick: bool) -> list[str]:
    """Its words, with paths of the checkout where they are in it."""
    folder = out / part.name
    folder = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    return ["python", *(word.replace("{out}", str(folder)) for word in part.arguments(quick))]


def run(part: Part, out: Path, quick: bool, said: Callable[[str], None]) -> Ran:
    """Runs it from nothing; `said` is given each line of what it prints."""
    folder = out / part.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words, load, began = command(part, out, quick), round(os.getloadavg()[0], 2), time.time()
    status = _follow([sys.executable, *words[1:]], folder / OUTPUT, said)
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began))
    ran = Ran(words, status, round(time.time() - began, 1), at, commit(), load)
    (folder / RECORD).write_text(json.dumps(asdict(ran), indent=1) + "\n")
    return ran


def _follow(words: list[str], output: Path, said: Callable[[str], None]) -> int:
    """The exit status. A part that is left early is told to stop, and stops its own servers."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process, output.open("w") as log:
        try:
            for line in process.stdout or ():
                log.write(line)
                said(line.rstrip("\n"))
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
