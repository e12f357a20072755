from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from service_parts import ITEMS, VALID, Service, TwinScorer, error_of, event, memory, post, score

from model.scorer import ScoreInput, Scorer
from service.app import create_app
from service.engine import State
from service.settings import ConfigError, Settings
from service.stores.records import action_code


def test_scores_are_the_scorers_own_to_the_last_bit(with_service: Any, scorer: Scorer) -> None:
    history, context = [101, 102, 103], {"tab": 2}

    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(i, i, action="buy") for i in history]})
        stored = await score(service, context=context)
        own = await score(service, user_id="2", context=context, history=history)
        for user, found, actions in ((1, stored, ["buy"] * 3), (2, own, None)):
            asked = ScoreInput(ITEMS, history, actions, context, user)
            (expected,) = scorer.score([asked])
            assert list(found) == ["model", "version", "scores", "history_length", "unknown_items", "degraded"]
            # Alone or in a batch, on this thread or that: sums may be taken in another order.
            np.testing.assert_allclose(np.float32(found["scores"]), expected, rtol=0, atol=1e-6)
            # As few digits as it takes to read the very same float32.
            assert [float(str(score)) for score in np.array(found["scores"], dtype=np.float32)] == found["scores"]
            assert (found["model"], found["version"]) == ("tiny", scorer.version)
            assert (found["history_length"], found["unknown_items"], found["degraded"]) == (3, 0, None)
        assert stored["scores"] != own["scores"]

    with_service(scenario)


