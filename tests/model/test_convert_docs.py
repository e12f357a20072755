"""The examples of docs/convert.md run as they stand there."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from fuxictr_dien import FuxiDien
from peer_models import deepctr_module
from test_convert_peers import installed
from written_data import call

from model.convert.__main__ import run
from model.scorer import ScoreInput, load_scorer

PAGE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text()


def example(library: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of a section, after its code and its command were run in a folder."""
    section = PAGE.split(f"\n## {library}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (command,) = re.findall(r"```\n\.venv/bin/python -m model\.convert (.*?)\n```", section)
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {"torch": torch}
    exec(compile(code, "docs/convert.md", "exec"), found)
    assert call(run, *shlex.split(command)) == 0
    return found.get("model")


def score(folder: Path, **more: Any) -> list[float]:
    scorer = load_scorer(folder)
    return [float(one) for one in scorer.score([ScoreInput(item_ids=[1002, 1003], history=[1003, 1001], **more)])[0]]


@installed("torch_rechub")
def test_torch_rechub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = example("torch-rechub", tmp_path, monkeypatch).eval()
    history = torch.tensor([[3, 1] + [0] * 18] * 2)
    rows = {"item": torch.tensor([2, 3]), "tab": torch.tensor([3, 3]), "hist_item": history, "neg_item": history}
    found = score(tmp_path / "artifacts/rechub", context={"tab": 2})
    assert found == pytest.approx(model(rows)[0].tolist(), abs=1e-5)


@installed("deepctr_torch")
def test_deepctr_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deepctr_module("inputs")
    model = example("DeepCTR-Torch", tmp_path, monkeypatch).eval()
    items, categories = ([*steps, *[0] * 18] for steps in ([3, 1], [2, 1]))
    rows = torch.tensor([[2, row, category, *items, 2, *categories] for row, category in ((2, 1), (3, 2))])
    found = score(tmp_path / "artifacts/deepctr", user_id=8)
    assert found == pytest.approx(model(rows.float()).flatten().tolist(), abs=1e-5)


def test_fuxictr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"user": [7, 8], "item": [1003, 1001, 1002], "category": [20, 10], "tab": [0, 1]}
    vocabulary = {
        name: {"__PAD__": 0, **{str(one): row for row, one in enumerate(ids, 1)}, "__OOV__": len(ids) + 1}
        for name, ids in values.items()
    }
    (tmp_path / "feature_vocab.json").write_text(json.dumps(vocabulary))
    model = FuxiDien({name: len(rows) for name, rows in vocabulary.items()}).eval()
    torch.save(model.state_dict(), tmp_path / "DIEN.model")
    example("FuxiCTR", tmp_path, monkeypatch)
    once: dict[str, list[Any]] = {"user": [2], "tab": [3], "hist_item": [[1, 2]], "hist_category": [[1, 2]]}
    rows = {name: torch.tensor(of * 2) for name, of in once.items()}
    rows |= {"item": torch.tensor([3, 1]), "category": torch.tensor([2, 1])}
    found = score(tmp_path / "artifacts/fuxictr", user_id=8, context={"tab": 5})  # a tab that is not known
    assert found == pytest.approx(model(rows).tolist(), abs=1e-5)
