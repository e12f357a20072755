from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from service_parts import FlakyStore, TwinScorer, memory

from model.scorer import ScoreInput, ScoreInputError, Scorer
from service.actions import ActionCodes
from service.batcher import Batcher
from service.errors import (
    ClientGoneError,
    DeadlineExceededError,
    DrainingError,
    InternalError,
    InvalidInputError,
    QueueFullError,
)
from service.jobs import History, Scored, catalogue_user
from service.models import Served
from service.settings import Settings
from service.stores.guarded import GuardedStore
from service.stores.records import pack

SETTINGS = Settings(max_items=100, batch_candidates=100, queue_candidates=200, lanes=1, inline_candidates=0)
SERVED: WeakKeyDictionary[Batcher, Served] = WeakKeyDictionary()


@asynccontextmanager
async def batching(twin: TwinScorer, store: Any = None, **changes: Any) -> AsyncIterator[Batcher]:
    settings = replace(SETTINGS, **changes)
    batcher = Batcher(GuardedStore(store or memory(), settings), settings)
    batcher.start()
    SERVED[batcher] = Served(twin.name, cast(Scorer, twin))
    try:
        yield batcher
    finally:
        twin.free.set()
        await batcher.close(1.0)


def ask(batcher: Batcher, user: str = "u", items: Any = (1,), history: Any = (), timeout_ms: int = 5000) -> Any:
    own = None if history is None else History(np.array(history, dtype=np.int64))
    scoring = batcher.score(SERVED[batcher], user, np.array(items, dtype=np.int64), {}, own, timeout_ms)
    return asyncio.ensure_future(scoring)


async def holding(twin: TwinScorer, batcher: Batcher) -> Any:
    """A request that keeps the scorer busy until `twin.free` is set."""
    twin.free.clear()
    twin.busy.clear()
    first = ask(batcher, "busy")
    await asyncio.to_thread(twin.busy.wait, 5)
    return first


def test_what_waits_is_one_batch_up_to_the_budget(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            rest = [ask(batcher, f"u{i}", range(40)) for i in range(4)]
            await asyncio.sleep(0)
            twin.free.set()
            await asyncio.gather(first, *rest)
            assert [len(call) for call in twin.calls] == [1, 2, 2]
            assert batcher.counts["batches"] == 3
            assert batcher.counts["candidates"] == 161

    asyncio.run(scenario())


def test_scores_are_split_again_and_do_not_depend_on_the_batch(twin: TwinScorer) -> None:
    async def scenario() -> None:
        rows = [(f"u{i}", list(range(i, 2 * i + 1)), [i] * i) for i in range(8)]
        async with batching(twin) as batcher:
            alone = [(await ask(batcher, *row)).scores.tolist() for row in rows]
            first = await holding(twin, batcher)
            waiting = [ask(batcher, *row) for row in rows]
            await asyncio.sleep(0)
            twin.free.set()
            together = [(await each).scores.tolist() for each in waiting]
            await first
        assert together == alone
        assert len({tuple(row) for row in alone}) == len(alone)

    asyncio.run(scenario())


def test_users_of_a_fetch_are_read_once_each(twin: TwinScorer) -> None:
    async def scenario() -> None:
        inner = memory()
        await inner.append({"a": pack(np.arange(3), np.arange(3))})
        store = FlakyStore(inner)
        async with batching(twin, store) as batcher:
            store.free.clear()
            first = ask(batcher, "x", history=None)
            await asyncio.sleep(0.01)
            rest = [ask(batcher, user, history=None) for user in ("a", "b", "a", "a")]
            await asyncio.sleep(0.01)
            store.free.set()
            results = await asyncio.gather(first, *rest)
            assert store.reads == [["x"], ["a", "b"]]
            assert batcher.counts["shared"] == 2
            assert [each.history_length for each in results] == [0, 3, 0, 3, 3]
            # Handed on as one object, so that the scorer sees at once that they are equal.
            of_a = [one.history for call in twin.calls for one in call if len(one.history)]
            assert len({id(history) for history in of_a}) == 1

    asyncio.run(scenario())


def test_the_most_recent_behaviours_with_their_actions_reach_the_scorer(twin: TwinScorer) -> None:
    async def scenario() -> None:
        store = memory()
        codes = np.array([ActionCodes(twin.actions, None).code(name) for name in ["show", None] * 6], dtype=np.uint32)
        await store.append({"7": pack(np.arange(12), np.arange(12), codes)})
        async with batching(twin, store) as batcher:
            scored = await ask(batcher, "7", history=None)
        (one,) = twin.calls[0]
        assert list(one.history) == list(range(4, 12))
        assert np.asarray(one.actions).tolist() == [0, 1] * 4
        assert one.user_id == 7
        assert scored.history_length == 8

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("-7", -7),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        *((text, None) for text in ("007", "-0", "+7", " 7", "7_0", "٧", "7.0", "a", "", str(2**63), "9" * 128)),
    ],
)
def test_only_a_number_as_numbers_are_written_is_a_user_of_the_training_data(text: str, number: int | None) -> None:
    assert catalogue_user(text) == number


