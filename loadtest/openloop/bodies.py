"""What is sent: whole HTTP requests as bytes, made before the run so that sending costs the client next to nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest.openloop.schedule import BEHAVIOR, LARGE, SCORE, Places, Schedule
from loadtest.traffic import Traffic

VARIANTS = 2  # bodies of a user: two slots of a page have other candidates


@dataclass(frozen=True, slots=True)
class Content:
    """What requests ask for."""

    candidates: int | None = None  # of a request; None: as many as the feed, 50 to 200
    history: int | None = None  # behaviours sent along; None: those that the server has stored
    stored: int | None = None  # behaviours that every user has in the server's store, told to it before the run
    users: int = 1000  # different users
    large: int = 2048  # candidates of a large request
    strangers: bool = False  # companions are of other users: arrivals of the same shape, nothing to share


@dataclass(slots=True)
class Requests:
    """Different requests, and what a right answer to each has."""

    data: list[bytes] = field(default_factory=list)
    expected: list[int] = field(default_factory=list)  # scores in the answer; 0: not looked at

    def add(self, head: str, body: dict[str, Any] | None, expected: int = 0) -> int:
        """Its place."""
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        lines = f"{head}content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self.data.append((lines if body is not None else f"{head}\r\n").encode() + content)
        self.expected.append(expected)
        return len(self.data) - 1


@dataclass(frozen=True, slots=True)
class Served:
    """What requests have to know of a server."""

    host: str  # as in the Host header
    context_fields: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    path: str = "/v1/score"
    probe: str = "/livez"
    checked: bool = True  # answers are scores, and looked at


class Bodies:
    """Requests of a content for a server. The same seed makes the same."""

    def __init__(self, traffic: Traffic, served: Served, content: Content, seed: int = 0) -> None:
        self._traffic, self._served, self._content = traffic, served, content
        self._random = np.random.default_rng(seed)
        self.requests = Requests()
        rows = traffic.rows_of_users(content.users, self._random)
        self.rows = rows
        self._scores = np.array([[self._score(int(row)) for _ in range(VARIANTS)] for row in rows])
        self._large: list[int] = []
        self._probe = self.requests.add(f"GET {served.probe} HTTP/1.1\r\nhost: {served.host}\r\n", None)

    def assign(self, schedule: Schedule) -> Places:
        """A place in `requests` for each request of a schedule."""
        places = np.full(len(schedule), self._probe)
        asked = schedule.kinds == SCORE
        groups = schedule.groups[asked]
        users = self._random.integers(0, len(self._scores), groups.max(initial=0) + 1)[groups]
        if self._content.strangers:
            alone = schedule.companion[asked]
            users = np.where(alone, self._random.integers(0, len(self._scores), len(users)), users)
        places[asked] = self._scores[users, np.arange(len(users)) % VARIANTS]
        for place in np.flatnonzero(schedule.kinds == BEHAVIOR):
            body = self._traffic.behavior(self._traffic.visit(), self._served.actions)
            places[place] = self.requests.add(self._post("/v1/behaviors"), body)
        if (schedule.kinds == LARGE).any() and not self._large:
            self._large = [self._score(int(row), self._content.large) for row in self.rows[:4]]
        for number, place in enumerate(np.flatnonzero(schedule.kinds == LARGE)):
            places[place] = self._large[number % len(self._large)]
        return places

    def of_scores(self) -> list[bytes]:
        """Those for scores, the users in turn."""
        return [self.requests.data[place] for place in self._scores.T.ravel()]

    def replayed(self, rows: Places) -> Places:
        """A place in `requests` for each row of the log."""
        return np.array([self._score(int(row)) for row in rows])

    def to_store(self) -> list[bytes]:
        """Requests that tell the server `stored` behaviours of every user; none if it is to keep what it has."""
        if self._content.stored is None:
            return []
        newest = time.time_ns() // 1_000_000
        told = []
        events: list[dict[str, Any]] = []
        for row in self.rows:
            user = str(self._traffic.user(int(row)))
            items = self._traffic.history(int(row), self._content.stored)
            begin = newest - len(items)
            events += [
                {"user_id": user, "item_id": item, "timestamp_ms": begin + step} for step, item in enumerate(items)
            ]
            while len(events) >= 500 or (events and row == self.rows[-1]):
                told.append({"events": events[:500]})
                events = events[500:]
        only = Requests()
        for body in told:
            only.add(self._post("/v1/behaviors"), body)
        return only.data

    def _score(self, row: int, candidates: int | None = None) -> int:
        content = self._content
        body = self._traffic.score(row, self._served.context_fields, candidates or content.candidates)
        if content.history is not None:
            body["history"] = self._traffic.history(row, content.history)
        return self.requests.add(
            self._post(self._served.path), body, len(body["item_ids"]) if self._served.checked else 0
        )

    def _post(self, path: str) -> str:
        return f"POST {path} HTTP/1.1\r\nhost: {self._served.host}\r\n"
