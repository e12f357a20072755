"""Models that other libraries built and trained score the same as artifacts, by their own forward."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from peer_models import Peer, deepctr, largest_difference, rechub, trained, written
from written_data import call

from model.artifact import load_artifact
from model.convert.__main__ import run

TOLERANCE = 1e-5


def installed(module: str) -> Any:
    missing = importlib.util.find_spec(module) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{module} is not installed: the extra `peers` has it")


def converted(peer: Peer, folder: Path) -> float:
    assert call(run, *written(peer, folder)) == 0
    return largest_difference(peer, folder / "converted")


@installed("torch_rechub")
@pytest.mark.parametrize("activation", ["relu", "prelu", "leakyrelu"])
def test_torch_rechub(activation: str, tmp_path: Path) -> None:
    peer = rechub(lambda mlp, inputs: mlp(inputs, dims=[6, 5], activation=activation))
    peer.features["settings"] = {"activation": activation}
    assert converted(trained(peer), tmp_path) < TOLERANCE


@installed("torch_rechub")
def test_torch_rechub_without_hidden_layers(tmp_path: Path) -> None:
    assert converted(trained(rechub()), tmp_path) < TOLERANCE
    artifact = load_artifact(tmp_path / "converted")
    assert artifact.config.head == (1,)
    assert artifact.schema.item_fields == ("item_id", "category")


@installed("deepctr_torch")
@pytest.mark.parametrize(
    "settings",
    [
        {"gru_type": "AUGRU"},
        {"gru_type": "AGRU", "dnn_activation": "linear"},
        {"gru_type": "AIGRU", "dnn_activation": "prelu"},
        {"gru_type": "AUGRU", "use_bn": True, "own_table": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_deepctr_torch(settings: dict[str, Any], tmp_path: Path) -> None:
    peer = trained(deepctr(att_activation="linear", **settings))
    assert converted(peer, tmp_path) < TOLERANCE
    artifact = load_artifact(tmp_path / "converted")
    assert artifact.config.hidden == 7
    assert artifact.config.embedding == 6  # the widest, and one that is 1
    assert artifact.training["converted"]["library"] == "deepctr-torch"
