"""What a store promises while its servers are moved, killed, stopped and cut off."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot
from redis_parts import (
    RedisCluster,
    RedisServer,
    SentinelGroup,
    SentinelServer,
    TlsSentinel,
    TlsServer,
    proxy_to,
    until,
)

from loadtest.stack import LOCALHOST, free_port
from service.settings import Settings
from service.stores import BehaviorStore, StoreError, StoreRefusedError, open_store
from service.stores.guarded import GuardedStore
from service.stores.records import Appended, Records, pack
from service.stores.redis import key

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


# A cluster.


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


async def until_answered(call: Callable[[], Any], seconds: float = 5) -> Any:
    end = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except StoreError:
            assert time.monotonic() < end, f"no answer within {seconds} s"
            await asyncio.sleep(0.03)


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


# Sentinels.


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
