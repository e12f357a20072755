"""Clients of a fleet: who serves whom, and a load that notices every answer that is none."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

ITEMS = [5239, 6831, 2555, 1527]
CLIENTS = 4
PAUSE_SECONDS = 0.02


def need(tools: tuple[str, ...]) -> None:
    """In CI a test must not pass for want of a tool."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        what = f"not installed: {', '.join(missing)}"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


class Client:
    """One connection, opened again when the server said that it would close it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(self, method: str, path: str, body: Any = None, user: str | None = None) -> tuple[int, Any, str | None]:
        """Status, body, and which scorer answered."""
        headers = {"content-type": "application/json"} | ({"X-User-ID": user} if user is not None else {})
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers["x-served-by"]

    def close(self) -> None:
        self._connection.close()


def homes(port: int, users: Iterable[str]) -> dict[str, str | None]:
    """The scorer that answers each user, asked over a new connection."""
    client = Client(port)
    try:
        return {user: _home(client, user) for user in users}
    finally:
        client.close()


def _home(client: Client, user: str) -> str | None:
    status, body, home = client.ask("POST", "/v1/score", {"user_id": user, "item_ids": ITEMS}, user)
    assert (status, len(body["scores"])) == (200, len(ITEMS)), body
    return home


@dataclass
class Load:
    """What came of it."""

    failures: list[str] = field(default_factory=list)
    served: dict[str, list[str | None]] = field(default_factory=dict)  # which scorers scored, by user
    acknowledged: dict[str, set[int]] = field(default_factory=dict)  # times of events, by user

    @property
    def scored(self) -> int:
        return sum(map(len, self.served.values()))


@contextmanager
def under_load(port: int) -> Iterator[Load]:
    """While inside, clients score and write behaviours without end; whatever is no right answer is a failure."""
    load, stop, numbers = Load(), threading.Event(), itertools.count(1_700_000_000_000)
    threads = [threading.Thread(target=_client, args=(port, place, load, stop, numbers)) for place in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        yield load
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def _client(port: int, place: int, load: Load, stop: threading.Event, numbers: Iterator[int]) -> None:
    client = Client(port)
    for turn in itertools.count():
        if stop.is_set():
            return client.close()
        user = f"load-{place}-{turn % 50}"
        try:
            problem = _write(client, user, next(numbers), load) if turn % 11 == 10 else _score(client, user, load)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
            client.close()
        if problem:
            load.failures.append(problem)
        time.sleep(PAUSE_SECONDS)
    raise AssertionError("counting has no end")


def _score(client: Client, user: str, load: Load) -> str | None:
    status, body, home = client.ask("POST", "/v1/score", {"user_id": user, "item_ids": ITEMS}, user)
    if status != 200 or len(body["scores"]) != len(ITEMS) or body["degraded"] is not None:
        return f"score: {status} {body}"
    load.served.setdefault(user, []).append(home)
    return None


def _write(client: Client, user: str, number: int, load: Load) -> str | None:
    event = {"user_id": user, "item_id": ITEMS[0], "timestamp_ms": number, "action": "click"}
    status, body, _ = client.ask("POST", "/v1/behaviors", {"events": [event]}, user)
    # One that was sent again by the proxy can have been stored the first time.
    if status != 200 or body["accepted"] + body["duplicates"] != 1:
        return f"behaviours: {status} {body}"
    load.acknowledged.setdefault(user, set()).add(number)
    return None


def lost(port: int, load: Load) -> dict[str, set[int]]:
    """Times of events that were acknowledged and are not stored, or stored twice."""
    client, missing = Client(port), {}
    for user, numbers in load.acknowledged.items():
        status, body, _ = client.ask("GET", f"/v1/users/{user}/behaviors")
        assert status == 200, body
        stored = [event["timestamp_ms"] for event in body["events"]]
        wrong = numbers - set(stored) | {number for number in stored if stored.count(number) > 1}
        if wrong:
            missing[user] = wrong
    client.close()
    return missing
