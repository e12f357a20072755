from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_parts import ITEMS, SETTINGS, VALID, FlakyStore, Service, TwinScorer, error_of, event, memory, post, score
from test_decode import bodies

from service import batch
from service.errors import AugurError
from service.settings import Settings

PATH = "/v1/score:batch"


async def results(service: Service, *requests: Any) -> list[dict[str, Any]]:
    answer = await post(service, PATH, {"requests": requests})
    assert answer.status_code == 200, answer.text
    assert re.fullmatch(r"queue;dur=[\d.]+, store;dur=[\d.]+, compute;dur=[\d.]+", answer.headers["server-timing"])
    found: list[dict[str, Any]] = answer.json()["results"]
    assert len(found) == len(requests)
    return found


def test_each_answer_is_that_of_a_single_request_in_order(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(101, 1), event(102, 2, user_id="2")]})
        asked: list[dict[str, Any]] = [
            {"user_id": "1", "item_ids": ITEMS},
            {"user_id": "2", "item_ids": ITEMS[:3], "context": {"tab": 1}},
            {"user_id": "1", "item_ids": ITEMS[5:], "top_k": 2},
            {"user_id": "1\\", "item_ids": ITEMS[:1], "history": [101], "history_actions": ["buy"]},
        ]
        for found, one in zip(await results(service, *asked), asked, strict=True):
            alone = await score(service, **one)
            assert list(found) == list(alone)
            for name in set(alone) - {"scores", "ranking"}:
                assert found[name] == alone[name]
            if "scores" in alone:
                assert found["scores"] == pytest.approx(alone["scores"], abs=1e-6)
            else:
                assert [row["item_id"] for row in found["ranking"]] == [row["item_id"] for row in alone["ranking"]]

    with_service(scenario)


def test_one_that_is_wrong_has_its_error_in_its_place(with_service: Any, twin: TwinScorer) -> None:
    twin.poison[999] = ValueError("no")

    async def scenario(service: Service) -> None:
        wrong: list[Any] = [
            7,
            {},
            VALID | {"item_ids": [1, "2"]},
            VALID | {"history_actions": ["show"]},
            VALID | {"model": "other"},
            VALID | {"item_ids": [999]},
            VALID | {"item_ids": list(range(51))},
        ]
        found = await results(service, VALID, *wrong, VALID)
        assert found[0] == found[-1]
        assert found[0]["scores"]
        errors = [each["error"] for each in found[1:-1]]
        assert [each["status"] for each in errors] == [422, 422, 422, 422, 404, 500, 422]
        assert [each.get("field") for each in errors[:4]] == [None, "user_id", "item_ids[1]", "history_actions"]
        assert all(each["message"] and each["code"] for each in errors)

        # A fault of the server does not hide behind 200.
        fault = await post(service, PATH, {"requests": [VALID | {"item_ids": [999]}, 7]})
        assert (fault.status_code, error_of(fault)["code"]) == (500, "internal")

        # None of them at all is still an answer for each.
        assert [each["error"]["status"] for each in await results(service, *wrong[:4])] == [422] * 4

    with_service(scenario, scorer=twin)


def test_all_are_submitted_at_once_and_share_their_users_fetch(with_service: Any, twin: TwinScorer) -> None:
    store = FlakyStore(memory())

    async def scenario(service: Service) -> None:
        await results(service, VALID, VALID | {"user_id": "2"}, VALID | {"item_ids": [101]}, VALID)
        assert store.reads == [["1", "2"]]
        assert service.counts["shared"] == 2
        assert service.counts["requests"] == 4

    with_service(scenario, scorer=twin, store=store)


