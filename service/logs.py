"""Log lines: as text or JSON, with the id of the request they belong to, written where they hold nobody up.

A line is formatted where it is logged and written by a thread of its own: a full disk, a closed pipe or a reader that
stands still costs lines, which are counted, and never a request.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import sys
import threading
import time
from typing import Any

from service.settings import Settings
from service.visit import request_id

WAITING_LINES = 10_000  # that may wait to be written
FLUSH_SECONDS = 2.0  # at the end of the process

_lost_lines = 0


def lost() -> int:
    """Lines that could not be written since the process began."""
    return _lost_lines


def _lose() -> None:
    global _lost_lines  # noqa: PLW0603
    _lost_lines += 1


def configure(settings: Settings) -> None:
    """Sends all logs of the process to standard error, in the form the settings ask for."""
    root = logging.getLogger()
    if root.handlers:
        return  # somebody who runs the server within their own process has said where lines go
    logging.raiseExceptions = False
    handler = Writer(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    atexit.register(handler.close)


class TextFormatter(logging.Formatter):
    """For people: the time, the level, who says it, what, and the request."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without a traceback."""
        line = super().formatMessage(record)
        about = request_of(record)
        return line if about is None else f"{line} [{about}]"


class JsonFormatter(logging.Formatter):
    """For machines: one object a line; `fields` of a record are its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        milliseconds = int(record.msecs)
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03d}Z"
        line: dict[str, Any] = {
            "time": written,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = request_of(record)
        if about is not None:
            line["request_id"] = about
        fields: dict[str, Any] = record.__dict__.get("fields", {})
        line |= {name: value for name, value in fields.items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=repr)


def request_of(record: logging.LogRecord) -> str | None:
    """The id of the request that a record belongs to: as stated (`extra`), else that of the context."""
    stated: str | None = record.__dict__.get("request_id")
    return stated or request_id()


class Writer(logging.Handler):
    """Writes lines to a file descriptor, on a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        # The very file: a write of Python's own streams could wait for a lock that a stuck one holds.
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._run, name="augur-logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queues the line; a full queue loses it."""
        try:
            self._lines.put_nowait(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # whatever is wrong with a line, it is no reason to fail what it tells of
            _lose()

    def close(self) -> None:
        """Writes what waits, if that can be done soon."""
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=FLUSH_SECONDS)
            except queue.Full:
                return
            self._thread.join(FLUSH_SECONDS)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                write_all(self._descriptor, line)
            except OSError:
                _lose()


def write_all(descriptor: int, content: bytes) -> None:
    """Raises OSError."""
    while content:
        content = content[os.write(descriptor, content) :]


def say(text: str) -> None:
    """To standard output, for a person; nobody may be there to read it."""
    try:
        print(text, flush=True)
    except OSError:
        _lose()
        # What Python still holds for it must not fail the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
