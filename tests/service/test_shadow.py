"""Models that score in the shadow of the answer: compared with it, and never in its way."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import model_versions as versions
import numpy as np
import pytest
from service_parts import ADMIN_KEY, ADMIN_KEYS, ITEMS, Service, TwinScorer, event, memory, post, score

from model.scorer import Scorer
from service.decode import ScoreAsk
from service.models import Routes, Served
from service.replay import Replay
from service.settings import Settings
from service.shadow import ShadowReport
from service.stores.records import pack


@pytest.fixture
def folders(artifact_folder: Path, tmp_path: Path) -> Path:
    """`now`, and `next` in which every probability is a little larger."""
    shutil.copytree(artifact_folder, tmp_path / "now")
    versions.near(artifact_folder, tmp_path / "next", 0.1)
    return tmp_path


def settings_of(folders: Path, routes: str, **changes: Any) -> Settings:
    return Settings(
        models=f"now={folders / 'now'},next={folders / 'next'}",
        routes=routes,
        lanes=1,
        admin_keys=ADMIN_KEYS,
        **changes,
    )


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def shadows(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = (await service.client.get("/v1/models")).json()["routes"]["shadows"]
    return found


def test_the_same_request_is_scored_again_and_compared_with_its_answer(serving: Any, folders: Path) -> None:
    async def scenario() -> None:
        async with serving(settings_of(folders, "now=1,next=shadow"), store=memory()) as service:
            listed = (await service.client.get("/v1/models")).json()["routes"]
            version = service.app.state.engine.models.get("next").version
            assert listed["weights"] == {"now": 1.0}
            assert listed["shadows"]["next"] == {
                **{"share": 1.0, "version": version, "requests": 0, "shed": 0, "failed": 0, "candidates": 0},
                **{"mean_difference": None, "max_difference": 0.0},
            }
            await post(service, "/v1/behaviors", {"events": [event(101, 1, action="buy"), event(105, 2)]})
            asked: list[dict[str, Any]] = [
                {"context": {"tab": 1}},
                {"history": [100, 101], "history_actions": ["buy", "click"]},
                {"model": "now", "top_k": 3},
            ]
            differences = []
            for body in asked:
                answered = await score(service, **body)
                assert answered["model"] == "now"
                plain = {name: value for name, value in body.items() if name not in ("top_k", "model")}
                both = [await score(service, **plain, model=name) for name in ("now", "next")]
                differences.append(np.abs(np.subtract(both[0]["scores"], both[1]["scores"])))
            # Answers that are not what the routes say are no measure of their shadows: those of "next" itself.
            counts = service.counts
            await until(lambda: counts["shadow_requests"] == 6)
            await asyncio.sleep(0.02)
            found = (await shadows(service))["next"]
            assert (found["requests"], found["candidates"], found["shed"]) == (6, 6 * len(ITEMS), 0)
            assert found["mean_difference"] == pytest.approx(float(np.mean(differences)), rel=1e-5)
            assert found["max_difference"] == pytest.approx(float(np.max(differences)), rel=1e-5)
            # What is computed for nobody is in no count of what is computed for somebody.
            assert counts["requests"] == 9
            assert counts["candidates"] == 9 * len(ITEMS)
            assert counts["shadow_candidates"] == 6 * len(ITEMS)

    asyncio.run(scenario())


def test_a_new_version_of_a_shadow_is_compared_anew(serving: Any, folders: Path) -> None:
    async def scenario() -> None:
        async with serving(settings_of(folders, "now=1,next=shadow"), store=memory()) as service:
            await score(service)
            await until(lambda: service.counts["shadow_requests"] == 1)
            version = versions.near(folders / "now", folders / "next", 0.05)
            answer = await service.client.post("/v1/models/next/load", headers=ADMIN_KEY)
            assert answer.json()["version"] == version
            # Shadows see what their model would be asked: the comparison had no request of its own.
            found = (await shadows(service))["next"]
            assert (found["version"], found["requests"]) == (version, 0)
            await score(service)
            await until(lambda: service.counts["shadow_requests"] == 2)
            assert (await shadows(service))["next"]["requests"] == 1

    asyncio.run(scenario())


def twins(serving: Any, scenario: Any, **changes: Any) -> None:
    """Runs a scenario with a model and its shadow that can be held up."""
    settings = Settings(
        max_items=50, queue_candidates=200, inline_candidates=0, drain_seconds=1.0, timeout_ms=10_000, **changes
    )

    async def whole() -> None:
        first, shadow = TwinScorer(), TwinScorer()
        async with serving(settings, scorer=first, store=memory()) as service:
            engine = service.app.state.engine
            engine.models.put(Served("shadow", cast(Scorer, shadow)))
            engine.models.routes = Routes({"twin": 1.0}, {"shadow": 1.0})
            await scenario(service, first, shadow)

    asyncio.run(whole())


def test_shadows_wait_behind_requests_and_are_shed_first(serving: Any) -> None:
    async def scenario(service: Service, first: TwinScorer, shadow: TwinScorer) -> None:
        counts = service.counts
        await score(service, item_ids=[1] * 20)
        await until(lambda: counts["shadow_requests"] == 1)
        # While the lane is held none begins.
        first.free.clear()
        held = asyncio.ensure_future(score(service, item_ids=[2]))
        assert await asyncio.to_thread(first.busy.wait, 5)
        await asyncio.sleep(0.01)
        done = counts["shadow_requests"]
        queue = service.app.state.engine.batcher.lanes.behind
        # A quarter of the queue is 50: two of 20 fit, the third does not.
        replay = Replay(ScoreAsk("1", np.arange(20)))
        follow = service.app.state.engine.shadows._submit
        served = service.app.state.engine.models.get("shadow")
        for _ in range(3):
            follow(replay, [served], TwinScorer.expected(replay.as_input(served, 20)))
        await asyncio.sleep(0.01)
        assert queue.candidates == 40
        assert counts["shadow_shed"] == 1
        # Requests that wait beyond the quarter drive out what is there.
        waiting = [asyncio.ensure_future(score(service, item_ids=[3] * 30, user_id=str(n))) for n in range(2)]
        await asyncio.sleep(0.02)
        follow(replay, [served], np.zeros(20, dtype=np.float32))
        await asyncio.sleep(0.01)
        assert queue.candidates == 0
        assert counts["shadow_shed"] == 4
        assert counts["shadow_requests"] == done
        first.free.set()
        await asyncio.gather(held, *waiting)
        await until(lambda: counts["shadow_requests"] + counts["shadow_shed"] == done + 4 + 3)
        report = service.app.state.engine.shadows.report(served)
        assert (report.shed, report.requests) == (counts["shadow_shed"], counts["shadow_requests"])
        assert report.max_difference == 0.0

    twins(serving, scenario, lanes=1)


def test_one_lane_is_always_free_of_shadows(serving: Any) -> None:
    async def scenario(service: Service, first: TwinScorer, shadow: TwinScorer) -> None:
        shadow.free.clear()
        for user in range(6):
            assert (await score(service, user_id=str(user), item_ids=[1] * 8))["model"] == "twin"
        await asyncio.sleep(0.05)
        assert len(shadow.calls) == 2
        assert service.counts["requests"] == 6
        shadow.free.set()
        await until(lambda: service.counts["shadow_requests"] == 6)

    twins(serving, scenario, lanes=3, batch_candidates=160)


def test_a_shadow_that_fails_is_counted_and_fails_nobody(serving: Any) -> None:
    async def scenario(service: Service, first: TwinScorer, shadow: TwinScorer) -> None:
        shadow.poison = {7: RuntimeError("x")}
        await score(service, item_ids=[7])
        await until(lambda: service.counts["shadow_failed"] == 1)
        assert service.app.state.engine.shadows.reports["shadow"].failed == 1
        # None of a version that is gone, and none while the server stops.
        before = dict(service.counts)
        engine = service.app.state.engine
        gone = Served("shadow", cast(Scorer, TwinScorer()))
        gone.scorer.version = "0"
        replay = Replay(ScoreAsk("1", np.arange(3)))
        engine.shadows._submit(replay, [gone], np.zeros(3, dtype=np.float32))
        await asyncio.sleep(0.05)
        assert service.counts["shadow_requests"] == before.get("shadow_requests", 0)
        engine.batcher.refuse()
        engine.shadows._submit(replay, [engine.models.get("shadow")], np.zeros(3, dtype=np.float32))
        await asyncio.sleep(0.02)
        assert service.counts["shadow_shed"] == 1

    twins(serving, scenario, lanes=1)


def test_a_wait_for_company_forgets_no_shadow(serving: Any) -> None:
    async def scenario(service: Service, first: TwinScorer, shadow: TwinScorer) -> None:
        for _ in range(5):
            await asyncio.gather(*(score(service, user_id=str(user), item_ids=[1]) for user in range(8)))
        await until(lambda: service.counts["shadow_requests"] == 40)

    twins(serving, scenario, lanes=2, max_wait_us=3000)


def test_a_model_reads_of_a_request_what_it_knows() -> None:
    twin: Any = TwinScorer()
    other: Any = TwinScorer()
    other.actions, other.default_action, other.context_fields, other.max_history = ("click", "buy"), "click", (), 2
    served, narrow = Served("a", twin), Served("b", other)
    replay = Replay(ScoreAsk("7", np.arange(5), {"tab": 1}, np.arange(3), ["show", "click", "show"]))
    wide, less = replay.as_input(served, 4), replay.as_input(narrow, 4)
    assert (list(wide.item_ids), wide.context, wide.user_id) == ([0, 1, 2, 3], {"tab": 1}, 7)
    assert np.asarray(wide.actions).tolist() == [0, 1, 0]
    assert (list(less.history), np.asarray(less.actions).tolist(), less.context) == ([1, 2], [0, -1], {})
    stored = Replay(ScoreAsk("7", np.arange(5)), pack(np.arange(4), np.arange(4)))
    assert list(stored.as_input(narrow, 4).history) == [2, 3]
    assert len(Replay(ScoreAsk("7", np.arange(5))).as_input(narrow, 4).history) == 0


def test_a_report_without_requests_has_no_mean() -> None:
    assert ShadowReport("1").mean_difference is None
    report = ShadowReport("1")
    report.add(np.zeros(2, dtype=np.float32), np.array([0.5, 0.25], dtype=np.float32))
    assert (report.mean_difference, report.max_difference, report.sum_difference) == (0.375, 0.5, 0.75)
