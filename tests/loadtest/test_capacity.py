"""The comparison with the plain server: all of it, in short runs of small models; its words from known figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loadtest.capacity import __main__ as capacity
from loadtest.capacity import stand
from loadtest.capacity.__main__ import main
from loadtest.capacity.words import text
from loadtest.openloop import machine, sweep
from loadtest.openloop.table import spread
from loadtest.report import comparisons
from loadtest.report.tables import Table, shown
from loadtest.servers import ServerError
from loadtest.traffic import DATA
from model.artifact import of_model, save_artifact
from model.config import ModelConfig
from model.data import open_data
from model.features import fit_schema
from model.zoo.dien import Dien

pytestmark = pytest.mark.usefixtures("unwatched_processes")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    schema = fit_schema(open_data(f"kuairand:{DATA}"), max_history=8)
    model = Dien(schema, ModelConfig(hidden=8, embedding=4, head=(8,)))
    save_artifact(of_model("tiny", model, schema, {}, {}), tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_whole_comparison(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One rate that is kept, the double of it that is taken for too much, and no search between.
    monkeypatch.setattr(sweep, "CLOSE", 2.5)
    monkeypatch.setattr(sweep, "HIGHEST_RATE", 20.0)
    monkeypatch.setattr(sweep, "LONGEST", 1.0)
    monkeypatch.setenv("AUGUR_LINGER_SECONDS", "0")
    monkeypatch.setenv("AUGUR_THREADS", "1")
    arguments = ["--duration", "0.5", "--warmup", "0", "--rounds", "1", "--users", "5", "--lengths", "5"]
    arguments += ["--candidates", "8", "--start-rate", "30", "--p99-ms", "5000", "--soak", "1.2"]
    assert main([*arguments, "--model", str(artifact), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "capacity.json").read_text())
    assert list(found["capacity"]) == ["5 behaviours sent along", "5 behaviours stored"]
    for case in found["capacity"].values():
        assert case["augur_by_baseline"]["median"] > 0
        assert len(case["sweeps"]) == 2
    assert set(found["below_capacity"]) == {"augur", "baseline"}
    assert found["below_capacity"]["augur"]["stall_p99_ms"]["p99"] > 0
    assert found["model"]["name"] == "tiny"
    assert found["one_candidate"]["echo"]["score"]["errors"] == {}
    assert [one["adjacency"] for one in found["adjacency"]] == [0, 0.5, 0.9] * 2
    at_once = found["adjacency"][4]
    assert (at_once["adjacency"], at_once["companion_ms"], at_once["candidates"]) == (0.5, 0, 10)
    assert at_once["passes"][0] < 1
    assert [each["connections"] for each in found["costs"]] == [1, 1, 16]
    assert all(each["model_ms"][0] > 0 for each in found["costs"])
    assert found["soak"]["mib_last"] > 1
    check_tables(comparisons.capacity(tmp_path / "out"), found)
    said = capsys.readouterr().out
    assert "5 behaviours stored" in said
    assert "ratio" in said
    page = (tmp_path / "out" / "capacity.html").read_text()
    assert page.count("<img") >= 5
    assert "200 candidates" not in page


def check_tables(found: list[Table], figures: dict[str, Any]) -> None:
    rates, augur, plain, adjacency, costs, alone, soak = found
    case = figures["capacity"]["5 behaviours stored"]
    assert rates.rows[1][:3] == ("5 behaviours stored", shown(case["augur"][0]), shown(case["baseline"][0]))
    assert augur.rows[0][2] == spread(figures["below_capacity"]["augur"]["alone"]["score"]["p99"])
    assert plain.header[0].startswith("baseline, ")
    assert len(adjacency.rows) == 6
    assert costs.rows[2][2] == shown(figures["costs"][2]["model_ms"][0])
    assert alone.rows[2][1] == shown(figures["one_candidate"]["augur_cpu_ms"][0])
    assert soak.rows[0] == ("errors", "0")


def test_servers_look_back_as_far_as_is_asked(artifact: Path, tmp_path: Path) -> None:
    one = stand.Stand(tmp_path, stand.Effort(), None, None, artifact)  # type: ignore[arg-type]
    with one.baseline(7) as target:
        assert target.model()["max_history"] == 7
    assert not one.content(7).stored
    assert one.content(7, stored=True).stored == 7
    broken = stand.Stand(tmp_path, stand.Effort(), None, None, tmp_path / "none")  # type: ignore[arg-type]
    with pytest.raises(ServerError, match="no such folder"), broken.baseline(9):
        pass


def test_a_bad_model_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "loadtest.capacity: " in capsys.readouterr().err


def test_matplotlib_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(capacity, "find_spec", lambda name: None)
    assert main([]) == 2
    assert "needs matplotlib" in capsys.readouterr().err


def test_cores_are_shared_between_servers_and_client() -> None:
    assert stand.halves([3]) == ([], [])
    assert stand.halves([0, 1]) == ([0], [1])
    assert stand.halves(range(8)) == ([0, 1, 2, 3, 4, 5], [6, 7])


def test_what_is_not_known_is_said(artifact: Path) -> None:
    one = {"median": 2.0, "least": 1.0, "greatest": 3.0}
    score = {"score": {"p50": one, "p99": one}}
    tail = {"p50": 1.0, "p99": 2.0, "largest": None}
    below = {"rate": 7.0, "alone": score, "beside_large": score}
    below |= dict.fromkeys(("large_p99_ms", "stall_p99_ms", "stall_idle_p99_ms"), tail)
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "cores": {"servers": [], "client": []},
        "model": {"name": "m", "version": "v", "description": "d"},
        "candidates": 200,
        "bound_p99_ms": 100.0,
        "capacity": {"c": {"augur": [9.0], "baseline": [0.0], "augur_by_baseline": None, "cpu_baseline_by_augur": one}},
        "below_capacity": {"augur": below},
        "outside_the_model": {"server_cpu_ms": [1.0, None], "outside_ms": [0.3, None]},
        "one_candidate": {"augur_cpu_ms": [0.2], "echo_cpu_ms": [0.1], "augur_by_echo": one},
    }
    said = text(found)
    for part in ("ratio unknown", "servers on cores any", "largest - ms", "1/- ms; outside the model: unknown"):
        assert part in said
    costs = {
        "candidates": 1,
        "connections": 16,
        "cpu_ms": [0.2, None],
        "model_ms": [0.1, 0.0],
        "outside_ms": [0.1, None],
    }
    found["costs"] = [costs | {"echo_cpu_ms": [0.05, None], "outside_by_echo": one}]
    assert "16 connections never idle: 0.2/- ms of CPU, 0.1/0 in the model, outside 0.1/-;" in text(found)
    found["outside_the_model"]["outside_ms"] = [0.3, 0.25]
    assert "outside the model: 0.3/0.25 ms" in text(found)
