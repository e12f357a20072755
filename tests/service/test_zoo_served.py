"""Every model of the zoo from data to an answer: trained and written by the command line, served side by side."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from service_parts import SETTINGS, Service, error_of, event, post

from model import train
from model.artifact import load_artifact
from model.batches import Batcher
from model.cli import main
from model.config import MODELS
from model.data import TEST, open_data
from model.embeddings import Inputs
from model.evaluate import score_inputs
from model.scorer import Scorer
from model.training import predict

ITEMS = [100, 103, 159, 7]  # the last is in no catalogue
PAST = [101, 105, 103, 100, 110]
ATTENDING = [name for name, definition in MODELS.items() if "unit" in definition.attention]


@pytest.fixture(scope="module")
def artifacts(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each model, trained for a few steps."""
    folder = tmp_path_factory.mktemp("zoo")
    for name in MODELS:
        train_small(name, data_folder, folder / name)
    return {name: folder / name for name in MODELS}


def train_small(name: str, data: Path, out: Path, *more: str) -> None:
    """An artifact by the command line."""
    torch.set_num_threads(1)
    small = ["--hidden", "8", "--embedding", "4", "--head", "12,6", "--max-history", "16", "--threads", "1"]
    how = ["--batch-size", "128", "--evaluations", "1", "--initial-deviation", ".5", "--learning-rate", ".01"]
    before = sys.argv
    try:
        where = ["--data", f"canonical:{data}", "--out", str(out), "--run", f"{out}.run"]
        sys.argv = ["train", "--model", name, *where, *small, *how, "--auxiliary", "inner", *more]
        main(train.run)
    finally:
        sys.argv = before


def of_network(folder: Path) -> list[float]:
    """The trained network's own probabilities of `ITEMS` after `PAST`, on tab 1, of user 1."""
    artifact = load_artifact(folder)
    schema, count = artifact.schema, len(ITEMS)
    past = torch.from_numpy(schema.catalogue.rows(np.array(PAST))).expand(count, -1)
    inputs = Inputs(
        user=torch.full((count,), int(schema.vocabularies["user_id"].rows(1))),
        context=torch.full((count, 1), int(schema.vocabularies["tab"].rows(1))),
        target=torch.from_numpy(schema.catalogue.rows(np.array(ITEMS))),
        history=past,
        actions=torch.full_like(past, schema.actions.index("click") + 1),
        lengths=torch.full((count,), len(PAST)),
    )
    with torch.inference_mode():
        return torch.sigmoid(artifact.model()(inputs)).tolist()


def test_all_are_served_side_by_side(artifacts: dict[str, Path], serving: Any) -> None:
    settings = replace(SETTINGS, models=",".join(f"{name}={path}" for name, path in artifacts.items()))

    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(item, n) for n, item in enumerate(PAST)]})
        told = {one["name"]: one for one in (await service.client.get("/v1/models")).json()["models"]}
        assert list(told) == list(MODELS)
        scores = {name: await scored(service, name) for name in artifacts}
        for name, folder in artifacts.items():
            artifact = load_artifact(folder)
            assert scores[name] == pytest.approx(of_network(folder), abs=1e-5)
            assert (told[name]["architecture"], told[name]["parameters"]) == (name, artifact.parameters)
            assert told[name]["description"].startswith(artifact.title)
            assert (await service.client.get(f"/v2/models/{name}")).json()["platform"] == f"augur_{name}"
            await explained(service, name, scores[name])
        # The same network from the same seed with the same losses; all others differ.
        assert scores["dien"] == scores["augru"]
        assert len({round(each[0], 6) for each in scores.values()}) == len(MODELS) - 1

    async def whole() -> None:
        async with serving(settings) as service:
            await scenario(service)

    asyncio.run(whole())


def test_an_inner_bias_is_trained_evaluated_and_served(data_folder: Path, tmp_path: Path, serving: Any) -> None:
    folder = tmp_path / "dien"
    train_small("dien", data_folder, folder, "--inner-bias")
    artifact = load_artifact(folder)
    assert all(artifact.weights[f"{part}.bias_candidate"].all() for part in ("extractor", "evolution"))
    data = open_data(f"canonical:{data_folder}")
    of_test = Batcher(data, artifact.schema, TEST)
    found = np.concatenate(Scorer(artifact, device="cpu").score(score_inputs(data, of_test, np.arange(len(of_test)))))
    assert found == pytest.approx(predict(artifact.model(), of_test, torch.device("cpu")), abs=1e-5)

    async def whole() -> None:
        async with serving(replace(SETTINGS, models=f"dien={folder}")) as service:
            await post(service, "/v1/behaviors", {"events": [event(item, n) for n, item in enumerate(PAST)]})
            scores = await scored(service, "dien")
            assert scores == pytest.approx(of_network(folder), abs=1e-5)
            await explained(service, "dien", scores)

    asyncio.run(whole())


async def scored(service: Service, name: str) -> list[float]:
    answer = await post(service, "/v1/score", {"user_id": "1", "item_ids": ITEMS, "context": {"tab": 1}, "model": name})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["model"], found["history_length"], found["unknown_items"]) == (name, len(PAST), 1)
    scores: list[float] = found["scores"]
    return scores


async def explained(service: Service, name: str, scores: list[float]) -> None:
    """With attention its weights; without it a refusal that says so."""
    asked = {"user_id": "1", "item_ids": ITEMS, "context": {"tab": 1}, "model": name}
    answer = await post(service, "/v1/explain", asked)
    if name not in ATTENDING:
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["field"]) == (422, "invalid_input", "model")
        assert error["message"] == f'model "{name}": a model with attention, which {name} has not'
        return
    assert answer.status_code == 200, answer.text
    rows = answer.json()["candidates"]
    assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-6)
    weights = np.array([row["attention"] for row in rows])
    assert weights.shape == (len(ITEMS), len(PAST))
    assert np.allclose(weights.sum(1), 1, atol=1e-5) is (name != "din")
