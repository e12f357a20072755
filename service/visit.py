"""What is known of the request that is being served, for logs, metrics and traces.

The door sets it; whatever runs for the request finds it in its context.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.jobs import Job, Scored


Header = tuple[bytes, bytes]
NO_STORE = (b"cache-control", b"no-store")


class Visit:
    """One HTTP request. `begun` is of `time.perf_counter`."""

    __slots__ = ("begun", "headers", "key", "last", "request_id", "scored", "status")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.begun = time.perf_counter()
        self.key: str | None = None  # name of the key it came with
        self.headers: list[Header] = []  # of every answer
        self.last = False  # the connection is to be closed after the answer
        self.status = 0  # of the answer; 0 before it began
        self.scored: list[tuple[Job, Scored]] = []  # what was scored for it, in the order done


VISIT: ContextVar[Visit | None] = ContextVar("augur_visit", default=None)


def request_id() -> str | None:
    """That of the request this code runs for; None outside of one."""
    visit = VISIT.get()
    return None if visit is None else visit.request_id
