"""The plain server gives Augur's scores, and answers the same requests with the same fields."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI

from loadtest.baseline import __main__ as baseline
from loadtest.baseline import echo, lengthen
from loadtest.baseline.app import create_app, histories_of
from loadtest.baseline.network import EagerDien, History
from loadtest.servers import own_server
from loadtest.traffic import DATA, Traffic
from model.artifact import Artifact, load_artifact, of_model, save_artifact
from model.config import ModelConfig
from model.data import DataSet, open_data
from model.features import fit_schema
from model.zoo.dien import Dien
from service.app import create_app as create_augur
from service.seeding import sequences
from service.settings import BUNDLED_MODEL, Settings

Post = Callable[[str, dict[str, Any]], Awaitable[Any]]


@pytest.fixture(scope="module")
def data() -> DataSet:
    return open_data(f"kuairand:{DATA}")


@pytest.fixture(scope="module")
def network() -> EagerDien:
    return EagerDien(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def plain(network: EagerDien, data: DataSet) -> FastAPI:
    return create_app(network, histories_of(data))


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(seed=3)


def asking(app: FastAPI, scenario: Callable[[Post], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:

            async def post(path: str, body: dict[str, Any]) -> Any:
                answer = await client.post(path, json=body)
                assert answer.status_code == 200, answer.text
                return answer.json()

            return await scenario(post)

    return asyncio.run(whole())


def requests(traffic: Traffic) -> list[dict[str, Any]]:
    """Of the bundled log: stored histories and sent ones, long and empty, unknown items, users and actions left out."""
    asked = [traffic.score(traffic.visit(), ["tab", "hour"]) for _ in range(30)]
    for number, body in enumerate(asked[:12]):
        body["history"] = traffic.history(traffic.visit(), [0, 1, 50, 90][number % 4])
        if number % 2:
            body["history_actions"] = [("shown", "click", "long_view")[n % 3] for n in range(len(body["history"]))]
    asked[12]["user_id"] = "somebody"
    asked[13]["user_id"] = "007"
    asked[14]["item_ids"] = [-5, *asked[14]["item_ids"][:1]]
    asked[15]["context"] = {}
    asked[16] = traffic.score(5, ["tab"], candidates=1)
    return asked


def test_scores_are_those_of_augur(plain: FastAPI, data: DataSet, traffic: Traffic) -> None:
    asked = requests(traffic)

    async def scores(post: Post) -> list[Any]:
        return [await post("/v1/score", body) for body in asked]

    augur = create_augur(Settings())

    async def of_augur(post: Post) -> list[Any]:
        async with augur.router.lifespan_context(augur):
            await augur.state.engine.store.seed(sequences(data))
            return await scores(post)

    for ours, theirs in zip(asking(augur, of_augur), asking(plain, scores), strict=True):
        assert np.abs(np.array(ours.pop("scores")) - theirs.pop("scores")).max() < 1e-5
        assert ours == theirs


def test_behaviors_are_kept_in_a_window(network: EagerDien, traffic: Traffic) -> None:
    app = create_app(network, {})
    items = traffic.history(9, 130)
    events = [{"user_id": "9", "item_id": item, "timestamp_ms": place} for place, item in enumerate(items)]
    events[-1]["action"] = "long_view"

    async def tell(post: Post) -> tuple[Any, Any, Any]:
        asked = traffic.score(9, ["tab"], candidates=5) | {"user_id": "9"}
        told = await post("/v1/behaviors", {"events": events})
        stored = await post("/v1/score", asked)
        sent = asked | {"history": items, "history_actions": ["click"] * 129 + ["long_view"]}
        return told, stored, await post("/v1/score", sent)

    told, stored, sent = asking(app, tell)
    assert told == {"accepted": 130, "duplicates": 0}
    assert stored == sent
    assert stored["history_length"] == 50


def test_a_model_without_context_actions_or_users(data: DataSet, tmp_path: Path) -> None:
    bare = dataclasses.replace(
        data, behaviors=dataclasses.replace(data.behaviors, actions=None), actions=(), default_action=None
    )
    schema = fit_schema(bare, user_id=False, context=(), max_history=4)
    model = Dien(schema, ModelConfig(hidden=4, embedding=2, head=(4,)))
    save_artifact(of_model("bare", model, schema, {}, {}), tmp_path / "bare")
    one = EagerDien(tmp_path / "bare")
    known = histories_of(bare)[str(bare.behaviors.user_ids[0])]
    assert set(known.actions) == {0}
    scores = one.score("1", [1, 2, 3], History(known.item_ids[:3], known.actions[:3]), {})
    assert len(scores) == 3
    assert one.action_places([None, "x"]) == [-1, -1]


def test_a_longer_artifact_differs_in_its_length_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengthen.main([str(BUNDLED_MODEL), str(tmp_path / "long"), "100"])
    ours, theirs = load_artifact(BUNDLED_MODEL), load_artifact(tmp_path / "long")
    assert capsys.readouterr().out.strip() == theirs.version != ours.version
    assert theirs.schema.max_history == 100
    assert all(torch.equal(theirs.weights[name], value) for name, value in ours.weights.items())
    assert isinstance(theirs, Artifact)


def post(url: str, body: bytes) -> tuple[int, bytes]:
    request = Request(url, body, {"content-type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def test_both_are_servers(tmp_path: Path) -> None:
    endings = (0, -signal.SIGTERM)
    command = [sys.executable, "-m", "loadtest.baseline", "--port", "0", "--threads", "1"]
    with own_server(tmp_path / "log", command, endings=endings) as own:
        status, answer = post(f"{own.url}/v1/score", b'{"user_id": "3", "item_ids": [1, 2]}')
        assert (status, len(json.loads(answer)["scores"])) == (200, 2)
        with urlopen(f"{own.url}/v1/models", timeout=10) as models:
            assert json.load(models)["models"][0]["context_fields"] == ["tab", "hour"]
    command = [sys.executable, "-m", "loadtest.baseline.echo", "--port", "0"]
    with own_server(tmp_path / "log", command, endings=endings) as own:
        big = bytes(range(256)) * 2000
        assert post(f"{own.url}/any", big) == (200, big)


def test_an_echo_gives_up_on_who_leaves() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> None:
        await echo.echo({"type": "http"}, receive, send)  # type: ignore[arg-type]
        await echo.echo({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert sent == []


@pytest.mark.parametrize("option", ["--model", "--seed"])
def test_what_cannot_be_used_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert baseline.main([option, "kuairand:/nowhere", "--threads", str(threads)]) == 2
    assert "loadtest.baseline: " in capsys.readouterr().err