def test_nothing_is_built_while_requests_wait(with_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself the framework builds its routes and the document when first asked for, on the event loop."""

    async def scenario(service: Service) -> None:
        built = []
        build = TypeAdapter.__init__

        def count(adapter: TypeAdapter[Any], kind: Any, **options: Any) -> None:
            built.append(kind)
            build(adapter, kind, **options)

        monkeypatch.setattr(TypeAdapter, "__init__", count)
        for path in ("/livez", "/nowhere", "/v1/models", "/v1/users/1/behaviors", "/metrics", "/openapi.json"):
            await service.client.get(path)
        await score(service)
        assert built == []

    with_service(scenario)


def test_behaviours_change_scores_and_a_history_in_the_request_replaces_them(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        before = await score(service)
        await post(service, "/v1/behaviors", {"events": [event(101, 1), event(102, 2, action="buy")]})
        after = await score(service)
        assert after["scores"] != before["scores"]
        assert (await score(service, history=[]))["scores"] == pytest.approx(before["scores"], abs=1e-6)
        default = await score(service, history=[101, 102])
        stated = await score(service, history=[101, 102], history_actions=["click", "buy"])
        assert default["scores"] != stated["scores"]
        assert stated["scores"] == pytest.approx(after["scores"], abs=1e-6)

    with_service(scenario)


def test_users_differ_and_a_number_with_zeros_before_it_is_no_known_user(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        of = {user: (await score(service, user_id=user))["scores"] for user in ("1", "2", "01", "x")}
        assert of["1"] != of["2"]
        assert of["01"] == of["x"]
        assert of["01"] != of["1"]

    with_service(scenario)


def test_the_newest_behaviours_count_and_are_counted(with_service: Any) -> None:
    long = [100 + i % 60 for i in range(40)]

    async def scenario(service: Service) -> None:
        found = await score(service, history=long, history_actions=["buy"] * 40)
        assert found["history_length"] == 16
        newest = await score(service, history=long[-16:], history_actions=["buy"] * 16)
        assert found["scores"] == pytest.approx(newest["scores"], abs=1e-6)

    with_service(scenario)


def test_unknown_items_are_counted_and_scored(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        found = await score(service, item_ids=[100, 7, -(2**63), 2**63 - 1, 100])
        assert found["unknown_items"] == 3
        assert found["scores"][1] == found["scores"][2] == found["scores"][3]
        assert found["scores"][0] == found["scores"][4]

    with_service(scenario)


def test_a_ranking_is_the_best_first_and_stable(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        items = [*ITEMS, 7, 9, 8]  # the last three are unknown and score alike
        scores = (await score(service, item_ids=items))["scores"]
        found = await score(service, item_ids=items, top_k=10**30)
        order = sorted(range(len(items)), key=lambda place: (-scores[place], place))
        assert [row["item_id"] for row in found["ranking"]] == [items[place] for place in order]
        assert [row["score"] for row in found["ranking"]] == pytest.approx([scores[place] for place in order], abs=1e-6)
        assert "scores" not in found
        best = await score(service, item_ids=items, top_k=3)
        assert [row["item_id"] for row in best["ranking"]] == [items[place] for place in order[:3]]

    with_service(scenario)


# Behaviours.


def test_events_are_stored_once_and_read_back_oldest_first(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        events = [
            event(101, 30, action="buy"),
            event(102, 10),
            event(101, 30, action="buy"),  # the same thing
            event(101, 30, action="click"),  # another thing
            event(103, 20, event_id="e1"),
            event(104, 25, event_id="e1"),  # the client says: the same
            event(9, 1, user_id="other/user"),
        ]
        first = await post(service, "/v1/behaviors", {"events": events})
        assert first.json() == {"accepted": 5, "duplicates": 2, "outside_window": 0}
        again = await post(service, "/v1/behaviors", {"events": events})
        assert again.json() == {"accepted": 0, "duplicates": 7, "outside_window": 0}

        found = (await service.client.get("/v1/users/1/behaviors")).json()
        assert found["user_id"] == "1"
        assert [tuple(one.values()) for one in found["events"]] == [
            (102, 10, None),
            (103, 20, None),
            (101, 30, "buy"),
            (101, 30, "click"),
        ]
        newest = (await service.client.get("/v1/users/1/behaviors", params={"limit": 1})).json()
        assert newest["events"] == found["events"][-1:]
        slashed = await service.client.get("/v1/users/other%2Fuser/behaviors")
        assert len(slashed.json()["events"]) == 1

        gone = await service.client.delete("/v1/users/1/behaviors")
        assert gone.json() == {"user_id": "1", "deleted": True}
        assert (await service.client.delete("/v1/users/1/behaviors")).json()["deleted"] is False
        assert (await service.client.get("/v1/users/1/behaviors")).json()["events"] == []

    with_service(scenario)


def test_events_before_a_full_window_are_counted_apart(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(101, 10), event(102, 20), event(103, 30)]})
        late = await post(service, "/v1/behaviors", {"events": [event(101, 10), event(104, 5), event(105, 25)]})
        assert late.json() == {"accepted": 1, "duplicates": 0, "outside_window": 2}

    with_service(scenario, store=memory(window=2))


def test_an_action_of_another_model_is_shown_by_its_code(with_service: Any, twin: TwinScorer) -> None:
    store = memory()

    async def write(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(1, 1, action="show")]})

    async def read(service: Service) -> None:
        (found,) = (await service.client.get("/v1/users/1/behaviors")).json()["events"]
        assert found["action"] == f"#{action_code('show'):08x}"
        await score(service)

    with_service(write, scorer=twin, store=store)
    with_service(read, store=store)


# The rest of the contract.


def test_models_say_what_they_know(with_service: Any, scorer: Scorer) -> None:
    async def scenario(service: Service) -> None:
        (found,) = (await service.client.get("/v1/models")).json()["models"]
        assert found.pop("loaded_at").endswith("+00:00")
        assert found == {
            "name": "tiny",
            "version": scorer.version,
            "description": scorer.description,
            "architecture": "dien",
            "parameters": scorer.parameters,
            "actions": ["buy", "click"],
            "default_action": "click",
            "context_fields": ["tab"],
            "max_history": 16,
            "metrics": {"test": {"auc": 0.5}},
        }

    with_service(scenario)


def test_probes_follow_the_life_of_the_server(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        engine = service.app.state.engine
        assert (await service.client.get("/livez")).json() == {"status": "alive"}
        assert (await service.client.get("/readyz")).json() == {"status": "ready"}
        engine.state = State.STARTING
        answer = await service.client.get("/readyz")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "not_ready")
        engine.drain()
        answer = await service.client.get("/readyz")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "draining")
        assert answer.headers["connection"] == "close"
        # Alive, and still answering those who come.
        assert (await service.client.get("/livez")).status_code == 200
        await score(service)
        await engine.batcher.close(1)
        answer = await post(service, "/v1/score", VALID)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "draining")

    with_service(scenario)


@pytest.mark.parametrize(("sent", "kept"), [("a-1.b:2", True), ("a b", False), ("x" * 129, False), ("é", False)])
def test_a_request_has_an_id(with_service: Any, sent: str, kept: bool) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.get("/livez", headers={b"x-request-id": sent.encode()})
        assert (answer.headers["x-request-id"] == sent) is kept
        assert 1 <= len(answer.headers["x-request-id"]) <= 128

    with_service(scenario)


def test_the_parts_come_from_the_settings(artifact_folder: Any) -> None:
    app = create_app(Settings(model=artifact_folder))
    assert [served.name for served in app.state.engine.models] == ["tiny"]


def test_a_model_whose_actions_collide_is_refused(twin: TwinScorer) -> None:
    twin.actions = ("plumless", "buckeroo")
    with pytest.raises(ConfigError, match="buckeroo"):
        create_app(Settings(), scorer=twin)  # type: ignore[arg-type]
