"""What a store promises while sentinels name another primary, or disagree."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest
from redis_parts import RedisServer, SentinelGroup, SentinelServer, until
from store_parts import SETTINGS, Traffic, event, until_answered

from loadtest.stack import LOCALHOST
from service.settings import Settings
from service.stores import StoreError, StoreRefusedError, open_store
from service.stores.records import Appended


def test_the_primary_that_sentinels_name_is_followed_when_the_one_before_dies(redis_sentinels: SentinelGroup) -> None:
    before = redis_sentinels.primary()
    traffic = Traffic(redis_sentinels.url, store_replicas=1)

    def kill() -> None:
        before.stop()
        until(lambda: redis_sentinels.primary() is not before, 20, "another primary")
        # As a replica at once; by themselves sentinels take ten seconds to make it one.
        before.options += ("--replicaof", LOCALHOST, str(redis_sentinels.primary().port))
        before.start()
        redis_sentinels.settle()

    traffic.run(kill)
    assert traffic.refused


def test_the_primary_that_sentinels_name_is_followed_while_the_one_before_still_answers(
    redis_sentinels: SentinelGroup,
) -> None:
    before = redis_sentinels.primary()

    async def scenario() -> None:
        store = open_store(Settings(store=redis_sentinels.url, **SETTINGS))
        await store.append({"u": event(1)})
        await asyncio.to_thread(redis_sentinels.fail_over)
        end = time.monotonic() + 5
        while not redis_sentinels.primary().ask("EXISTS", "augur:1:{v}"):
            assert time.monotonic() < end
            await until_answered(lambda: store.append({"v": event(1)}))
            await store.delete("w")
            await asyncio.sleep(0.05)
        assert before.ask("ROLE")[0] == "master"
        await store.close()

    try:
        asyncio.run(scenario())
    finally:
        if before is not redis_sentinels.primary():
            before.ask("REPLICAOF", LOCALHOST, redis_sentinels.primary().port)


def test_a_sentinel_that_is_behind_is_outvoted(
    redis_sentinels: SentinelGroup, redis_server: RedisServer, tmp_path: Path
) -> None:
    behind = SentinelServer(tmp_path / "sentinel", redis_server).start()
    with_it = redis_sentinels.url.replace("://", f"://{LOCALHOST}:{behind.port},")

    async def scenario() -> None:
        for url, told in ((with_it, True), (f"redis+sentinel://{LOCALHOST}:{behind.port}/it", False)):
            store = open_store(Settings(store=url, **SETTINGS))
            await store.ping()
            await store.append({"u": event(1)})
            assert bool(redis_sentinels.primary().ask("EXISTS", "augur:1:{u}")) is told
            await store.delete("u")
            await store.close()

    try:
        asyncio.run(scenario())
    finally:
        behind.stop()


def test_a_replica_is_no_primary_whoever_says_so(own_redis: RedisServer, tmp_path: Path) -> None:
    replica = RedisServer(tmp_path / "replica", "--replicaof", LOCALHOST, str(own_redis.port)).start()
    wrong = SentinelServer(tmp_path / "sentinel", replica).start()

    async def scenario() -> None:
        store = open_store(Settings(store=f"redis+sentinel://{LOCALHOST}:{wrong.port}/it"))
        with pytest.raises(StoreError, match="no sentinel names a primary of 'it' that answers"):
            await store.histories(["u"])
        await store.close()
        store = open_store(Settings(store=replica.url, **SETTINGS))
        with pytest.raises(StoreRefusedError, match=r"(?i)readonly"):
            await store.append({"u": event(1)})
        await store.close()

    try:
        asyncio.run(scenario())
    finally:
        replica.stop()
        wrong.stop()


def test_a_service_that_sentinels_do_not_know(redis_sentinels: SentinelGroup) -> None:
    async def scenario() -> None:
        store = open_store(Settings(store=redis_sentinels.url.replace("/it/0", "/other/0")))
        with pytest.raises(StoreError, match="no sentinel names a primary of 'other'"):
            await store.ping()
        await store.close()

    asyncio.run(scenario())


def test_a_duplicate_is_acknowledged_when_a_replica_has_what_it_repeats(redis_sentinels: SentinelGroup) -> None:
    """Over a new connection, on which nothing was written that `WAIT` could wait for."""
    replica = next(server for server in redis_sentinels.servers if server is not redis_sentinels.primary())

    async def scenario() -> None:
        settings = Settings(store=redis_sentinels.url, store_replicas=1, store_write_timeout_ms=500)
        stores = [open_store(settings) for _ in range(2)]
        assert await stores[0].append({"u": event(1)}) == Appended(1)
        await stores[1].ping()
        replica.pause()
        try:
            for store in stores:
                with pytest.raises(StoreRefusedError, match="0 replicas"):
                    await store.append({"u": event(1)})
        finally:
            replica.resume()
        for store in stores:
            assert await until_answered(partial(store.append, {"u": event(1)})) == Appended(0, 1)
            await store.close()

    asyncio.run(scenario())
