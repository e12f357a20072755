"""The benchmark of the scorer: checked before it is timed, one line of JSON at the end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from small_models import small_artifact

from model import bench
from model.artifact import save_artifact
from model.scorer import Scorer

CASES = [bench.Case(1, 3, 4), bench.Case(2, 5, 0)]


@pytest.mark.parametrize("bare", [True, False])
def test_what_is_printed_was_checked(bare: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made_up_data(actions=False, context=False) if bare else made_up_data()
    save_artifact(small_artifact(data, user_id=not bare), tmp_path / "small")
    before = torch.get_num_threads()
    options = ["--artifact", str(tmp_path / "small"), "--seconds", "0", "--json", str(tmp_path / "found.json")]
    assert bench.main(options, CASES) == 0
    assert torch.get_num_threads() == before
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert [(one["requests"], one["candidates"], one["steps"]) for one in found["cases"]] == CASES
    assert all(one["difference"] <= bench.TOLERANCE and one["scorer_us"]["least"] > 0 for one in found["cases"])


def test_scores_that_differ_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_artifact(small_artifact(), tmp_path / "small")
    score = Scorer.score

    def wrong(self: Scorer, inputs: Any) -> list[Any]:
        return [np.asarray(scores + np.float32(0.1)) for scores in score(self, inputs)]

    monkeypatch.setattr(Scorer, "score", wrong)
    assert bench.main(["--artifact", str(tmp_path / "small")], CASES) == 1
    assert "scores differ by 1.0e-01" in capsys.readouterr().err
