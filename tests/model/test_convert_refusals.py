"""What our DIEN cannot express is named part by part, with exit code 1, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peer_models import Peer, deepctr, fuxictr, rechub, trained, with_dice, written
from test_convert_peers import installed
from torch import nn
from written_data import call

from model.convert.__main__ import run


def refusal(peer: Peer, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A line for each part."""
    words = written(peer, folder)
    capsys.readouterr()
    assert call(run, *words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(path.name for path in folder.iterdir()) == ["features.json", "model.pt"]
    first, *lines = err.splitlines()
    assert first == f"{folder / 'model.pt'}: not expressible:"
    assert all("; Augur's DIEN would need " in line for line in lines)
    return [line.split("; Augur's DIEN would need ")[0] for line in lines]


@installed("torch_rechub")
def test_dice_of_torch_rechub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = refusal(trained(rechub(dims=(6, 5))), tmp_path, capsys)
    dice = "Dice by mean and deviation over one row's units: p = σ((s - mean s) / √Σ((s - mean s)² + ε))"
    assert [first, second] == [f"mlp.mlp.2.alpha: {dice}", f"mlp.mlp.6.alpha: {dice}"]


@installed("torch_rechub")
def test_other_activations_of_torch_rechub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = trained(rechub(lambda mlp, inputs: mlp(inputs, dims=[6], activation="sigmoid")))
    peer.features["settings"] = {"activation": "sigmoid"}
    assert refusal(peer, tmp_path, capsys) == ["settings.activation: the activation 'sigmoid'"]


@installed("torch_rechub")
def test_more_than_one_history_of_torch_rechub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = rechub()
    peer.model.interest_extractor_layers.append(nn.GRU(4, 4))
    (line,) = refusal(peer, tmp_path, capsys)
    assert line == (
        "interest_extractor_layers.1, interest_evolving_layers.1: a GRU, an attention and an AUGRU for each history "
        "feature alone"
    )


@installed("torch_rechub")
def test_older_torch_rechub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The attention's weights lay in the cell then."""
    peer = rechub()
    layer: Any = peer.model.interest_evolving_layers[0]
    layer.augru_cell.Wa = layer.Wa
    del layer.Wa
    (line,) = refusal(peer, tmp_path, capsys)
    assert line.startswith("interest_evolving_layers.0.augru_cell.Wa: attention by a softmax over one step, always 1")


@installed("deepctr_torch")
def test_attention_and_cell_of_deepctr_torch_as_it_is_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, attention = refusal(trained(deepctr()), tmp_path, capsys)
    assert cell == ("settings.gru_type='GRU' (its default): attention after the second GRU, whose states it sums")
    assert attention == (
        "interest_evolution.attention.local_att (settings.att_activation='relu'): attention by an activation unit, a "
        "network over [q, h, q - h, q∘h]"
    )


@installed("deepctr_torch")
@pytest.mark.parametrize(
    ("settings", "due"),
    [
        (
            {"att_weight_normalization": False},
            "settings.att_weight_normalization=False: attention that is not normalised, without a softmax",
        ),
        ({"task": "regression"}, "settings.task='regression': no sigmoid at the end"),
        ({"dnn_activation": "sigmoid"}, "settings.dnn_activation: the activation 'sigmoid'"),
    ],
)
def test_settings_of_deepctr_torch(
    settings: dict[str, Any], due: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = deepctr(gru_type="AUGRU", att_activation="linear", **settings)
    assert set(refusal(peer, tmp_path, capsys)) == {due}


@installed("deepctr_torch")
def test_dice_without_a_like_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = trained(with_dice(deepctr(gru_type="AUGRU", att_activation="linear")))
    first, second = (layer.bn for layer in peer.model.dnn.activation_layers)
    with torch.no_grad():
        first.weight[1] = -0.5
        second.weight[0] = 1e6
    gain, deviation = refusal(peer, tmp_path, capsys)
    assert gain == "dnn.activation_layers.0.bn.weight: Dice of a gain of -0.5"
    assert deviation.startswith("dnn.activation_layers.1.bn: Dice over a deviation of ")


@installed("deepctr_torch")
def test_a_dense_feature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = deepctr(gru_type="AUGRU", att_activation="linear")
    peer.model.dnn.linears[0] = nn.Linear(7 + 14 + 2, 6)
    line = refusal(peer, tmp_path, capsys)[-1]
    assert line == (
        "dnn.linears.0.weight: 2 inputs beside the final interest and the columns: dense features, pooled sequences, "
        "or columns that were not stated"
    )


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({"gru_type": "GRU"}, ["settings.gru_type='GRU': two GRUs without attention"]),
        (
            {"gru_type": "AIGRU"},
            [
                "settings.gru_type='AIGRU': interests [B, T, H] times attention [B, T] as these shapes broadcast, not "
                "a step by its weight"
            ],
        ),
        (
            {"attention_type": "din_attention"},
            [
                "attention_modules.0.attn_mlp (settings.attention_type='din_attention'): attention by an activation "
                "unit, a network over [e, h, e - h, e∘h]"
            ],
        ),
        (
            {"enable_sum_pooling": True},
            [
                "dnn.mlp.0.weight (enable_sum_pooling=True): the sum of the history's embeddings, and its product with "
                "the target, in the head"
            ],
        ),
        (
            {"groups": 2},
            [
                "extraction_modules.1 (more than one dien_target_field): a GRU, an attention and an AUGRU for each "
                "group of fields"
            ],
        ),
        ({"dnn_activations": "Tanh"}, ["settings.dnn_activations: the activation 'Tanh'"] * 2),
    ],
)
def test_forms_of_fuxictr(
    settings: dict[str, Any], due: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = fuxictr(**settings)
    assert refusal(peer, tmp_path, capsys) == due


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({"use_attention_softmax": False}, "settings.use_attention_softmax=False: attention that is not normalised"),
        ({"task": "regression"}, "settings.task='regression': no sigmoid at the end"),
        ({"dnn_activations": ["Dice", "ReLU"]}, "settings.dnn_activations: Dice in some layers, not in others"),
    ],
)
def test_settings_of_fuxictr(
    settings: dict[str, Any], due: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = trained(fuxictr(dnn_activations="Dice"))
    if "dnn_activations" in settings:
        peer.model.dnn.mlp[5] = nn.ReLU()
    peer.features["settings"] = settings
    assert refusal(peer, tmp_path, capsys) == [due]