def test_a_full_queue_refuses_and_empties(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            waiting = [ask(batcher, "u", range(100)), ask(batcher, "v", range(100))]
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError, match="200 candidates wait already: 1 more"):
                await ask(batcher, "w")
            twin.free.set()
            await asyncio.gather(first, *waiting)
            assert len((await ask(batcher, "w", range(100))).scores) == 100

    asyncio.run(scenario())


def test_a_request_that_expired_or_was_given_up_is_not_computed(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            late = ask(batcher, "late", range(100), timeout_ms=20)
            abandoned = ask(batcher, "gone", range(100))
            await asyncio.sleep(0)
            abandoned.cancel()
            with pytest.raises(DeadlineExceededError, match="no scores within 20 ms"):
                await late
            # Their place in the queue is free at once, though the scorer is still busy.
            patient = [ask(batcher, user, range(100)) for user in "pq"]
            await asyncio.sleep(0)
            twin.free.set()
            await asyncio.gather(first, *patient)
            assert [len(call) for call in twin.calls] == [1, 1, 1]
            assert batcher.counts["dropped"] == 2
            assert batcher.counts["expired"] == 1

    asyncio.run(scenario())


def test_requests_given_up_during_the_fetch_do_not_stop_it(twin: TwinScorer) -> None:
    async def scenario() -> None:
        store = FlakyStore(memory())
        async with batching(twin, store) as batcher:
            store.free.clear()
            first = ask(batcher, "x", history=None)
            await asyncio.sleep(0.01)
            gone = ask(batcher, "gone", history=None)
            await asyncio.sleep(0.01)
            gone.cancel()
            await asyncio.sleep(0)
            store.free.set()
            await first
            await ask(batcher, "y", history=None)
            assert store.reads == [["x"], ["gone"], ["y"]]
            assert len(twin.calls) == 2

    asyncio.run(scenario())


def test_one_bad_input_fails_alone(twin: TwinScorer) -> None:
    async def scenario() -> None:
        twin.poison = {13: ScoreInputError("item_ids", "item_ids: unlucky"), 14: RuntimeError("boom")}
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            waiting = [ask(batcher, "a", [1]), ask(batcher, "b", [14]), ask(batcher, "c", [13]), ask(batcher, "d", [2])]
            await asyncio.sleep(0)
            twin.free.set()
            results = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert isinstance(results[3], InvalidInputError)
        assert results[3].field == "item_ids"
        assert isinstance(results[2], InternalError)
        assert [isinstance(each, Scored) for each in results] == [True, True, False, False, True]

    asyncio.run(scenario())


def test_scores_that_are_no_numbers_are_a_fault_and_not_an_answer(
    twin: TwinScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            monkeypatch.setattr(twin, "expected", lambda one: np.full(len(one.item_ids), np.nan, dtype=np.float32))
            with pytest.raises(InternalError):
                await ask(batcher)

    asyncio.run(scenario())


def test_a_store_that_fails_degrades_those_who_need_it(twin: TwinScorer) -> None:
    async def scenario() -> None:
        store = FlakyStore(memory())
        store.down = True
        async with batching(twin, store) as batcher:
            stored, own = await asyncio.gather(ask(batcher, history=None), ask(batcher, history=[5, 6]))
            assert (stored.degraded, stored.history_length) == ("store_unavailable", 0)
            assert (own.degraded, own.history_length) == (None, 2)
            # A fault of the store's own code, which is no outage, is an error and no silent degradation.
            store.raises = RuntimeError("a bug")
            with pytest.raises(InternalError):
                await ask(batcher, history=None)
            store.raises, store.down = None, False
            assert (await ask(batcher, history=None)).degraded is None

    asyncio.run(scenario())


def test_a_batch_waits_for_company_when_told_to(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin, max_wait_us=300_000) as batcher:
            loop = asyncio.get_running_loop()
            early = ask(batcher, "a", range(40))
            await asyncio.sleep(0.02)
            await asyncio.gather(early, ask(batcher, "b", range(40)))
            assert [len(call) for call in twin.calls] == [2]
            # A full batch goes at once, and what did not fit waits its own time.
            start = loop.time()
            waiting = [ask(batcher, user, range(60)) for user in "cde"]
            await waiting[0]
            assert loop.time() - start < 0.2
            await asyncio.gather(*waiting)
            assert sum(len(call) for call in twin.calls) == 5

    asyncio.run(scenario())


def test_draining_finishes_what_is_there_and_takes_no_more(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            second = ask(batcher)
            await asyncio.sleep(0)
            threading.Timer(0.05, twin.free.set).start()
            closing = asyncio.ensure_future(batcher.close(5.0))
            await asyncio.sleep(0)
            with pytest.raises(DrainingError):
                await ask(batcher)
            await closing
            assert len((await first).scores) == len((await second).scores) == 1

    asyncio.run(scenario())


def test_draining_is_bounded(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            threading.Timer(0.2, twin.free.set).start()
            await batcher.close(0.05)
            with pytest.raises(DrainingError, match="stopped before"):
                await first

    asyncio.run(scenario())


def test_a_large_request_is_cut_and_put_together_again(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin, max_items=1000, queue_candidates=1000) as batcher:
            scored = await ask(batcher, "large", range(1, 351), [3])
            assert [len(one.item_ids) for call in twin.calls for one in call] == [87, 88, 87, 88]
            alone = twin.expected(ScoreInput(range(1, 351), [3]))
            np.testing.assert_array_equal(scored.scores, alone)
            assert batcher.waiting == 0

    asyncio.run(scenario())


def test_users_take_turns(twin: TwinScorer) -> None:
    """One with a long line does not keep the others from the next batch."""

    async def scenario() -> None:
        async with batching(twin, queue_candidates=1000) as batcher:
            first = await holding(twin, batcher)
            waiting = [ask(batcher, "1", range(n, n + 20)) for n in range(10)]
            waiting += [ask(batcher, user, range(20)) for user in "23"]
            await asyncio.sleep(0)
            twin.free.set()
            await asyncio.gather(first, *waiting)
            assert [[one.user_id for one in call] for call in twin.calls[1:]] == [[1, 2, 3, 1, 1], [1] * 5, [1] * 2]

    asyncio.run(scenario())


def test_the_place_of_a_request_that_left_is_free_at_once(twin: TwinScorer) -> None:
    async def scenario() -> None:
        store = FlakyStore(memory())
        async with batching(twin, store) as batcher:
            first = await holding(twin, batcher)
            store.free.clear()
            waiting = [ask(batcher, "queued", range(60)), ask(batcher, "fetching", range(70), history=None)]
            await asyncio.sleep(0.01)
            assert batcher.waiting == 130
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert batcher.waiting == 0
            store.free.set()
            twin.free.set()
            await first
            await ask(batcher, "after")
            assert batcher.waiting == 0
            assert batcher.counts["dropped"] == 2

    asyncio.run(scenario())


def test_several_lanes_compute_at_once(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin, lanes=2) as batcher:
            twin.free.clear()
            both = [ask(batcher, user, range(100)) for user in "ab"]
            while len(twin.calls) < 2:
                await asyncio.sleep(0.001)
            twin.free.set()
            await asyncio.gather(*both)

    asyncio.run(scenario())


def test_the_connection_of_a_request_that_waits_is_watched(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin) as batcher:
            first = await holding(twin, batcher)
            left = asyncio.Event()

            async def gone() -> None:
                await left.wait()

            scoring = batcher.score(SERVED[batcher], "u", np.arange(9), {}, History(np.arange(0)), 5000, gone)
            waiting = asyncio.ensure_future(scoring)
            await asyncio.sleep(0.05)
            left.set()
            with pytest.raises(ClientGoneError):
                await waiting
            twin.free.set()
            await first
            assert (batcher.counts["abandoned"], batcher.counts["candidates"]) == (1, 1)

    asyncio.run(scenario())


def test_what_is_small_and_meets_nothing_under_way_is_computed_on_the_event_loop(twin: TwinScorer) -> None:
    threads: list[str] = []

    async def scenario() -> None:
        async with batching(twin, memory(), inline_candidates=2) as batcher:
            score = twin.score
            twin.score = lambda inputs: threads.append(threading.current_thread().name) or score(inputs)  # type: ignore
            for history in (None, [1]):
                scored = await ask(batcher, "1", [1, 2], history=history)
                assert scored.scores.tolist() == twin.expected(ScoreInput([1, 2], history or ())).tolist()
            await asyncio.gather(ask(batcher, "two", [1]), ask(batcher, "at once", [1]))
            assert len(twin.calls[2]) == 2
            await ask(batcher, "large", range(3))
            await asyncio.gather(ask(batcher, "together", [1]), ask(batcher, "large", [1, 2]))
            twin.free.clear()
            busy = ask(batcher, "busy", range(50))
            await asyncio.to_thread(twin.busy.wait, 5)
            beside = ask(batcher, "beside", [1])
            await asyncio.sleep(0.01)
            twin.free.set()
            await asyncio.gather(busy, beside)

    asyncio.run(scenario())
    assert threads[:3] == ["MainThread"] * 3
    assert len(threads) >= 6
    assert set(threads[3:]) == {"augur-lane-0"}


def test_what_is_small_waits_for_company_too_where_the_settings_ask_for_it(twin: TwinScorer) -> None:
    async def scenario() -> None:
        async with batching(twin, memory(), inline_candidates=8, max_wait_us=300_000) as batcher:
            first = asyncio.ensure_future(ask(batcher, "1", [1]))
            await asyncio.sleep(0.02)
            await asyncio.gather(first, ask(batcher, "2", [2]))

    asyncio.run(scenario())
    assert [len(call) for call in twin.calls] == [2]
