"""What a store promises while one server is killed, stopped, cut off or refuses."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis_parts import RedisServer, TlsSentinel, TlsServer, proxy_to, until
from store_parts import SETTINGS, USERS, Traffic, event, items

from loadtest.stack import LOCALHOST
from service.settings import Settings
from service.stores import BehaviorStore, StoreError, StoreRefusedError, open_store
from service.stores.guarded import GuardedStore
from service.stores.records import Appended

# One server.


def test_a_server_killed_and_restarted_with_its_log_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()

    def kill() -> None:
        for _ in range(3):
            server.stop()
            time.sleep(0.1)
            server.start()
            time.sleep(0.2)

    try:
        Traffic(server.url).run(kill)
    finally:
        server.stop()


def test_a_server_that_answers_with_errors_has_refused(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--rename-command", "MGET", "", "--rename-command", "PING", "").start()

    async def scenario() -> None:
        store = open_store(Settings(store=server.url, **SETTINGS))
        with pytest.raises(StoreRefusedError, match="read: ResponseError: unknown command"):
            await store.histories(["u"])
        with pytest.raises(StoreError, match="ping: unknown command"):
            await store.ping()
        await store.close()

    try:
        asyncio.run(scenario())
    finally:
        server.stop()


def test_without_a_replica_a_write_that_needs_one_is_refused_however_often(own_redis: RedisServer) -> None:
    async def scenario() -> None:
        store = open_store(Settings(store=own_redis.url, store_replicas=1, store_write_timeout_ms=500))
        for _ in range(2):
            with pytest.raises(StoreRefusedError, match="0 replicas have the write: 1 asked for"):
                await store.append({"u": event(1)})
        await store.close()

    asyncio.run(scenario())


def test_tls_and_a_user_of_few_rights(tls_redis: TlsServer) -> None:
    async def fails(url: str, wrong: str) -> None:
        store = open_store(Settings(store=url, store_timeout_ms=2000, store_write_timeout_ms=2000))
        with pytest.raises(StoreError, match=wrong) as caught:
            await store.histories(["1"])
        assert "s3cr" not in str(caught.value)
        await store.close()

    async def scenario() -> None:
        await fails(tls_redis.url.partition("?")[0], "certificate verify failed")
        await fails(tls_redis.url.replace("s3cr%25t", "wrong"), "AuthenticationError")
        await fails(tls_redis.url.replace("rediss:", "redis:").partition("?")[0], "Connection")

    asyncio.run(scenario())


def test_a_user_who_may_not_scan_has_all_but_the_sample_of_users(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        store = open_store(Settings(store=url, **SETTINGS))
        assert await store.append({"u": event(1)}) == Appended(1)
        with pytest.raises(StoreError, match="no permissions to run the 'scan' command"):
            await store.users(1)
        (records,) = await store.histories(["u"])
        assert records is not None
        assert len(records) == 1
        await store.close()

    server = TlsServer(tmp_path, rights="-scan").start()
    try:
        asyncio.run(scenario(server.url))
    finally:
        server.stop()


def test_a_cluster_and_sentinels_over_tls_with_users_of_few_rights(tmp_path: Path) -> None:
    node = TlsServer(
        tmp_path / "node", "--cluster-enabled", "yes", "--tls-cluster", "yes", rights="+cluster|slots +asking"
    )
    primary = TlsServer(tmp_path / "primary", rights="+role")
    sentinel = TlsSentinel(tmp_path / "sentinel", primary)
    servers = (node, primary, sentinel)

    async def scenario() -> None:
        cluster = node.url.replace("rediss://", "rediss+cluster://").replace("/0?", "?")
        for url in (cluster, sentinel.url):
            store = open_store(Settings(store=url, **SETTINGS))
            await store.ping()
            assert await store.append({user: event(1) for user in USERS}) == Appended(len(USERS))
            assert [records is not None and len(records) for records in await store.histories(USERS[:1])] == [1]
            assert await store.seed([(USERS[0], event(2))], replace=True) == 1
            assert set(await store.users(100)) == set(USERS)
            assert await store.delete(USERS[0])
            await store.close()

    try:
        for server in servers:
            server.start()
        node.ask("CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: node.info("cluster_state") == "ok", 10, "a cluster that is well")
        asyncio.run(scenario())
    finally:
        for server in servers:
            server.stop()


# Networks.


@pytest.fixture
def behind_proxy(redis_server: RedisServer) -> Callable[..., Any]:
    """Runs a scenario with a store behind a proxy: `scenario(store, proxy)`."""

    def run(scenario: Any, **settings: Any) -> None:
        async def whole() -> None:
            async with proxy_to(redis_server) as proxy:
                url = f"redis://{LOCALHOST}:{proxy.port}/0"
                store = open_store(Settings(store=url, **({"store_timeout_ms": 300} | settings)))
                await scenario(store, proxy)
                await store.close()

        asyncio.run(whole())

    return run


def test_connections_that_were_reset_while_idle_are_not_noticed(behind_proxy: Any) -> None:
    async def scenario(store: BehaviorStore, proxy: Any) -> None:
        for number in range(5):
            await store.append({"u": event(number)})
            proxy.reset_all()
            await asyncio.sleep(0.02)
        (records,) = await store.histories(["u"])
        assert records is not None
        assert len(records) == 5

    behind_proxy(scenario)


def test_an_answer_that_breaks_off_is_an_error_and_what_was_written_is_written_once(behind_proxy: Any) -> None:
    async def scenario(store: BehaviorStore, proxy: Any) -> None:
        await store.append({"u": event(1)})
        for cut in (1, 3, 6):
            proxy.cut = cut
            with pytest.raises(StoreError, match=r"append: .*ConnectionError"):
                await store.append({"u": event(2)})
            with pytest.raises(StoreError, match=r"read: .*ConnectionError"):
                await store.histories(["u"])
        proxy.cut = 0
        assert await store.append({"u": event(2)}) == Appended(0, 1)
        proxy.reset = True
        with pytest.raises(StoreError, match=r"append: .*ConnectionError"):
            await store.append({"u": event(3)})
        proxy.reset = False
        assert await store.append({"u": event(3)}) == Appended(1)

    behind_proxy(scenario)


def test_answers_that_are_late_are_nobody_elses(behind_proxy: Any) -> None:
    async def scenario(store: BehaviorStore, proxy: Any) -> None:
        await store.append({user: event(int(user)) for user in USERS})
        proxy.delay = 0.7
        for user in USERS[:4]:
            start = time.monotonic()
            with pytest.raises(StoreError, match="no answer in time"):
                await store.histories([user])
            assert time.monotonic() - start < 0.42
        proxy.delay = 0.0
        for user in USERS:
            (records,) = await store.histories([user])
            assert records is not None
            assert records["item_id"].tolist() == [int(user)]

    behind_proxy(scenario)


def test_no_more_connections_than_allowed_and_all_are_served(behind_proxy: Any) -> None:
    async def scenario(store: BehaviorStore, proxy: Any) -> None:
        proxy.delay = 0.01
        await asyncio.gather(*(store.histories([user]) for user in USERS * 3))
        assert 1 <= proxy.connections <= 4

    behind_proxy(scenario, store_connections=4, store_timeout_ms=5000)


def test_a_handshake_slower_than_a_read_still_ends_in_a_connection(behind_proxy: Any) -> None:
    async def scenario(store: BehaviorStore, proxy: Any) -> None:
        proxy.delay = 0.3
        with pytest.raises(StoreError, match="no answer in time"):
            await store.histories(["u"])
        await asyncio.sleep(1.6)
        proxy.delay = 0.0
        await asyncio.sleep(0.6)
        assert len(await store.histories(["u"])) == 1
        assert proxy.connections == 1

    behind_proxy(scenario, store_timeout_ms=150)


def test_calls_given_up_by_their_callers_leave_connections_for_others(behind_proxy: Any) -> None:
    async def scenario(store: BehaviorStore, proxy: Any) -> None:
        draw = random.Random(5)
        await store.append({user: event(int(user)) for user in USERS})
        for _ in range(12):
            proxy.delay = draw.choice([0.0, 0.002, 0.01])
            calls = [asyncio.create_task(store.histories([user])) for user in USERS]
            for call in draw.sample(calls, 16):
                await asyncio.sleep(draw.random() * 0.003)
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            for user, result in zip(USERS, results, strict=True):
                if not isinstance(result, asyncio.CancelledError):
                    assert not isinstance(result, BaseException)
                    assert items(result) == [[int(user)]]
        proxy.delay = 0.0
        found = await asyncio.gather(*(store.histories([user]) for user in USERS))
        assert [items(of_user) for of_user in found] == [[[int(user)]] for user in USERS]

    behind_proxy(scenario, store_connections=3, store_timeout_ms=5000)


# The guard in front of real servers.


def test_a_server_that_hangs_costs_a_few_timeouts_and_then_nothing(own_redis: RedisServer) -> None:
    async def scenario() -> None:
        settings = Settings(store=own_redis.url, store_timeout_ms=200, breaker_failures=3, breaker_seconds=0.5)
        store = GuardedStore(open_store(settings), settings)
        await store.append({"u": event(1)})
        assert [len(known.records) for known in await store.recall(["u"])] == [1]
        own_redis.pause()
        seconds = []
        for _ in range(10):
            start = time.monotonic()
            (known, unknown) = await store.recall(["u", "v"])
            seconds.append(time.monotonic() - start)
            assert (known.records["item_id"].tolist(), known.degraded) == ([1], "store_stale")
            assert (len(unknown.records), unknown.degraded) == (0, "store_unavailable")
        assert max(seconds) < 0.44
        assert statistics.median(seconds[3:]) < 0.01
        assert store.breaker_state == "open"
        with pytest.raises(StoreError, match="left alone"):
            await store.append({"u": event(2)})
        own_redis.resume()
        await asyncio.sleep(0.55)
        assert store.breaker_state == "half_open"
        assert [known.degraded for known in await store.recall(["u"])] == [None]
        assert store.breaker_state == "closed"
        assert store.counts == {
            "reads": 12,
            "read_users": 22,
            "read_errors": 10,
            "write_errors": 1,
            "stale": 10,
            "empty": 10,
            "opened": 1,
        }
        await store.close()

    asyncio.run(scenario())


def test_a_server_that_refuses_writes_is_still_read(own_redis: RedisServer) -> None:
    async def scenario() -> None:
        settings = Settings(store=own_redis.url, store_timeout_ms=1000, breaker_failures=2)
        store = GuardedStore(open_store(settings), settings)
        await store.append({"u": event(1)})
        own_redis.ask("CONFIG", "SET", "maxmemory", "1")
        for _ in range(5):
            with pytest.raises(StoreRefusedError):
                await store.append({"u": event(2)})
        assert [known.degraded for known in await store.recall(["u"])] == [None]
        assert store.breaker_state == "closed"
        await store.close()

    asyncio.run(scenario())
