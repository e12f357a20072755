"""Models that other libraries built and trained score the same as artifacts, by their own forward."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peer_models import Peer, deepctr, fuxictr, largest_difference, rechub, trained, with_dice, written
from written_data import call

from model.artifact import load_artifact
from model.convert.__main__ import run

TOLERANCE = 1e-5


def installed(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{module} is not installed: the extra `peers` has it")


def converted(peer: Peer, folder: Path) -> float:
    assert call(run, *written(peer, folder)) == 0
    artifact = load_artifact(folder / "converted")
    assert artifact.config.inner_bias
    # torch-rechub's AUGRU has no bias there, its GRU has
    parts = ["extractor"] if peer.library == "torch-rechub" else ["extractor", "evolution"]
    assert all(artifact.weights[f"{part}.bias_candidate"].abs().max() > 0.1 for part in parts)
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


@installed("deepctr_torch")
def test_deepctr_torch_with_its_dice_for_two_dimensions(tmp_path: Path) -> None:
    """Its Dice has a BatchNorm with gain and shift; its DIEN asks for three dimensions, which its head has not."""
    assert converted(trained(with_dice(deepctr(gru_type="AUGRU", att_activation="linear"))), tmp_path) < TOLERANCE
    assert load_artifact(tmp_path / "converted").config.activation == "dice"


@pytest.mark.parametrize("long", [False, True], ids=["model_zoo", "LongCTR"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gru_type": "AGRU", "dnn_activations": "Dice"},
        {"attention_type": "dot_attention", "dnn_activations": "PReLU", "batch_norm": False},
    ],
    ids=["defaults", "AGRU", "dot_attention"],
)
def test_fuxictr(settings: dict[str, Any], long: bool, tmp_path: Path) -> None:
    assert converted(trained(fuxictr(long=long, **settings)), tmp_path) < TOLERANCE
    config = load_artifact(tmp_path / "converted").config
    assert config.cell == ("agru" if long and "gru_type" in settings else "augru")
    assert config.activation == ("dice" if settings.get("dnn_activations") == "Dice" else "prelu")


def test_fuxictr_with_a_table_of_the_history(tmp_path: Path) -> None:
    assert converted(trained(fuxictr(own_table=True)), tmp_path) < TOLERANCE
    assert load_artifact(tmp_path / "converted").schema.item_fields == ("item_id", "category", "history_category")


def test_without_a_bias_inside_the_reset_product_the_form_is_the_papers(tmp_path: Path) -> None:
    peer = trained(fuxictr())
    with torch.no_grad():
        for name, parameter in peer.model.named_parameters():
            if name.endswith(("bias_hh_l0", "h2h.bias")):
                parameter[2 * len(parameter) // 3 :] = 0
    assert call(run, *written(peer, tmp_path)) == 0
    assert largest_difference(peer, tmp_path / "converted") < TOLERANCE
    artifact = load_artifact(tmp_path / "converted")
    assert not artifact.config.inner_bias
    assert not any(name.endswith("bias_candidate") for name in artifact.weights)
