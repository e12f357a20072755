"""What Linux knows of processes and of the machine: CPU time, memory, cores."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PROC = Path("/proc")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
HERE = Path(__file__).parent
CPUCLOCK_SCHED = 2  # the kernel's number for the time that a process was scheduled
PAGE = os.sysconf("SC_PAGE_SIZE")
PACKAGES = ("augur", "fastapi", "numpy", "torch", "uvicorn", "uvloop")


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, those that are alive."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes have used so far, with all their threads; 0 of those that are gone.

    By each one's own clock (`clock_getcpuclockid(3)`), for /proc counts in hundredths of a second.
    """
    return sum(map(_cpu_clock, pids))


def _cpu_clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory that processes have resident."""
    return sum(int(fields[21]) * PAGE for pid in pids if (fields := _stat(pid)))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name; none for a process that is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_here(host: str) -> bool:
    """Whether an address is one of this machine's."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as trial:
            try:
                trial.bind(address)
            except OSError:
                continue
            return True
    return False


def describe() -> dict[str, Any]:
    """Hardware and versions, for a report."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "governor": _governor(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": commit(),
    }


def commit() -> str:
    """Of the code: its commit, and whether it was changed since; `unknown` outside a checkout."""
    try:
        found, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found} and changes" if changes else found


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def _governor() -> str:
    """What decides on the clock of the cores, where the system tells."""
    try:
        return GOVERNOR.read_text().strip()
    except OSError:
        return "unknown"


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*: (.*)$", (PROC / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
