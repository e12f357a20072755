from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from service.settings import Settings
from service.stores import BehaviorStore, StoreError, bench, open_store
from service.stores.memory import MemoryStore
from service.stores.records import RECORD, Appended, Records, empty, merge, pack, unpack
from service.stores.redis import RedisStore, key, open_redis

PATIENT = Settings(store_timeout_ms=5000, store_write_timeout_ms=5000)


def events(*rows: tuple[int, int]) -> Records:
    """Records of (item, time) pairs."""
    items, times = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return pack(items, times)


def pairs(records: Records | None) -> list[tuple[int, int]]:
    assert records is not None
    return list(zip(records["item_id"].tolist(), records["timestamp_ms"].tolist(), strict=True))


def redis_store(url: str, **changes: Any) -> RedisStore:
    return open_redis(replace(PATIENT, store=url, **changes))


REMOTE = {
    "redis": "redis_server",
    "cluster": "redis_cluster",
    "sentinel": "redis_sentinels",
    "tls": "tls_redis",
}


@pytest.fixture(scope="module")
def urls(
    shared_redis: Any, shared_cluster: Any, shared_sentinels: Any, request: pytest.FixtureRequest
) -> dict[str, str]:
    """Every store but the one in memory."""
    found = {"redis": shared_redis.url, "cluster": shared_cluster.url, "sentinel": shared_sentinels.url}
    try:
        return found | {"tls": request.getfixturevalue("tls_redis").url}
    except pytest.skip.Exception:
        return found


@pytest.fixture(params=["memory", *REMOTE])
def make(request: pytest.FixtureRequest) -> Callable[..., BehaviorStore]:
    if request.param == "memory":
        return lambda window=100, ttl_seconds=0: MemoryStore(window=window, ttl_seconds=ttl_seconds)
    url = request.getfixturevalue(REMOTE[request.param]).url
    if request.param == "tls":
        # Its user may not do more than a store does.
        names = ["a", "b", *(f"u{i}" for i in range(600)), *NAMES]
        asyncio.run(forget(redis_store(url), names))

    def store(window: int = 100, ttl_seconds: int = 0) -> BehaviorStore:
        return redis_store(url, window=window, ttl_seconds=ttl_seconds)

    return store


async def forget(store: BehaviorStore, names: Sequence[str]) -> None:
    for name in names:
        await store.delete(name)
    await store.close()


def run(make: Callable[..., BehaviorStore], scenario: Any, **settings: Any) -> Any:
    async def whole() -> Any:
        store = make(**settings)
        try:
            return await scenario(store)
        finally:
            await store.close()

    return asyncio.run(whole())


def test_an_unknown_user_has_no_behaviours(make: Callable[..., BehaviorStore]) -> None:
    async def scenario(store: BehaviorStore) -> None:
        await store.ping()
        assert await store.histories([]) == []
        (sequence,) = await store.histories(["nobody"])
        assert sequence is not None
        assert sequence.dtype == RECORD
        assert len(sequence) == 0
        assert not await store.delete("nobody")

    run(make, scenario)


def test_some_users_are_told_as_they_were_written(make: Callable[..., BehaviorStore]) -> None:
    names = [*(f"sampled {n}" for n in range(30)), "{%7B}%25 \u00e9\n"]

    async def scenario(store: BehaviorStore) -> None:
        await store.append({name: events((1, 1)) for name in names})
        found = await store.users(1000)
        # A cluster tells of one of its servers.
        assert len(set(names).intersection(found)) > 5
        assert len(await store.users(3)) == 3
        for name in names:
            await store.delete(name)
        assert not set(names).intersection(await store.users(1000))

    run(make, scenario)


def test_events_come_back_by_time_once_each_and_the_latest_of_them(make: Callable[..., BehaviorStore]) -> None:
    async def scenario(store: BehaviorStore) -> None:
        assert await store.append({"a": events((1, 10), (2, 30)), "b": events((9, 5))}) == Appended(3)
        assert await store.append({"a": events((3, 20), (2, 30))}) == Appended(1, 1)
        assert [pairs(of_user) for of_user in await store.histories(["a", "b"])] == [
            [(1, 10), (3, 20), (2, 30)],
            [(9, 5)],
        ]
        # The window is full: an event as old as its oldest does not come in, whether or not it was here before.
        assert await store.append({"a": events((4, 40), (1, 10), (5, 20), (6, 25))}) == Appended(2, 0, 2)
        assert pairs((await store.histories(["a"]))[0]) == [(6, 25), (2, 30), (4, 40)]
        assert await store.delete("a")
        assert pairs((await store.histories(["a"]))[0]) == []

    run(make, scenario, window=3)


