"""Behaviours in Redis: one packed string for each user, appended to by one script.

Exactly once within the window. An acknowledged write can still be lost by Redis itself, when a primary fails before
its replica has it or between two of its own syncs to disk; that is its configuration's promise, not this module's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from itertools import islice
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from service.settings import ConfigError, Settings
from service.stores import StoreError, redact
from service.stores.records import Appended, Records, empty, unpack

log = logging.getLogger("augur.store")

APPEND = files("service.stores").joinpath("append.lua").read_bytes()
APPEND_SHA = sha1(APPEND, usedforsecurity=False).hexdigest()
SEED_CHUNK = 500


def key(user_id: str) -> bytes:
    """The key of a user: `augur`, the version of the layout, the id as hash tag with its braces escaped."""
    safe = user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"augur:1:{{{safe}}}".encode()


class RedisStore:
    """`redis://` and `rediss://`: whatever the URL says beyond the address goes to redis-py.

    The client's own defaults (five seconds, ten retries) are not made for a request that has milliseconds: reads and
    writes end at their timeout, nothing is tried again, and connections are bounded.
    """

    def __init__(self, settings: Settings) -> None:
        self._window = settings.window
        self._ttl_ms = settings.ttl_seconds * 1000
        self._read_timeout = settings.store_timeout_ms / 1000
        self._write_timeout = settings.store_write_timeout_ms / 1000
        try:
            pool = BlockingConnectionPool.from_url(
                settings.store,
                max_connections=settings.store_connections,
                timeout=self._write_timeout,
                socket_timeout=self._write_timeout,
                socket_connect_timeout=self._write_timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"AUGUR_STORE={redact(settings.store)!r}: {error}") from None
        self._redis: Any = Redis.from_pool(pool)

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        """See `BehaviorStore`; one MGET."""
        if not user_ids:
            return []
        async with _within(self._read_timeout, "read"):
            values = await self._redis.mget([key(user_id) for user_id in user_ids])
        return [_records(value) for value in values]

    async def append(self, events: Mapping[str, Records]) -> Appended:
        """See `BehaviorStore`; one round trip for all users, each user's append atomic by itself."""
        async with _within(self._write_timeout, "append"):
            results = await self._run_script(events)
            lacking = [user_id for user_id, result in results.items() if isinstance(result, NoScriptError)]
            if lacking:
                await self._redis.script_load(APPEND)
                results |= await self._run_script({user_id: events[user_id] for user_id in lacking})
            total = Appended()
            for result in results.values():
                if isinstance(result, Exception):
                    raise result
                total += Appended(*result)
        return total

    async def delete(self, user_id: str) -> bool:
        """See `BehaviorStore`."""
        async with _within(self._write_timeout, "delete"):
            return bool(await self._redis.delete(key(user_id)))

    async def seed(self, sequences: Iterable[tuple[str, Records]]) -> int:
        """See `BehaviorStore`."""
        stored = 0
        for chunk in _chunks(iter(sequences), SEED_CHUNK):
            async with _within(max(self._write_timeout, 1.0), "seed"):
                pipeline = self._redis.pipeline(transaction=False)
                for user_id, records in chunk:
                    value = records[-self._window :].tobytes()
                    pipeline.set(key(user_id), value, nx=True, px=self._ttl_ms or None)
                stored += sum(bool(result) for result in await pipeline.execute())
        return stored

    async def ping(self) -> None:
        """See `BehaviorStore`."""
        async with _within(self._write_timeout, "ping"):
            await self._redis.ping()

    async def close(self) -> None:
        """See `BehaviorStore`."""
        await self._redis.aclose()

    async def _run_script(self, events: Mapping[str, Records]) -> dict[str, Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for user_id, records in events.items():
            pipeline.evalsha(APPEND_SHA, 1, key(user_id), self._window, self._ttl_ms, records.tobytes())
        return dict(zip(events, await pipeline.execute(raise_on_error=False), strict=True))


@asynccontextmanager
async def _within(seconds: float, doing: str) -> AsyncIterator[None]:
    """A bound on a whole operation, its connection and its queueing included; every failure becomes a StoreError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise StoreError(f"{doing}: no answer within {seconds * 1000:.0f} ms") from None
    except (RedisError, OSError) as error:
        raise StoreError(f"{doing}: {type(error).__name__}: {error}") from error


def _records(value: bytes | None) -> Records | None:
    try:
        return unpack(value) if value else empty()
    except ValueError as error:
        log.error("a stored sequence cannot be read: %s", error)
        return None


def _chunks(rows: Iterator[tuple[str, Records]], size: int) -> Iterator[list[tuple[str, Records]]]:
    while chunk := list(islice(rows, size)):
        yield chunk