BAD: list[tuple[Any, int, str]] = [
    ("", 400, "not JSON"),
    ("[]", 422, "object"),
    ("{}", 422, "requests: required"),
    ('{"requests": []}', 422, "at least 1"),
    ('{"requests": {}}', 422, "list"),
    ('{"requests": [{}], "more": 1}', 422, "no such field"),
    ('{"requests": [' + ",".join([json.dumps(VALID)] * 4) + "]}", 422, "at most 3 (AUGUR_MAX_REQUESTS)"),
    ('{"requests": [' + ",".join(["1"] * 3 + ['"\\u0041"']) + "]}", 422, "at most 3 (AUGUR_MAX_REQUESTS)"),
    ('{"requests": [' + ",".join([json.dumps(VALID | {"item_ids": [1] * 40})] * 3) + "]}", 422, "120 candidates"),
    ('{"requests": [1], "requests": [1]}', 400, "stands twice"),
    ('{"requests": [{"user_id": "1", "user_id": "1", "item_ids": [1]}]}', 400, "stands twice"),
    ('{"requests": [{"user_id": "1", "item_ids": [NaN]}]}', 400, "NaN"),
    ('{"requests": [' + "[" * 5000 + "]" * 5000 + "]}", 400, "nested"),
]


@pytest.mark.parametrize(("body", "status", "says"), BAD, ids=[str(place) for place in range(len(BAD))])
def test_a_document_that_is_wrong_is_refused_whole(with_service: Any, body: str, status: int, says: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.post(PATH, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        assert says in error_of(answer)["message"]

    with_service(scenario, replace(SETTINGS, max_requests=3, queue_candidates=100))


def test_where_none_was_taken_the_whole_is_to_be_tried_again(with_service: Any, twin: TwinScorer) -> None:
    settings = Settings(
        lanes=1, max_items=40, queue_candidates=60, drain_seconds=1.0, timeout_ms=9000, inline_candidates=0
    )
    large = VALID | {"item_ids": list(range(40))}

    async def scenario(service: Service) -> None:
        twin.free.clear()
        first = asyncio.ensure_future(score(service, item_ids=[1], user_id="9"))
        while not twin.busy.is_set():
            await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(post(service, PATH, {"requests": [large]}))
        await asyncio.sleep(0.05)
        full = await post(service, PATH, {"requests": [large, {}]})
        assert (full.status_code, error_of(full)["code"]) == (429, "queue_full")
        assert full.headers["retry-after"] == "1"
        late = await post(service, PATH, {"requests": [VALID | {"timeout_ms": 30}, VALID | {"timeout_ms": 30}]})
        assert (late.status_code, error_of(late)["code"]) == (504, "deadline_exceeded")
        some = asyncio.ensure_future(results(service, VALID, large, VALID | {"timeout_ms": 30}))
        await asyncio.sleep(0.1)
        twin.free.set()
        found = await some
        assert found[0]["scores"]
        assert [each["error"]["status"] for each in found[1:]] == [429, 504]
        assert (await waiting).status_code == 200
        await first
        await service.app.state.engine.batcher.close(1)
        stopped = await post(service, PATH, {"requests": [VALID]})
        assert (stopped.status_code, error_of(stopped)["code"]) == (503, "draining")

    with_service(scenario, settings, scorer=twin)


@settings(max_examples=400, deadline=None)
@given(st.lists(bodies(), min_size=1, max_size=3), st.sampled_from([b"%s", b'"requests":[1],%s', b'%s,"x":1']))
def test_the_quick_reader_sees_what_the_strict_one_sees(entries: list[bytes], form: bytes) -> None:
    body = b"{" + form % (b'"requests":[' + b",".join(entries) + b"]") + b"}"
    assert outcome(batch.batch_asks, body) == outcome(batch._strictly, body)


def outcome(reader: Callable[[bytes, int], list[batch.Ask]], body: bytes) -> Any:
    """Comparable: what was read of each request, or what was said of it."""
    try:
        asks = reader(body, 64)
    except AugurError as error:
        return error.code
    return [each.message if isinstance(each, AugurError) else [str(field) for field in each] for each in asks]