def test_equal_times_stand_in_order_of_arrival(make: Callable[..., BehaviorStore]) -> None:
    async def scenario(store: BehaviorStore) -> None:
        await store.append({"a": events((1, 10), (2, 10))})
        await store.append({"a": events((3, 10), (0, 9))})
        assert pairs((await store.histories(["a"]))[0]) == [(0, 9), (1, 10), (2, 10), (3, 10)]

    run(make, scenario)


def test_extreme_values_survive(make: Callable[..., BehaviorStore]) -> None:
    rows = [(-(2**63), 0), (2**63 - 1, 2**53 - 1), (0, 2**53 - 2)]

    async def scenario(store: BehaviorStore) -> None:
        await store.append({"a": events(*rows)})
        assert pairs((await store.histories(["a"]))[0]) == sorted(rows, key=lambda row: row[1])

    run(make, scenario)


def test_a_user_without_writes_is_forgotten(make: Callable[..., BehaviorStore]) -> None:
    async def scenario(store: BehaviorStore) -> None:
        await store.append({"a": events((1, 10))})
        await asyncio.sleep(0.7)
        await store.append({"b": events((1, 10)), "a": events((2, 20))})
        await asyncio.sleep(0.7)
        assert pairs((await store.histories(["a"]))[0]) == [(1, 10), (2, 20)]
        await asyncio.sleep(0.5)
        assert pairs((await store.histories(["a"]))[0]) == []
        assert not await store.delete("b")

    run(make, scenario, ttl_seconds=1)


def test_seeding_keeps_what_is_there_and_the_end_of_what_is_long(make: Callable[..., BehaviorStore]) -> None:
    async def scenario(store: BehaviorStore) -> None:
        await store.append({"a": events((7, 7))})
        seeds = [
            ("a", events((1, 1))),
            ("b", events((1, 1), (2, 2), (3, 3))),
            *((f"u{i}", empty()) for i in range(600)),
        ]
        assert await store.seed(seeds) == 601
        assert [pairs(found) for found in await store.histories(["a", "b"])] == [[(7, 7)], [(2, 2), (3, 3)]]
        assert await store.seed(seeds) == 0
        assert await store.seed(seeds[:2], replace=True) == 2
        assert pairs((await store.histories(["a"]))[0]) == [(1, 1)]

    run(make, scenario, window=2, ttl_seconds=100)


NAMES = ["7", "007", "a}b{c", "{}", "%7D", "}", "ключ", "a b\n", "\x00", "augur:1:{7}", "é", "e\u0301"]


def test_any_text_is_a_user_of_its_own(make: Callable[..., BehaviorStore]) -> None:
    async def scenario(store: BehaviorStore) -> None:
        await store.append({name: events((place, 1)) for place, name in enumerate(NAMES)})
        found = await store.histories(NAMES)
        assert [pairs(of_user) for of_user in found] == [[(place, 1)] for place in range(len(NAMES))]

    run(make, scenario)


def test_keys_have_a_version_and_one_hash_tag() -> None:
    assert key("42") == b"augur:1:{42}"
    assert key("a}b{%") == b"augur:1:{a%7Db%7B%25}"


# A plain writing of the rule, from its words alone.


class Plain:
    def __init__(self, window: int) -> None:
        self.window = window
        self.users: dict[str, list[tuple[int, int, int, int]]] = {}

    def append(self, user: str, arriving: Records) -> Appended:
        total = Appended()
        kept = list(self.users.get(user, []))
        for row in arriving.tolist():
            if any(row[0] == other[0] for other in kept):
                total += Appended(duplicates=1)
            elif len(kept) == self.window and row[2] <= min(other[2] for other in kept):
                total += Appended(outside_window=1)
            else:
                kept.append(row)
                kept.sort(key=lambda other: other[2])  # stable
                del kept[: max(0, len(kept) - self.window)]
                total += Appended(accepted=1)
        if total.accepted:
            self.users[user] = kept
        return total


# Few values, so that equal items, times and ids meet often.
event = st.tuples(st.integers(0, 3), st.integers(0, 12), st.sampled_from([None, None, "x", "y"]))
USERS = "abcd"
step: Any = st.one_of(
    st.tuples(st.just("append"), st.dictionaries(st.sampled_from(USERS), st.lists(event, max_size=6), max_size=4)),
    st.tuples(st.just("delete"), st.sampled_from(USERS)),
    st.tuples(st.just("expire")),
    st.tuples(st.just("seed"), st.sampled_from(USERS), st.lists(event, max_size=4), st.booleans()),
)


