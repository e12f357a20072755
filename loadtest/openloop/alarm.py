"""An alarm of microseconds on an event loop: a loop's own timers are of whole milliseconds, which requests feel."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from types import TracebackType

CLOCK_MONOTONIC, NONBLOCK, ABSOLUTE = 1, os.O_NONBLOCK, 1


class _Timer(ctypes.Structure):
    """`struct itimerspec`: the interval of repetition, and when."""

    _fields_ = (
        ("repeat_s", ctypes.c_long),
        ("repeat_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """Calls back once at each time it is set for, on Linux' `timerfd`; times are those of `time.monotonic`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._loop, self._callback = loop, callback
        self._file = self._libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCK)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def __enter__(self) -> Alarm:
        self._loop.add_reader(self._file, self._rang)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def set(self, at: float) -> None:
        """Rings at a time, at once if it is past; an earlier setting is forgotten."""
        nanoseconds = max(1, int(at * 1e9))  # 0 would mean never
        when = _Timer(0, 0, *divmod(nanoseconds, 1_000_000_000))
        self._libc.timerfd_settime(self._file, ABSOLUTE, ctypes.byref(when), None)

    def _rang(self) -> None:
        os.read(self._file, 8)
        self._callback()
