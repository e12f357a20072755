"""What tests of stores that fail have in common."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from service.settings import Settings
from service.stores import BehaviorStore, StoreError, open_store
from service.stores.records import Records, pack

USERS = [str(place) for place in range(24)]
# Wide enough for a machine that does much else.
SETTINGS: dict[str, Any] = {"store_timeout_ms": 2000, "store_write_timeout_ms": 3000, "window": 10_000}


def event(number: int) -> Records:
    return pack(np.array([number]), np.array([number]))


def items(sequences: Sequence[Records | None]) -> list[list[int] | None]:
    return [None if records is None else records["item_id"].tolist() for records in sequences]


class Traffic:
    """Writers that send again what was not acknowledged, and a reader, while something happens to the servers.

    Whatever is read must hold all that was acknowledged before the read began; anything but a StoreError fails.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        self.settings = Settings(store=url, **(SETTINGS | settings))
        self.acknowledged: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.reads = 0
        self.slowest = 0.0

    def run(self, happening: Callable[[], None]) -> None:
        asyncio.run(self._run(happening))

    async def _run(self, happening: Callable[[], None]) -> None:
        store = open_store(self.settings)
        await store.ping()
        over = asyncio.Event()
        working = [asyncio.create_task(self._write(store, user, over)) for user in USERS]
        working.append(asyncio.create_task(self._read(store, over)))
        try:
            await self._go_on()
            await asyncio.to_thread(happening)
            await self._go_on()
        finally:
            over.set()
            await asyncio.gather(*working)
        for user, records in zip(USERS, await store.histories(USERS), strict=True):
            assert records is not None
            assert records["item_id"].tolist() == list(range(self.acknowledged[user])), "each once, none lost"
        await store.close()

    async def _go_on(self) -> None:
        """Waits until each user was written a few times, and all were read."""
        before, reads, end = Counter(self.acknowledged), self.reads, time.monotonic() + 20
        while self.reads < reads + 3 or any(self.acknowledged[user] < before[user] + 3 for user in USERS):
            assert time.monotonic() < end, "writes do not go on"
            await asyncio.sleep(0.02)

    async def _write(self, store: BehaviorStore, user: str, over: asyncio.Event) -> None:
        while not over.is_set():
            while True:
                try:
                    await store.append({user: event(self.acknowledged[user])})
                    break
                except StoreError:
                    self.refused[user] += 1
                    await asyncio.sleep(0.03)
            self.acknowledged[user] += 1
            await asyncio.sleep(0.01)

    async def _read(self, store: BehaviorStore, over: asyncio.Event) -> None:
        while not over.is_set():
            before, start = Counter(self.acknowledged), time.monotonic()
            try:
                found = await store.histories(USERS)
            except StoreError:
                found = [None] * len(USERS)
            self.slowest = max(self.slowest, time.monotonic() - start)
            self.reads += 1
            for user, records in zip(USERS, found, strict=True):
                if records is None:
                    self.unread[user] += 1
                else:
                    assert records["item_id"].tolist()[: before[user]] == list(range(before[user]))
            await asyncio.sleep(0.005)


async def until_answered(call: Callable[[], Any], seconds: float = 5) -> Any:
    end = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except StoreError:
            assert time.monotonic() < end, f"no answer within {seconds} s"
            await asyncio.sleep(0.03)
