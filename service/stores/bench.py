"""What a read costs beside redis-py's own client: `python -m service.stores.bench --store URL`.

Microseconds of this process's CPU and of the clock, the best of several rounds that take turns; the last line is JSON.
Writes users `augur-bench-0` and on, and deletes them again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from service.settings import ConfigError, Settings
from service.stores import BehaviorStore, StoreError, open_store, redact
from service.stores.guarded import GuardedStore
from service.stores.records import pack
from service.stores.redis import key
from service.stores.url import Kind, parse

BEHAVIORS = 100
Call = Callable[[], Awaitable[list[Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; 0, or 2 when the store cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m service.stores.bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--store", metavar="URL", required=True, help="redis:// or redis+cluster://, without TLS")
    parser.add_argument("--calls", type=int, default=1000, help="in a round (1000)")
    parser.add_argument("--rounds", type=int, default=9, help="of which the best counts (9)")
    asked = parser.parse_args(arguments)
    try:
        result = uvloop.run(_measure(asked.store, asked.calls, asked.rounds))
    except (ConfigError, StoreError) as error:
        print(f"augur: {error}", file=sys.stderr)
        return 2
    for users, rows in result.items():
        for name, (cpu, wall) in rows.items():
            print(f"{users:>3} users  {name:<24}{cpu:8.0f} us of CPU{wall:8.0f} us")
    print(json.dumps({"store": redact(asked.store), "behaviors": BEHAVIORS, "us_cpu_and_wall": result}))
    return 0


async def _measure(url: str, calls: int, rounds: int) -> dict[int, dict[str, tuple[float, float]]]:
    settings = Settings(store=url, store_timeout_ms=5000, store_write_timeout_ms=5000)
    store, names = open_store(settings), [f"augur-bench-{place}" for place in range(16)]
    peer, mget = _peer(url)
    records = pack(np.arange(BEHAVIORS), np.arange(BEHAVIORS))
    try:
        await store.append(dict.fromkeys(names, records))
        return {users: await _compare(store, settings, mget, names[:users], calls, rounds) for users in (1, 16)}
    finally:
        for name in names:
            await store.delete(name)
        await store.close()
        await peer.aclose()


async def _compare(
    store: BehaviorStore, settings: Settings, mget: Any, names: list[str], calls: int, rounds: int
) -> dict[str, tuple[float, float]]:
    guarded, keys = GuardedStore(store, settings), [key(name) for name in names]
    ways: dict[str, Call] = {
        "redis-py": lambda: mget(keys),
        "histories": lambda: store.histories(names),
        "recall, through the guard": lambda: guarded.recall(names),
    }
    values = await ways["redis-py"]()
    for found in (await store.histories(names), [known.records for known in await guarded.recall(names)]):
        if [None if records is None else records.tobytes() for records in found] != values:
            raise StoreError("the ways do not read the same")
    best = dict.fromkeys(ways, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, call in ways.items():
            best[name] = min(best[name], await _time(call, calls))
    return best


async def _time(call: Call, calls: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.process_time() - cpu) / calls * 1e6, (time.perf_counter() - wall) / calls * 1e6


def _peer(url: str) -> tuple[Any, Any]:
    """redis-py's client as one would configure it for the same work, and its way to read several keys."""
    stated = parse(url)
    options = dict(stated.options)
    if stated.kind is Kind.CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in stated.addresses]
        cluster: Any = RedisCluster(startup_nodes=nodes, protocol=2, socket_timeout=5, **options)
        return cluster, cluster.mget_nonatomic
    if stated.kind is not Kind.SERVER or stated.tls:
        raise ConfigError(f"AUGUR_STORE={redact(url)!r}: redis:// or redis+cluster://, without TLS")
    ((host, port),) = stated.addresses
    options |= {"host": host, "port": port, "db": stated.database}
    server: Any = Redis.from_pool(BlockingConnectionPool(protocol=2, timeout=5, socket_timeout=5, **options))
    return server, server.mget


if __name__ == "__main__":
    sys.exit(main())
