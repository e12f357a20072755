from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_parts import FlakyStore, memory

from service.settings import Settings
from service.stores import StoreError, StoreRefusedError
from service.stores.breaker import Breaker
from service.stores.guarded import GuardedStore, Recalled
from service.stores.records import Records, pack


def event(number: int) -> Records:
    return pack(np.array([number]), np.array([number]))


def items(known: Recalled) -> tuple[list[int], str | None]:
    return known.records["item_id"].tolist(), known.degraded


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Guarded:
    """A guarded store whose inner one fails when told to, and whose time is put forward by hand."""

    def __init__(self, **changes: Any) -> None:
        self.clock = Clock()
        self.inner = FlakyStore(memory(window=4))
        given_settings = Settings(**({"breaker_failures": 3, "breaker_seconds": 2, "window": 4} | changes))
        self.store = GuardedStore(self.inner, given_settings, self.clock)

    async def recall(self, *users: str) -> list[tuple[list[int], str | None]]:
        return [items(known) for known in await self.store.recall(users)]


def test_reads_go_down_the_ladder_and_up_again() -> None:
    async def scenario() -> None:
        g = Guarded(stale_seconds=60)
        await g.store.append({"a": event(1)})
        assert await g.recall("a", "b") == [([1], None), ([], None)]
        g.inner.down = True
        # That somebody has no behaviours is known, too.
        assert await g.recall("a", "b", "c") == [([1], "store_stale"), ([], "store_stale"), ([], "store_unavailable")]
        g.clock.now += 61
        assert await g.recall("a") == [([], "store_unavailable")]
        g.inner.down = False
        assert await g.recall("a") == [([1], None)]
        assert g.store.counts["stale"] == g.store.counts["empty"] == 2

    asyncio.run(scenario())


def test_a_user_who_alone_cannot_be_read_goes_down_alone() -> None:
    async def scenario() -> None:
        g = Guarded()
        await g.store.append({"a": event(1), "b": event(2)})
        await g.recall("a", "b")
        g.inner.unreadable = {"a"}
        assert await g.recall("a", "b") == [([1], "store_stale"), ([2], None)]
        assert (await g.store.histories(["a"]))[0] is None

    asyncio.run(scenario())


def test_copies_are_bounded_in_users_and_the_latest_stay() -> None:
    async def scenario() -> None:
        g = Guarded(stale_users=2)
        await g.recall("a", "b")
        await g.recall("a", "c")
        g.inner.down = True
        degraded = [known.degraded for known in await g.store.recall("abc")]
        assert degraded == ["store_stale", "store_unavailable", "store_stale"]
        g = Guarded(stale_users=0)
        await g.recall("a")
        g.inner.down = True
        assert await g.recall("a") == [([], "store_unavailable")]

    asyncio.run(scenario())


def test_copies_that_are_too_old_take_no_room() -> None:
    async def scenario() -> None:
        g = Guarded(stale_seconds=10)
        await g.recall(*(str(user) for user in range(50)))
        g.clock.now += 11
        await g.recall("a")
        assert len(g.store._copies) == 1

    asyncio.run(scenario())


def test_a_copy_is_no_older_than_what_was_acknowledged() -> None:
    async def scenario() -> None:
        g = Guarded()
        await g.store.append({"a": event(1)})
        await g.recall("a", "b")
        await g.store.append({"a": event(3)})
        await g.store.append({"a": event(2), "b": event(9)})
        g.inner.down = True
        with pytest.raises(StoreError):
            await g.store.append({"a": event(4)})
        assert await g.recall("a", "b") == [([1, 2, 3], "store_stale"), ([9], "store_stale")]

    asyncio.run(scenario())


def test_a_user_who_writes_more_than_a_window_is_not_kept() -> None:
    async def scenario() -> None:
        g = Guarded()
        await g.recall("a")
        for number in range(5):
            await g.store.append({"a": event(number)})
        g.inner.down = True
        assert await g.recall("a") == [([], "store_unavailable")]

    asyncio.run(scenario())


