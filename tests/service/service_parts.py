"""Parts for tests: twins that fail on demand, a private redis-server, and a way to speak to a started application."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from model.scorer import ScoreInput
from service.settings import Settings
from service.stores import BehaviorStore, StoreError
from service.stores.memory import MemoryStore
from service.stores.records import Appended, Records

SETTINGS = Settings(
    lanes=1, inline_candidates=0, drain_seconds=1.0, max_items=50, max_history=40, max_body_bytes=100_000
)
ITEMS = list(range(100, 120))


class TwinScorer:
    """A scorer whose scores can be told by hand, which can be held up and made to fail."""

    name, version, description = "twin", "1", "a twin for tests"
    architecture, parameters, attends, evolves = "dien", 1, True, True
    backend, precision = "twin", "exact"
    actions = ("show", "click")
    default_action = "click"
    context_fields = ("tab",)
    max_history = 8

    def __init__(self) -> None:
        self.metrics = {"test": {"auc": 0.75}}
        self.calls: list[list[ScoreInput]] = []
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()
        self.poison: dict[int, Exception] = {}

    def score(self, inputs: Sequence[ScoreInput]) -> list[np.ndarray]:
        self.calls.append(list(inputs))
        self.busy.set()
        assert self.free.wait(10)
        self.busy.clear()
        for one in inputs:
            for item in one.item_ids:
                if int(item) in self.poison:
                    raise self.poison[int(item)]
        return [self.expected(one) for one in inputs]

    def score_counted(self, inputs: Sequence[ScoreInput]) -> list[tuple[np.ndarray, int]]:
        return [
            (row, int(np.sum(np.asarray(one.item_ids) >= 1000)))
            for one, row in zip(inputs, self.score(inputs), strict=True)
        ]

    @staticmethod
    def expected(one: ScoreInput) -> np.ndarray:
        seen = float(np.sum(np.arange(1, len(one.history) + 1) * np.asarray(one.history, dtype=np.float64)))
        x = np.asarray(one.item_ids, dtype=np.float64) * 0.37 + seen * 0.11 + sum(one.context.values())
        return (0.5 + 0.49 * np.sin(x)).astype(np.float32)


class FlakyStore:
    """A store in front of another one that can be held up or fail."""

    def __init__(self, inner: BehaviorStore) -> None:
        self.inner = inner
        self.down = False
        self.raises: Exception | None = None
        self.unreadable: set[str] = set()
        self.free = asyncio.Event()
        self.free.set()
        self.reads: list[list[str]] = []

    async def _pass(self) -> None:
        await self.free.wait()
        if self.raises is not None:
            raise self.raises
        if self.down:
            raise StoreError("read: no answer within 25 ms")

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        self.reads.append(list(user_ids))
        await self._pass()
        found = await self.inner.histories(user_ids)
        return [None if user in self.unreadable else records for user, records in zip(user_ids, found, strict=True)]

    async def users(self, limit: int) -> list[str]:
        await self._pass()
        return await self.inner.users(limit)

    async def append(self, events: Any) -> Appended:
        await self._pass()
        return await self.inner.append(events)

    async def delete(self, user_id: str) -> bool:
        await self._pass()
        return await self.inner.delete(user_id)

    async def seed(self, sequences: Any, *, replace: bool = False) -> int:
        await self._pass()
        return await self.inner.seed(sequences, replace=replace)

    async def ping(self) -> None:
        await self._pass()

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Service:
    """A started application and a client in front of it, in this process."""

    app: FastAPI
    client: httpx.AsyncClient

    @property
    def counts(self) -> Any:
        return self.app.state.engine.batcher.counts


def memory(window: int = 100, ttl_seconds: float = 0) -> MemoryStore:
    return MemoryStore(window=window, ttl_seconds=ttl_seconds)


def event(item_id: int, timestamp_ms: int, user_id: str = "1", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": item_id, "timestamp_ms": timestamp_ms, **more}


async def post(service: Service, path: str, body: Any, **more: Any) -> httpx.Response:
    return await service.client.post(path, json=body, **more)


async def score(service: Service, **body: Any) -> dict[str, Any]:
    answer = await post(service, "/v1/score", {"user_id": "1", "item_ids": ITEMS} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def metric_names(service: Service) -> set[str]:
    """Names that a query can ask for, of samples and of counters without one as yet, after one answer was scored."""
    with_breaker(service)
    await score(service)
    await service.client.get("/metrics")
    families = list(text_string_to_metric_families((await service.client.get("/metrics")).text))
    names = {sample.name for family in families for sample in family.samples}
    return names | {f"{family.name}_total" for family in families if family.type == "counter"}


def with_breaker(service: Service) -> None:
    """The store with a guard that has a breaker."""

    class Guarded:
        def __init__(self) -> None:
            self.breaker_state = "half_open"
            self.counts = Counter(opened=2, reads=7)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    inner = service.app.state.engine.store
    service.app.state.engine.store = Guarded()


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, checked for the one form that errors have."""
    assert answer.headers["content-type"] == "application/json"
    (name,) = answer.json()
    assert name == "error"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) <= {"code", "message", "field"}
    assert error["message"]
    return error


# A key that changes the server, and what the setting has of it.
ADMIN_KEY = {"x-api-key": "an admin's key"}
ADMIN_KEYS = f"admin:{sha256(ADMIN_KEY['x-api-key'].encode()).hexdigest()}"

VALID = {"user_id": "1", "item_ids": [100]}
EVENT = event(100, 1)


class Wire(asyncio.Transport):
    """A transport that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.closed, self.written, self.writes = False, b"", 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes += 1
        self.written += data
