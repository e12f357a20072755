from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from service_parts import ITEMS, SETTINGS, VALID, FlakyStore, Service, TwinScorer, error_of, event, memory, post, score

from model.scorer import ScoreInput, Scorer
from service import explain

PATH = "/v1/explain"


async def explained(service: Service, **body: Any) -> dict[str, Any]:
    answer = await post(service, PATH, {"user_id": "1", "item_ids": ITEMS} | body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["server-timing"].startswith("queue;dur=")
    found: dict[str, Any] = answer.json()
    return found


def check(found: dict[str, Any], scorer: Scorer, one: ScoreInput, scores: list[float]) -> None:
    rows = found["candidates"]
    assert [row["item_id"] for row in rows] == list(one.item_ids)
    assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-6)
    weights = np.array([row["attention"] for row in rows])
    np.testing.assert_allclose(weights, scorer.attention(one), atol=1e-6)
    if len(one.history):
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_attention_is_the_models_over_the_stored_history(with_service: Any, scorer: Scorer) -> None:
    events = [event(101, 10, action="buy"), event(102, 20), event(103, 30, action="click")]

    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": events})
        found = await explained(service, context={"tab": 1})
        assert found["history"] == [
            {"item_id": 101, "timestamp_ms": 10, "action": "buy"},
            {"item_id": 102, "timestamp_ms": 20, "action": "click"},  # the model's default
            {"item_id": 103, "timestamp_ms": 30, "action": "click"},
        ]
        one = ScoreInput(ITEMS, [101, 102, 103], ["buy", "click", "click"], {"tab": 1}, 1)
        check(found, scorer, one, (await score(service, context={"tab": 1}))["scores"])
        assert (found["model"], found["version"]) == ("tiny", scorer.version)
        assert (found["unknown_items"], found["degraded"]) == (0, None)

    with_service(scenario)


def test_only_the_behaviours_that_count_are_shown(with_service: Any, scorer: Scorer) -> None:
    long = [100 + i % 60 for i in range(40)]

    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(i, 1000 + i) for i in range(100, 140)]})
        stored = await explained(service)
        assert [each["timestamp_ms"] for each in stored["history"]] == list(range(1124, 1140))
        for actions in (None, ["buy"] * 40):
            own = {"history": long} | ({"history_actions": actions} if actions else {})
            found = await explained(service, **own)
            assert [each["item_id"] for each in found["history"]] == long[-16:]
            assert {each["action"] for each in found["history"]} == {"buy" if actions else "click"}
            assert {each["timestamp_ms"] for each in found["history"]} == {None}
            check(found, scorer, ScoreInput(ITEMS, long, actions, {}, 1), (await score(service, **own))["scores"])

    with_service(scenario)


def test_without_a_history_there_is_nothing_to_look_at(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        asked: list[dict[str, Any]] = [{}, {"history": []}, {"history": [], "history_actions": []}]
        for more in asked:
            found = await explained(service, item_ids=[100, 7], **more)
            assert found["history"] == []
            assert [row["attention"] for row in found["candidates"]] == [[], []]
            assert found["unknown_items"] == 1

    with_service(scenario)


def test_an_action_that_the_model_does_not_know_is_null(with_service: Any, twin: TwinScorer) -> None:
    store = memory()

    async def write(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(1, 1, action="show")]})

    async def read(service: Service) -> None:
        (behavior,) = (await explained(service))["history"]
        assert behavior["action"] is None

    with_service(write, scorer=twin, store=store)
    with_service(read, store=store)


def test_a_store_that_is_away_is_said(with_service: Any) -> None:
    store = FlakyStore(memory())
    store.down = True

    async def scenario(service: Service) -> None:
        found = await explained(service)
        assert (found["history"], found["degraded"]) == ([], "store_unavailable")

    with_service(scenario, store=store)


BAD: list[tuple[dict[str, Any], int, str]] = [
    (VALID | {"item_ids": [1] * 12}, 422, "at most 11 (AUGUR_MAX_EXPLAINED)"),
    (VALID | {"item_ids": []}, 422, "at least 1"),
    (VALID | {"item_ids": [1] * 11, "evolution": True}, 422, "with evolution at most 10"),
    (VALID | {"evolution": 1}, 422, "a valid boolean"),
    (VALID | {"top_k": 1}, 422, "no such field"),
    (VALID | {"model": "other"}, 404, "not served"),
    (VALID | {"context": {"hour": 1}}, 422, "no context field"),
    (VALID | {"history": [1] * 41}, 422, "AUGUR_MAX_HISTORY"),
    (VALID | {"history": [1], "history_actions": ["jump"]}, 422, "no action of the model"),
]


@pytest.mark.parametrize(("body", "status", "says"), BAD)
def test_a_bad_request_is_told_why(with_service: Any, body: dict[str, Any], status: int, says: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await post(service, PATH, body)
        assert answer.status_code == status
        assert says in error_of(answer)["message"]

    with_service(scenario, replace(SETTINGS, max_explained=11))


def test_evolution_ends_at_the_score_that_is_served(with_service: Any, scorer: Scorer) -> None:
    candidates = [*ITEMS[:3], 7]

    async def scenario(service: Service) -> None:
        assert "evolution" not in (await explained(service))["candidates"][0]
        await post(service, "/v1/behaviors", {"events": [event(item, item) for item in (101, 102, 103)]})
        own: list[dict[str, Any]] = [{}, {"history": [104, 105]}, {"history": []}]
        for asked in own:
            body = {"item_ids": candidates, "context": {"tab": 1}} | asked
            found = await explained(service, evolution=True, **body)
            one = ScoreInput(candidates, asked.get("history", [101, 102, 103]), None, {"tab": 1}, 1)
            scores = (await score(service, **body))["scores"]
            check(found, scorer, one, scores)
            due = scorer.evolution(one)
            for row, served, *parts in zip(found["candidates"], scores, *due[1:], strict=True):
                assert row["evolution"]["probabilities"][-1] == pytest.approx(served, abs=1e-6)
                for name, part in zip(("update", "moved", "probabilities"), parts, strict=True):
                    np.testing.assert_allclose(row["evolution"][name], part, atol=1e-7)

    with_service(scenario)


class SlowAttention(TwinScorer):
    """Attention that waits to be let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def attention(self, one: ScoreInput) -> Any:
        assert self.go.wait(10)
        return np.full((len(one.item_ids), len(one.history)), 1.0, dtype=np.float32)


def test_few_may_wait_and_none_past_its_deadline(with_service: Any) -> None:
    slow = SlowAttention()

    async def scenario(service: Service) -> None:
        service.app.state.explainer = explain.Explainer(most=2)
        waiting = [asyncio.ensure_future(post(service, PATH, VALID | {"timeout_ms": ms})) for ms in (200, 9000)]
        await asyncio.sleep(0.1)
        begun = time.perf_counter()
        full = await post(service, PATH, VALID)
        assert (full.status_code, error_of(full)["code"]) == (429, "queue_full")
        # The event loop is not held up by what the thread computes.
        assert (await service.client.get("/livez")).status_code == 200
        assert time.perf_counter() - begun < 3
        late = await waiting[0]
        assert (late.status_code, error_of(late)["code"]) == (504, "deadline_exceeded")
        slow.go.set()
        answer: httpx.Response = await waiting[1]
        assert answer.status_code == 200
        assert (await post(service, PATH, VALID)).status_code == 200

    with_service(scenario, scorer=slow)