def test_who_is_forgotten_is_not_remembered_here() -> None:
    async def scenario() -> None:
        g = Guarded()
        for down in (False, True):
            g.inner.down = False
            await g.store.append({"a": event(1)})
            await g.recall("a")
            g.inner.down = down
            try:
                await g.store.delete("a")
            except StoreError:
                assert down
            g.inner.down = True
            assert await g.recall("a") == [([], "store_unavailable")]
            g.clock.now += 5

    asyncio.run(scenario())


@pytest.mark.parametrize("deleted", [False, True])
def test_a_read_that_a_write_overtakes_leaves_no_copy(deleted: bool) -> None:
    async def scenario() -> None:
        g = Guarded()
        await g.store.append({"a": event(1)})
        slow = asyncio.Event()
        before = g.inner.inner.histories

        async def histories(user_ids: Any) -> Any:
            found = await before(user_ids)
            await slow.wait()
            return found

        g.inner.inner.histories = histories  # type: ignore[method-assign]
        reading = asyncio.ensure_future(g.recall("a"))
        await asyncio.sleep(0)
        await (g.store.delete("a") if deleted else g.store.append({"a": event(2)}))
        slow.set()
        assert await reading == [([1], None)]
        g.inner.down = True
        assert await g.recall("a") == [([], "store_unavailable")]

    asyncio.run(scenario())


def test_open_the_store_is_left_alone_and_one_call_tries_it_again() -> None:
    async def scenario() -> None:
        g = Guarded()
        g.inner.down = True
        for _ in range(3):
            assert g.store.breaker_state == "closed"
            await g.recall("a")
        assert g.store.breaker_state == "open"
        asked = len(g.inner.reads)
        await g.recall("a")
        for call in (g.store.append({"a": event(1)}), g.store.delete("a"), g.store.histories(["a"])):
            with pytest.raises(StoreError, match="left alone"):
                await call
        assert len(g.inner.reads) == asked
        # The probe fails: open again for as long.
        g.clock.now += 2
        assert g.store.breaker_state == "half_open"
        await g.recall("a")
        assert (len(g.inner.reads), g.store.breaker_state) == (asked + 1, "open")
        # One at a time.
        g.clock.now += 2
        g.inner.free.clear()
        probe = asyncio.ensure_future(g.recall("a"))
        await asyncio.sleep(0)
        assert g.store.breaker_state == "half_open"
        await g.recall("a")
        assert len(g.inner.reads) == asked + 2
        # A probe whose caller goes away decides nothing, and the next one may try.
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        g.inner.down = False
        g.inner.free.set()
        assert await g.recall("a") == [([], None)]
        assert g.store.breaker_state == "closed"
        assert g.store.counts["opened"] == 1

    asyncio.run(scenario())


def test_a_write_can_be_the_probe() -> None:
    async def scenario() -> None:
        g = Guarded(breaker_failures=1)
        g.inner.down = True
        await g.recall("a")
        g.inner.down = False
        g.clock.now += 2
        await g.store.append({"a": event(1)})
        assert g.store.breaker_state == "closed"

    asyncio.run(scenario())


def test_refusals_and_faults_of_the_code_open_nothing() -> None:
    async def scenario() -> None:
        g = Guarded(breaker_failures=1)
        g.inner.raises = StoreRefusedError("append: OOM")
        for _ in range(3):
            with pytest.raises(StoreRefusedError):
                await g.store.append({"a": event(1)})
        g.inner.raises = RuntimeError("a bug")
        with pytest.raises(RuntimeError):
            await g.store.recall(["a"])
        g.inner.raises = None
        assert g.store.breaker_state == "closed"
        assert await g.recall("a") == [([], None)]

    asyncio.run(scenario())


