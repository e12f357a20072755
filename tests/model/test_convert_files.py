"""Files that are not what they are said to be: each complaint names the file, the key or part, and the rule."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from peer_models import (
    Request,
    deepctr,
    fuxictr,
    largest_difference,
    rechub,
    requests,
    scores_of,
    trained,
    written,
)
from test_convert_peers import installed
from written_data import call, complaint

from model.artifact import load_artifact
from model.convert.__main__ import parser, run
from model.scorer import load_scorer

PEER = trained(fuxictr())


def changed(**parts: Any) -> dict[str, Any]:
    return copy.deepcopy(PEER.features) | parts


def column(place: int, **parts: Any) -> dict[str, Any]:
    found = changed()
    found["columns"][place] |= parts
    return found


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (changed(more=1), "the document: unknown: more; it has columns, history, items, max_history, settings"),
        ({}, "the document: missing: columns, history, items, max_history"),
        ([], "the document: must be an object"),
        (changed(max_history=0), "max_history=0: a whole number from 1 to 100000"),
        (changed(settings={"gru": 1}), "settings: unknown: gru; it has attention_type, dnn_activations, gru_type"),
        (changed(settings={"gru_type": "LSTM"}), "settings.gru_type='LSTM': one of GRU, AIGRU, AGRU, AUGRU"),
        (changed(settings={"attention_type": "x"}), "settings.attention_type='x': one of bilinear_attention"),
        (
            changed(settings={"dnn_activations": "Dice"}),
            "settings.dnn_activations='Dice': the checkpoint has no weights",
        ),
        (changed(items={"ids": [1, 1]}), "items.ids: an id occurs twice"),
        (changed(items={"ids": [1.5]}), "items.ids: must be a list of whole numbers"),
        (changed(items={"ids": [1 << 63]}), "items.ids: a number beyond 64 bits"),
        (changed(items={"ids": [1, 2]}), "columns[1].rows: 11 of them for 2 ids"),
        (changed(columns=3), "columns: must be a list"),
        (changed(columns=[]), "history: 'item' is no column of kind item; there are none"),
        (changed(columns=[*PEER.features["columns"], PEER.features["columns"][0]]), "columns: 'user' occurs twice"),
        (changed(history=[]), "history: at least one column of kind item"),
        (changed(history=["tab"]), "history: 'tab' is no column of kind item; there are item, category"),
        (changed(history=["item", "item"]), "history: must be a list of different names"),
        (changed(training_only="x"), "training_only: must be a list of different names"),
        (column(0, kind="row"), "columns[0].kind='row': one of item, user, context"),
        (column(0, name=""), "columns[0].name: must be text"),
        (column(0, history_table="x"), "columns[0].history_table: only of kind item"),
        (column(0, unknown="x"), "columns[0].unknown='x': a row of the table"),
        (column(1, ids=[1]), "columns[1].ids: items.ids has them"),
        (column(3, kind="user"), "columns: more than one of kind user"),
    ],
)
def test_features(features: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(PEER, tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(features))
    message = complaint(run, capsys, *words)
    assert said in message
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (column(1, rows=[12, *range(1, 11)]), "column 'item': row 12 of item, which has 12"),
        (column(3, unknown=-1), "column 'tab': row -1 of tab, which has 3"),
        (column(1, rows=[0, *range(1, 11)]), "column 'item': item 1037 has row 0, which the library takes for padding"),
        (column(3, table="page"), "model.pt: embedding_layer.embedding_layers.page.weight is missing"),
        (changed(training_only=[]), "model.pt: unknown keys: embedding_layer.embedding_layers.neg_item.weight"),
        (column(3, name="a.b", table="tab"), "features: field 'a.b': used twice, or a name that is taken"),
    ],
)
def test_features_that_are_not_the_checkpoints(
    features: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in complaint(run, capsys, *written(PEER, tmp_path, features))
    assert not (tmp_path / "converted").exists()


@installed("torch_rechub")
def test_the_history_of_torch_rechub_is_of_the_first_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = rechub()
    features = peer.features | {"history": ["category"]}
    assert "history=['category']: must be ['item'], the first column" in complaint(
        run, capsys, *written(peer, tmp_path, features)
    )


@installed("deepctr_torch")
def test_a_cell_that_deepctr_torch_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = deepctr(gru_type="AUGRU", att_activation="linear")
    peer.features["settings"]["gru_type"] = "LSTM"
    assert "settings.gru_type='LSTM': one of GRU, AUGRU, AGRU, AIGRU" in complaint(
        run, capsys, *written(peer, tmp_path)
    )


def test_longctr_has_every_item_column_in_its_behaviours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = fuxictr(long=True)
    features = peer.features | {"history": ["item"]}
    assert "history: LongCTR's behaviours have every column" in complaint(
        run, capsys, *written(peer, tmp_path, features)
    )


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("attention_modules.0.W_kernel"), "attention_modules.0.W_kernel is missing"),
        (without("dnn.mlp.0.weight"), "dnn.mlp.0.weight is missing"),
        (lambda state: state | {"a": torch.zeros(1), "b": torch.zeros(1)}, "unknown keys: a, b"),
        (lambda state: state | {f"a{n}": torch.zeros(1) for n in range(10)}, "a6, a7 and 2 more"),
        (
            lambda state: state | {"attention_modules.0.W_kernel": torch.zeros(8, 7)},
            "attention_modules.0.W_kernel is torch.float32 [8, 7] where floats [8, 8] are due",
        ),
        (
            lambda state: state | {"dnn.mlp.0.bias": torch.zeros(6, dtype=torch.int64)},
            "dnn.mlp.0.bias is torch.int64 [6] where floats [6] are due",
        ),
        (
            lambda state: state | {"dnn.mlp.0.bias": torch.full((6,), torch.nan)},
            "dnn.mlp.0.bias has a value that is not finite",
        ),
        (
            lambda state: {"epoch": 3, "model": state},
            "'epoch' is no tensor; save the state dict alone: model.state_dict()",
        ),
        (lambda state: [state], "holds a list; save the state dict alone: model.state_dict()"),
    ],
)
def test_state(change: Callable[[Any], Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(PEER, tmp_path)
    torch.save(change(PEER.model.state_dict()), tmp_path / "model.pt")
    message = complaint(run, capsys, *words)
    assert message.startswith(f"error: {tmp_path / 'model.pt'}: ")
    assert said in message
    assert not (tmp_path / "converted").exists()


def test_a_pickle_that_would_run_something_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    words = written(PEER, tmp_path)
    for whole, what in ((Trap(), os.system.__module__ + ".system"), (PEER.model, "fuxictr_dien.FuxiDien")):
        torch.save({"model": whole}, tmp_path / "model.pt")
        message = complaint(run, capsys, *words)
        assert f"more than tensors: reading it would run {what}; save the state dict alone" in message
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(PEER, tmp_path)
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        (tmp_path / "model.pt").write_bytes(content)
        assert "model.pt: not a checkpoint" in complaint(run, capsys, *words)
    (tmp_path / "model.safetensors").write_bytes(whole)
    words[2] = str(tmp_path / "model.safetensors")
    assert "model.safetensors: not safetensors: " in complaint(run, capsys, *words)
    words[2] = str(tmp_path / "nothing")
    assert f"No such file or directory: '{words[2]}'" in complaint(run, capsys, *words)
    (tmp_path / "features.json").write_text("{")
    assert "features.json: not JSON: " in complaint(run, capsys, *words)


def test_safetensors(tmp_path: Path) -> None:
    words = written(PEER, tmp_path)
    state = {name: tensor.clone() for name, tensor in PEER.model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    words[2] = str(tmp_path / "model.safetensors")
    assert call(run, *words) == 0
    assert largest_difference(PEER, tmp_path / "converted") < 1e-5
    assert load_artifact(tmp_path / "converted").training["converted"]["file"] == "model.safetensors"


def test_the_row_of_what_is_unknown(tmp_path: Path) -> None:
    """An id of no column scores as the one whose row was stated."""
    known = requests(3)
    items, categories = (PEER.features["columns"][place]["rows"] for place in (1, 2))
    features = changed()
    for place, row in ((0, 2), (1, items[4]), (2, categories[4]), (3, 2)):
        features["columns"][place]["unknown"] = row
    assert call(run, *written(PEER, tmp_path, features)) == 0
    scorer = load_scorer(tmp_path / "converted")
    fourth = PEER.features["items"]["ids"][4]
    stated = [one._replace(item=fourth, user=50, tab=9) for one in known]
    asked = [Request([-5 if item == fourth else item for item in one.history], -6, -7, -8) for one in known]
    assert np.abs(scores_of(scorer, stated) - scores_of(scorer, asked)).max() < 1e-6


def test_what_is_there_already_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(PEER, tmp_path)
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "mine").write_text("")
    assert "holds ['mine']: an artifact replaces the whole folder" in complaint(run, capsys, *words)
    words[1] = "tensorflow"
    assert "invalid choice: 'tensorflow'" in complaint(run, capsys, *words)


def test_help_tells_of_the_features() -> None:
    text = parser().format_help()
    for word in ("max_history", "history_table", "training_only", "settings of deepctr-torch: att_activation"):
        assert word in text