def records_of(rows: list[tuple[int, int, str | None]]) -> Records:
    items, times, names = zip(*rows, strict=True) if rows else ((), (), ())
    return pack(np.array(items, dtype=np.int64), np.array(times, dtype=np.int64), names=names)


class Stores:
    """Every store but the one in memory, opened once for each window, and the loop they live in."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.runner = asyncio.Runner()
        self._urls = urls
        self._open: dict[int, dict[str, RedisStore]] = {}

    def __call__(self, window: int) -> dict[str, RedisStore]:
        if window not in self._open:
            settings = {"window": window, "ttl_seconds": 10}
            self._open[window] = {name: redis_store(url, **settings) for name, url in self._urls.items()}
        return self._open[window]

    async def close(self) -> None:
        for of_window in self._open.values():
            for store in of_window.values():
                await store.close()


@pytest.fixture(scope="module")
def stores(urls: dict[str, str]) -> Iterator[Stores]:
    opened = Stores(urls)
    yield opened
    opened.runner.run(opened.close())
    opened.runner.close()


class Clock:
    """Of a memory store, put forward by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def take(store: BehaviorStore, step: Any, expire: Any) -> Any:
    """One step of a random history; what the store answers."""
    kind, *rest = step
    if kind == "append":
        return await store.append({user: records_of(rows) for user, rows in rest[0].items()})
    if kind == "delete":
        return await store.delete(rest[0])
    if kind == "expire":
        return await expire()
    user, rows, replace_ = rest
    return await store.seed([(user, in_order(rows))], replace=replace_)


def in_order(rows: list[Any]) -> Records:
    """A sequence to seed: by time, each event once."""
    records = records_of(rows)
    records = records[np.sort(np.unique(records["event_id"], return_index=True)[1])]
    return records[np.argsort(records["timestamp_ms"], kind="stable")]


def take_plainly(plain: Plain, step: Any) -> Any:
    kind, *rest = step
    if kind == "append":
        return sum((plain.append(user, records_of(rows)) for user, rows in rest[0].items()), Appended())
    if kind == "delete":
        return plain.users.pop(rest[0], None) is not None
    if kind == "expire":
        plain.users.clear()
        return None
    user, rows, replace_ = rest
    if user in plain.users and not replace_:
        return 0
    plain.users[user] = in_order(rows).tolist()[-plain.window :]
    return 1


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(step, max_size=10), window=st.integers(1, 4))
def test_all_stores_follow_the_rule(stores: Stores, steps: list[Any], window: int) -> None:
    """Appends of several users, of duplicates and late events; trims, expiry, deletion and seeding, in any order."""

    async def scenario() -> None:
        plain, clock = Plain(window), Clock()
        memory = MemoryStore(window=window, ttl_seconds=10, clock=clock)
        tried: dict[str, Any] = {"memory": memory, **stores(window)}
        for store in tried.values():
            await asyncio.gather(*(store.delete(user) for user in USERS))
        for each in steps:
            expected = take_plainly(plain, each)
            for name, store in tried.items():
                assert await take(store, each, lambda store=store: expire(store, clock)) == expected, name
        for name, store in tried.items():
            found = await store.histories(USERS)
            assert [records.tolist() for records in found] == [plain.users.get(user, []) for user in USERS], name

    stores.runner.run(scenario())


async def expire(store: Any, clock: Clock) -> None:
    """Lets the time of all users pass: by the store's clock, or by the server's."""
    if isinstance(store, MemoryStore):
        clock.now += 11
        return
    ends = [(key(user), ("SET", key(user), b"", "PX", 1)) for user in USERS]
    await store._servers.run(ends, asyncio.get_running_loop().time() + 5)
    await asyncio.sleep(0.003)


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(event, min_size=1, max_size=30), window=st.sampled_from([2, 40]))
def test_concurrent_writers_lose_nothing(stores: Stores, rows: list[Any], window: int) -> None:
    """Writers at once, each event sent twice: what stays is what some order one by one leaves."""

    async def scenario(store: RedisStore) -> None:
        await store.delete("u")
        batches = [records_of([row]) for row in rows for _ in range(2)]
        results = await asyncio.gather(*(store.append({"u": batch}) for batch in batches))
        (kept,) = await store.histories(["u"])
        assert kept is not None
        distinct = {int(batch["event_id"][0]): int(batch["timestamp_ms"][0]) for batch in reversed(batches)}
        times = kept["timestamp_ms"].tolist()
        assert times == sorted(times)
        assert len(set(kept["event_id"].tolist())) == len(kept) == min(window, len(distinct))
        assert sum(result.accepted for result in results) >= len(kept)
        if len(distinct) <= window:
            assert set(kept["event_id"].tolist()) == set(distinct)
            assert sum(result.accepted for result in results) == len(distinct)

    for store in stores(window).values():
        stores.runner.run(scenario(store))


