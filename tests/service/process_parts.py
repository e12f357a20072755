"""The whole server as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """`python -m service`, and what it said at its start."""

    def __init__(self, settings: dict[str, str], errors: Any = subprocess.PIPE) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUGUR_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env=environment | {"AUGUR_PORT": "0"} | settings,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert self.popen.stdout is not None
        as_json = settings.get("AUGUR_LOG_FORMAT") == "json"
        self.lines = [self.popen.stdout.readline() for _ in range(1 if as_json else 3)]
        self.url = ""
        if self.lines[-1]:
            self.url = json.loads(self.lines[0])["url"] if as_json else self.lines[1].split()[1]

    def end(self, seconds: float = 20) -> tuple[int, str]:
        out, errors = self.popen.communicate(timeout=seconds)
        return self.popen.returncode, out + (errors or "")


@contextmanager
def running(errors: Any = subprocess.PIPE, **settings: str) -> Iterator[Process]:
    """A server of its own; `errors` is where its standard error goes."""
    process = Process({f"AUGUR_{name.upper()}": value for name, value in settings.items()}, errors)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()
