"""Models as served: some of them in short runs, and the table of known figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest import zoo
from loadtest.report import comparisons
from loadtest.zoo import MODELS, table
from model import config
from model.artifact import of_model, save_artifact
from model.data import open_data
from model.features import fit_schema
from model.zoo import make_network


def test_the_models_are_all_of_the_zoo() -> None:
    assert {name: each.title for name, each in config.MODELS.items()} == MODELS


@pytest.mark.usefixtures("unwatched_processes")
def test_models_are_served_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"LINGER_SECONDS": "0", "THREADS": "1", "SEED": ""}.items():
        monkeypatch.setenv(f"AUGUR_{name}", value)
    schema = fit_schema(open_data("kuairand:data/kuairand_pure"), max_history=8)
    tiny = config.ModelConfig(hidden=8, embedding=4, head=(8,))
    save_artifact(of_model("tiny", make_network(schema, tiny), schema, {}, {}), tmp_path / "tiny")
    arguments = ["--duration", "0.3", "--warmup", "0", "--rounds", "1", "--users", "5", "--candidates", "4"]
    arguments += ["--models", "base,din,dien"]
    assert zoo.main([*arguments, "--model", str(tmp_path / "tiny"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "zoo.json").read_text())
    assert [one["name"] for one in found["models"]] == ["base", "din", "dien"]
    for one in found["models"]:
        assert one["description"].startswith(MODELS[one["name"]])
        assert one["score"]["errors"] == {}
        assert one["rounds_cpu_ms"][0] > one["score"]["compute mean"]["median"] / 2 > 0
        assert one["by_first"]["median"] == one["rounds_cpu_ms"][0] / found["models"][0]["rounds_cpu_ms"][0]
    assert table(found) in capsys.readouterr().out
    (told,) = comparisons.zoo(tmp_path / "out")
    assert [row[0] for row in told.rows] == ["BaseModel", "DIN", "DIEN"]


def test_a_model_that_cannot_be_served_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.main(["--model", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert f"{tmp_path / 'none'}: no model to serve" in capsys.readouterr().err


def test_a_model_of_another_zoo_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        zoo.main(["--models", "base,deepfm"])
    assert "base,deepfm: of base, wide_deep" in capsys.readouterr().err


def of(name: str, cpu: float, times: dict[str, float] | None) -> dict[str, Any]:
    figure = {"median": 2.0, "least": 1.0, "greatest": 3.0}
    score = {"compute mean": figure, "p50": figure, "p99": None}
    return {"name": name, "server_cpu_ms": {"median": cpu}, "by_first": times, "score": score}


def test_the_table_has_medians_and_of_ratios_the_range() -> None:
    first = {"median": 1.0, "least": 1.0, "greatest": 1.0}
    found = {
        "models": [
            of("base", 1.234, first),
            of("dien", 1.6, {"median": 1.29, "least": 1.28, "greatest": 1.35}),
            of("din", 3, None),
        ]
    }
    assert table(found).splitlines()[2:] == [
        "| BaseModel | 1.23 | 1 | 2.00 | 2.00 | - |",
        "| DIEN | 1.60 | 1.29 (1.28 to 1.35) | 2.00 | 2.00 | - |",
        "| DIN | 3.00 | unknown | 2.00 | 2.00 | - |",
    ]


@pytest.mark.parametrize("name", ["served", "served-fast"])
def test_the_page_has_the_tables_of_the_results(name: str) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert (
        f"\n{table(json.loads((docs / 'results' / f'{name}.json').read_text()))}\n" in (docs / "models.md").read_text()
    )