def test_what_is_wrong_is_logged_and_not_for_every_request(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        g = Guarded(breaker_failures=100)
        g.inner.down = True
        for _ in range(5):
            await g.recall("a")
        g.clock.now += 1
        await g.recall("a")

    asyncio.run(scenario())
    assert caplog.messages == ["the store: read: no answer within 25 ms"] * 2


def test_a_deletion_that_a_read_overtakes_leaves_no_copy() -> None:
    async def scenario() -> None:
        g = Guarded()
        await g.store.append({"a": event(1)})
        await g.recall("a")
        slow = asyncio.Event()

        async def delete(_: str) -> bool:
            await slow.wait()
            return True

        g.inner.delete = delete  # type: ignore[assignment,method-assign]
        deleting = asyncio.ensure_future(g.store.delete("a"))
        await asyncio.sleep(0)
        assert await g.recall("a") == [([1], None)]
        slow.set()
        await deleting
        g.inner.down = True
        assert await g.recall("a") == [([], "store_unavailable")]

    asyncio.run(scenario())


def test_the_rest_passes_through() -> None:
    async def scenario() -> None:
        g = Guarded(breaker_failures=1)
        assert await g.store.seed([("a", event(1))]) == 1
        assert await g.store.seed([("a", event(2))], replace=True) == 1
        await g.store.ping()
        g.inner.down = True
        with pytest.raises(StoreError):
            await g.store.ping()
        with pytest.raises(StoreError):
            await g.store.seed([])
        assert g.store.breaker_state == "closed"
        await g.store.close()

    asyncio.run(scenario())


def test_a_copy_lives_no_longer_than_what_it_is_a_copy_of() -> None:
    async def scenario() -> None:
        g = Guarded(ttl_seconds=5, stale_seconds=60)
        await g.recall("a")
        g.inner.down = True
        g.clock.now += 6
        assert await g.recall("a") == [([], "store_unavailable")]

    asyncio.run(scenario())


# The breaker alone.


def test_failures_far_apart_are_no_outage() -> None:
    clock = Clock()
    breaker = Breaker(3, 1.0, Counter(), clock)
    for _ in range(10):
        breaker.report(breaker.admit() or 0, well=False)
        clock.now += 6
    assert breaker.state == "closed"


def test_calls_of_the_past_decide_nothing() -> None:
    clock = Clock()
    breaker = Breaker(1, 1.0, Counter(), clock)
    old, failing = breaker.admit(), breaker.admit()
    assert old is not None
    assert failing is not None
    breaker.report(failing, well=False)
    breaker.report(old, well=True)
    assert breaker.state == "open"
    clock.now += 1
    assert breaker.admit() is not None
    breaker.report(old, well=False)
    breaker.give_back(old)
    assert breaker.admit() is None
    assert breaker.state == "half_open"


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from("ab"), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.sampled_from("ab"), st.just(0)),
        st.tuples(st.just("read"), st.sampled_from(["a", "b", "ab"]), st.just(0)),
        st.tuples(st.sampled_from(["down", "up", "later"]), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS)
def test_whatever_happens_an_answer_is_true_or_says_so(actions: list[Any]) -> None:
    """As long as this process alone writes, a stale answer is the very sequence, too, and an empty one says so."""

    async def scenario() -> None:
        g = Guarded(window=100)
        g.inner.inner = memory(window=100)
        for kind, users, number in actions:
            if kind in {"down", "up"}:
                g.inner.down = kind == "down"
            elif kind == "later":
                g.clock.now += 3
            elif kind == "read":
                truth = await g.inner.inner.histories(users)
                for known, stored in zip(await g.store.recall(users), truth, strict=True):
                    assert stored is not None
                    if known.degraded == "store_unavailable":
                        assert len(known.records) == 0
                    else:
                        assert known.records.tobytes() == stored.tobytes()
                    assert g.inner.down or known.degraded is None or g.store.breaker_state != "closed"
            else:
                call = g.store.append({users: event(number)}) if kind == "append" else g.store.delete(users)
                try:
                    await call
                except StoreError:
                    assert g.inner.down or g.store.breaker_state != "closed"

    asyncio.run(scenario())
