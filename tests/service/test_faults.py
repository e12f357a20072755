from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from service_parts import SETTINGS, VALID, FlakyStore, Service, TwinScorer, error_of, event, memory, post, score


def test_without_the_store_scores_are_degraded_and_the_rest_says_so(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(101, 1)]})
        healthy = await score(service)
        store.down = True
        # One who was read a moment ago is scored from that, another one from nothing.
        assert await score(service) == healthy | {"degraded": "store_stale"}
        found = await score(service, user_id="2")
        assert (found["degraded"], found["history_length"]) == ("store_unavailable", 0)
        assert (await score(service, history=[101]))["degraded"] is None
        for answer in (
            await post(service, "/v1/behaviors", {"events": [event(102, 2)]}),
            await service.client.get("/v1/users/1/behaviors"),
            await service.client.delete("/v1/users/1/behaviors"),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
            assert answer.headers["retry-after"] == "1"
        assert (await service.client.get("/readyz")).status_code == 200
        # By now the store is left alone, until a request tries it.
        assert service.app.state.engine.store.breaker_state == "open"
        store.down = False
        # One who was to be forgotten, even in vain, is not remembered here.
        assert (await score(service))["degraded"] == "store_unavailable"
        await asyncio.sleep(0.3)
        assert await score(service) == healthy

    store = FlakyStore(memory())
    with_service(scenario, settings=replace(SETTINGS, breaker_failures=5, breaker_seconds=0.25), store=store)


def test_redis_that_hangs_or_is_killed_degrades_and_comes_back(with_service: Any, own_redis: Any) -> None:
    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(101, 1)]})
        healthy = await score(service)
        assert healthy["history_length"] == 1
        own_redis.process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        assert await score(service) == healthy | {"degraded": "store_stale"}
        assert time.monotonic() - start < 0.9
        own_redis.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.1)
        assert await score(service) == healthy
        own_redis.stop()
        assert (await score(service, user_id="2"))["degraded"] == "store_unavailable"
        assert (await post(service, "/v1/behaviors", {"events": [event(102, 2)]})).status_code == 503
        own_redis.start()
        back = await score(service)
        assert (back["degraded"], back["history_length"]) == (None, 0)

    with_service(scenario, settings=replace(SETTINGS, store=own_redis.url, store_timeout_ms=300), store=None)


def test_a_value_that_cannot_be_read_degrades_its_user_alone(with_service: Any, redis_server: Any) -> None:
    async def scenario(service: Service) -> None:
        redis.set("augur:1:{bad}", b"?")
        assert (await score(service, user_id="bad"))["degraded"] == "store_unavailable"
        assert (await score(service, user_id="good"))["degraded"] is None
        answer = await service.client.get("/v1/users/bad/behaviors")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
        redis.delete("augur:1:{bad}")

    with Redis.from_url(redis_server.url) as redis:
        with_service(scenario, settings=replace(SETTINGS, store=redis_server.url, store_timeout_ms=2000), store=None)


def test_requests_of_one_user_at_once_share_a_fetch(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        store.free.clear()
        first = asyncio.ensure_future(score(service, user_id="9"))
        await asyncio.sleep(0.05)
        both = [asyncio.ensure_future(score(service, item_ids=items)) for items in ([100], [101, 102])]
        await asyncio.sleep(0.05)
        store.free.set()
        await first
        assert [len((await one)["scores"]) for one in both] == [1, 2]
        assert store.reads == [["9"], ["1"]]
        assert service.counts["shared"] == 1

    store = FlakyStore(memory())
    with_service(scenario, store=store)


def test_a_deadline_is_kept_and_the_cap_holds(with_service: Any, twin: TwinScorer) -> None:
    async def scenario(service: Service) -> None:
        twin.free.clear()
        for timeout_ms in (10, 10**30):
            answer = await post(service, "/v1/score", VALID | {"timeout_ms": timeout_ms})
            assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline_exceeded")
        twin.free.set()
        await score(service, item_ids=[5])

    with_service(scenario, scorer=twin, settings=replace(SETTINGS, timeout_ms=50, timeout_cap_ms=100))


def test_a_full_queue_asks_to_come_back(with_service: Any, twin: TwinScorer) -> None:
    async def scenario(service: Service) -> None:
        twin.free.clear()
        waiting = []
        for _ in range(2):
            waiting.append(asyncio.ensure_future(score(service, item_ids=[1] * 50)))
            await asyncio.sleep(0.05)
        answer = await post(service, "/v1/score", VALID | {"item_ids": [1] * 50})
        assert (answer.status_code, error_of(answer)["code"]) == (429, "queue_full")
        assert answer.headers["retry-after"] == "1"
        twin.free.set()
        await asyncio.gather(*waiting)

    with_service(scenario, scorer=twin, settings=replace(SETTINGS, queue_candidates=99))


def test_a_fault_of_the_server_is_500_logged_and_leaves_it_serving(
    with_service: Any, twin: TwinScorer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        twin.poison = {13: RuntimeError("secret detail")}
        answer = await post(service, "/v1/score", VALID | {"item_ids": [13]})
        assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
        assert "secret" not in answer.text
        store.raises = RuntimeError("secret detail")
        answer = await service.client.get("/v1/users/1/behaviors", headers={"x-request-id": "abc"})
        assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
        assert "secret" not in answer.text
        store.raises = None
        await score(service, item_ids=[5])

    store = FlakyStore(memory())
    with caplog.at_level(logging.ERROR):
        with_service(scenario, scorer=twin, store=store)
    assert caplog.text.count("RuntimeError: secret detail") == 2
    assert "request id abc" in caplog.text


def test_a_client_that_goes_is_not_computed(with_service: Any, twin: TwinScorer) -> None:
    """Spoken to without a client library, which would not let us leave."""

    async def scenario(service: Service) -> None:
        twin.free.clear()
        busy = asyncio.ensure_future(score(service, item_ids=[1]))
        await asyncio.to_thread(twin.busy.wait, 5)
        leave = asyncio.Event()
        sent: list[Any] = []
        messages = iter([{"type": "http.request", "body": json.dumps(VALID).encode(), "more_body": False}])

        async def receive() -> Any:
            for message in messages:
                return message
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/score",
            "raw_path": b"/v1/score",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        gone = asyncio.ensure_future(service.app(scope, receive, send))
        await asyncio.sleep(0.05)
        leave.set()
        await gone
        assert sent[0]["status"] == 499
        twin.free.set()
        await busy
        assert len(twin.calls) == 2  # the warm-up and the busy one
        # And within its own body.
        await service.app(scope, receive, send)
        assert sent[-2]["status"] == 499

    with_service(scenario, scorer=twin)


def test_a_clock_that_goes_back_changes_nothing(with_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages and deadlines are of clocks that cannot; a time of day is only ever shown."""

    async def scenario(service: Service) -> None:
        told = {"events": [event(101, 1), event(102, 2)]}
        await post(service, "/v1/behaviors", told)
        before = await score(service)
        monkeypatch.setattr(time, "time", lambda: -1e9)
        assert await score(service) == before
        assert (await post(service, "/v1/behaviors", told)).json()["duplicates"] == 2
        assert len((await service.client.get("/v1/users/1/behaviors")).json()["events"]) == 2
        answer = await post(service, "/v1/score", VALID | {"timeout_ms": 1000})
        assert answer.status_code == 200
        assert (await service.client.get("/livez")).status_code == 200

    with_service(scenario, settings=replace(SETTINGS, ttl_seconds=60))
