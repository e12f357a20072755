"""docs/own-data.md as it stands there: logs of one's own from Parquet files to an answer."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from process_parts import running

from model import card, distill, evaluate, train
from model.artifact import load_artifact
from model.cli import main
from model.compare import __main__ as compare

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
RUNS: dict[str, Callable[[], None]] = {
    "model.train": train.run,
    "model.distill": distill.run,
    "model.evaluate": evaluate.run,
    "model.card": card.run,
    "model.compare": compare.run,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's code and all of its commands but serving were run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shop")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    commands = re.findall(r"^\.venv/bin/python -m (\S+) (.*)$", PAGE, re.MULTILINE)
    assert [module for module, _ in commands] == list(RUNS)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        exec(compile(code, "docs/own-data.md", "exec"), {})
        for module, words in commands:
            patched.setattr(sys, "argv", [module, *shlex.split(words)])
            main(RUNS[module])
    return folder


def test_what_the_commands_leave(shop: Path) -> None:
    assert load_artifact(shop / "artifacts/mine").metrics["test"]["auc"] > 0.7
    assert load_artifact(shop / "artifacts/light").config.hidden == 16
    slices = json.loads((shop / "runs/evaluated/metrics.json").read_text())["slices"]
    assert any("metrics" in one for one in slices)
    assert "| AUC | 0." in (shop / "runs/card.md").read_text()
    compared = json.loads((shop / "runs/comparison/results.json").read_text())
    assert {name: len(one["cells"]) for name, one in compared["variants"].items()} == {"base": 1, "din": 1}
    assert not compared["failed"]


def test_the_model_is_served(shop: Path) -> None:
    (settings,) = re.findall(r"^(AUGUR_.*) make serve$", PAGE, re.MULTILINE)
    places = {
        name.removeprefix("AUGUR_").lower(): value.replace("canonical:", f"canonical:{shop}/").replace(
            "artifacts", f"{shop}/artifacts"
        )
        for name, _, value in (part.partition("=") for part in settings.split())
    }
    (command,) = re.findall(r"^curl .*?(?=\n```)", PAGE, re.DOTALL | re.MULTILINE)
    words = shlex.split(command.replace("\\\n", ""))
    asked = json.loads(words[words.index("-d") + 1])
    with running(**places, threads="1") as process:
        assert process.url, process.end()
        answer = httpx.post(f"{process.url}/v1/score", json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["model"], found["unknown_items"], found["degraded"]) == ("mine", 0, None)
    assert found["history_length"] > 7  # what came before, and clicks
    kinds = [item % 5 for item in asked["item_ids"]]
    assert kinds[found["scores"].index(max(found["scores"]))] == int(asked["user_id"]) % 5
