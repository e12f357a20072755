"""What a store promises while nodes of a cluster are moved, killed, stopped or missing."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis_parts import RedisCluster, RedisServer, until
from store_parts import SETTINGS, USERS, Traffic, event, until_answered

from loadtest.stack import LOCALHOST, free_port
from service.settings import Settings
from service.stores import StoreError, StoreRefusedError, open_store
from service.stores.records import Appended
from service.stores.redis import key


def test_slots_that_move_are_followed_and_nobody_notices(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "augur.store")  # says why, should a user not be read
    traffic = Traffic(redis_cluster.url)

    def reshard() -> None:
        for user in USERS[:10]:
            slot = key_slot(key(user))
            source = redis_cluster.of_slot(slot)
            target = next(server for server in redis_cluster.primaries() if server is not source)
            redis_cluster.move(slot, source, target, pause=0.04)

    traffic.run(reshard)
    assert not traffic.refused
    assert not traffic.unread


def test_a_primary_that_dies_is_replaced_and_nothing_acknowledged_is_lost(redis_cluster: RedisCluster) -> None:
    killed = redis_cluster.of_slot(key_slot(key(USERS[0])))
    of_it = {user for user in USERS if redis_cluster.of_slot(key_slot(key(user))) is killed}
    traffic = Traffic(redis_cluster.url, store_replicas=1)

    def kill() -> None:
        primaries = redis_cluster.primaries()
        killed.stop()
        until(lambda: len(set(redis_cluster.primaries()) - set(primaries)) == 1, 20, "a replica's election")
        killed.start()
        redis_cluster.settle()

    traffic.run(kill)
    assert set(traffic.unread) == of_it < set(USERS)
    assert set(traffic.refused) >= of_it


def test_a_node_that_hangs_fails_its_own_users_alone_and_soon_at_once(redis_cluster: RedisCluster) -> None:
    hung = redis_cluster.of_slot(key_slot(key(USERS[0])))
    of_it = [redis_cluster.of_slot(key_slot(key(user))) is hung for user in USERS]

    async def scenario() -> None:
        store = open_store(Settings(store=redis_cluster.url, store_timeout_ms=200))
        await store.ping()
        await store.append({user: event(1) for user in USERS})
        hung.pause()
        try:
            seconds = []
            for _ in range(8):
                start = time.monotonic()
                found = await store.histories(USERS)
                seconds.append(time.monotonic() - start)
                assert [records is None for records in found] == of_it
            with pytest.raises(StoreRefusedError, match="left alone until it does"):
                await store.append({user: event(2) for user in USERS})
        finally:
            hung.resume()
        assert max(seconds) < 0.54
        assert statistics.median(seconds[3:]) < 0.03
        # The others took the write; it is sent again when the node is back, and is a duplicate to those.
        done = await until_answered(lambda: store.append({user: event(2) for user in USERS}))
        assert done == Appended(accepted=sum(of_it), duplicates=len(USERS) - sum(of_it))
        await store.close()

    asyncio.run(scenario())


def test_a_cluster_that_is_not_there(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        for url, wrong in (
            (f"redis+cluster://{LOCALHOST}:{free_port()},{LOCALHOST}:{free_port()}", "no node of the cluster tells"),
            (redis_server.url.replace("redis://", "redis+cluster://"), "no node of the cluster tells"),
            (f"redis+sentinel://{LOCALHOST}:{free_port()}/it", "no sentinel names a primary of 'it'"),
        ):
            store = open_store(Settings(store=url))
            for call in (store.ping, lambda store=store: store.histories(["1"]), lambda store=store: store.delete("1")):
                with pytest.raises(StoreError, match=wrong):
                    await call()
            await store.close()
        redis_server.pause()
        try:
            store = open_store(Settings(store=redis_server.url.replace("redis://", "redis+cluster://")))
            with pytest.raises(StoreError, match="no node of the cluster tells"):
                await store.histories(["1"])
            await store.close()
        finally:
            redis_server.resume()

    asyncio.run(scenario())


def test_slots_that_nobody_has_are_their_users_alone(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")

    async def scenario() -> None:
        store = open_store(
            Settings(store=server.url.replace("redis://", "redis+cluster://").replace("/0", ""), **SETTINGS)
        )
        has = [key_slot(key(user)) < 8192 for user in USERS]
        with pytest.raises(StoreRefusedError, match="no node has the slot"):
            await store.append({user: event(1) for user in USERS})
        found = await store.histories(USERS)
        assert [records is not None for records in found] == has
        server.ask("CLUSTER", "ADDSLOTS", *range(8192, 16384))
        assert await until_answered(lambda: store.append({user: event(1) for user in USERS})) == Appended(
            has.count(False), has.count(True)
        )
        await store.close()

    try:
        server.start()
        server.ask("CLUSTER", "ADDSLOTS", *range(8192))
        until(lambda: server.info("cluster_state") == "ok", 10, "a cluster that is well")
        asyncio.run(scenario())
    finally:
        server.stop()


def test_a_cluster_all_of_whose_nodes_hang_is_away_as_a_whole(redis_cluster: RedisCluster) -> None:
    async def scenario() -> None:
        store = open_store(Settings(store=redis_cluster.url, store_timeout_ms=60))
        await store.ping()
        for server in redis_cluster.servers:
            server.pause()
        try:
            with pytest.raises(StoreError, match="no node of the cluster answers"):
                await store.histories(USERS)
        finally:
            for server in redis_cluster.servers:
                server.resume()
        await until_answered(lambda: store.histories(USERS))
        await store.close()

    asyncio.run(scenario())