def test_merge_trims_a_sequence_from_a_time_of_a_longer_window() -> None:
    long = events(*((i, i) for i in range(10)))
    merged, appended = merge(long, events((50, 50)), 3)
    assert pairs(merged) == [(8, 8), (9, 9), (50, 50)]
    assert appended == Appended(1)


def test_event_ids_are_stable() -> None:
    """Stored ids outlive a release: a change would let every retried event in a second time."""
    assert pack(np.array([7]), np.array([1000]))["event_id"].tolist() == [STABLE_DERIVED]
    assert pack(np.array([7]), np.array([1000]), names=["click-1"])["event_id"].tolist() == [STABLE_NAMED]
    assert RECORD.itemsize == 28


STABLE_DERIVED = 15286587424142710215
STABLE_NAMED = 15251977844780385725


def test_a_value_of_another_length_is_no_sequence() -> None:
    with pytest.raises(ValueError, match="30 bytes: a multiple of 28"):
        unpack(b"x" * 30)


# Redis alone.


def test_the_script_is_loaded_again_after_redis_forgot_it(redis_server: Any) -> None:
    async def scenario() -> None:
        store = redis_store(redis_server.url)
        await store.delete("u")
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            for place in range(3):
                await client.script_flush()
                assert await store.append({"u": events((place, place))}) == Appended(1)
        await store.close()

    asyncio.run(scenario())


def test_a_foreign_value_harms_its_user_alone(redis_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = redis_store(redis_server.url)
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            await client.set(key("bad"), b"not records")
            await store.delete("good")
            await store.append({"good": events((1, 1))})
            bad, good = await store.histories(["bad", "good"])
            assert bad is None
            assert pairs(good) == [(1, 1)]
            with pytest.raises(StoreError, match="not a sequence of records"):
                await store.append({"bad": events((1, 1))})
            await client.delete(key("bad"))
        await store.close()

    asyncio.run(scenario())
    assert "11 bytes" in caplog.text


def test_a_store_that_is_down_or_hangs_is_given_up_in_time(own_redis: Any) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        store = open_redis(Settings(store=own_redis.url, store_timeout_ms=100, store_write_timeout_ms=400))
        await store.append({"u": events((1, 1))})
        # Hangs: the kernel takes connections and bytes, nobody answers.
        own_redis.process.send_signal(signal.SIGSTOP)
        start = loop.time()
        with pytest.raises(StoreError, match=r"read: .*no answer in time"):
            await store.histories(["u"])
        assert loop.time() - start < 0.4
        with pytest.raises(StoreError, match=r"append: .*no answer in time"):
            await store.append({"u": events((2, 2))})
        own_redis.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.1)
        # The connections given up are not used again with answers of the past in them.
        assert pairs((await store.histories(["u"]))[0])[0] == (1, 1)
        own_redis.stop()
        start = loop.time()
        with pytest.raises(StoreError, match="read: "):
            await store.histories(["u"])
        with pytest.raises(StoreError, match="ping: "):
            await store.ping()
        assert loop.time() - start < 1
        own_redis.start()
        assert pairs((await store.histories(["u"]))[0]) == []
        await store.close()

    asyncio.run(scenario())


# Choosing a store.


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_the_benchmark_of_reads_checks_measures_and_leaves_nothing(
    kind: str, urls: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--store", urls[kind], "--calls", "5", "--rounds", "2"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])["us_cpu_and_wall"]
    assert set(measured) == {"1", "16"}
    assert all(
        microseconds > 0 for of_users in measured.values() for pair in of_users.values() for microseconds in pair
    )

    async def left() -> list[Records | None]:
        store = redis_store(urls[kind])
        found = await store.histories(["augur-bench-0", "augur-bench-15"])
        await store.close()
        return found

    assert [len(records) for records in asyncio.run(left()) if records is not None] == [0, 0]


def test_the_benchmark_says_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("memory", "redis+sentinel://h/it"):
        assert bench.main(["--store", url]) == 2
        assert "AUGUR_STORE=" in capsys.readouterr().err


def test_a_store_by_its_scheme() -> None:
    assert isinstance(open_store(Settings()), MemoryStore)
    for url in ("redis://h:1/0", "rediss://:secret@h:1/0", "redis+cluster://h:1", "rediss+sentinel://h:1/it"):
        assert isinstance(open_store(Settings(store=url)), RedisStore)
