"""The ladder: all of it, in short runs of small models; its words from known figures; the rung of kernels alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loadtest.baseline import __main__ as baseline
from loadtest.baseline import fresh
from loadtest.baseline.network import EagerDien, History
from loadtest.ladder import __main__ as ladder
from loadtest.ladder.__main__ import main
from loadtest.ladder.pictures import drawn
from loadtest.ladder.rungs import RUNGS
from loadtest.ladder.words import text
from loadtest.openloop import machine, sweep
from loadtest.openloop.table import spread
from loadtest.report import comparisons
from loadtest.report.tables import shown
from loadtest.traffic import DATA
from model.artifact import load_artifact, of_model, save_artifact
from model.config import ModelConfig
from model.data import open_data
from model.features import fit_schema
from model.zoo import make_network
from model.zoo.dien import Dien
from service.settings import BUNDLED_MODEL

pytestmark = pytest.mark.usefixtures("unwatched_processes")
ONE = {"median": 2.0, "least": 1.0, "greatest": 3.0}


def saved(folder: Path, cell: str = "augru") -> Path:
    torch.manual_seed(5)
    schema = fit_schema(open_data(f"kuairand:{DATA}"), max_history=8)
    model = Dien(schema, ModelConfig(hidden=8, embedding=4, head=(8,), cell=cell, initial_deviation=1.0))
    save_artifact(of_model("tiny", model, schema, {}, {}), folder)
    return folder


def test_the_whole_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # One rate that is kept, the double of it that is taken for too much, and no search between.
    monkeypatch.setattr(sweep, "CLOSE", 2.5)
    monkeypatch.setattr(sweep, "HIGHEST_RATE", 50.0)
    monkeypatch.setattr(sweep, "LONGEST", 1.0)
    monkeypatch.setenv("AUGUR_LINGER_SECONDS", "0")
    monkeypatch.setenv("AUGUR_THREADS", "1")
    monkeypatch.setenv("AUGUR_SEED", "")  # histories are sent along
    arguments = ["--duration", "0.2", "--warmup", "0", "--rounds", "1", "--users", "5", "--candidates", "4"]
    arguments += ["--start-rate", "60", "--low-rate", "60", "--p99-ms", "5000"]
    assert main([*arguments, "--model", str(saved(tmp_path / "tiny")), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert [rung["name"] for rung in found["rungs"]] == [rung.name for rung in RUNGS]
    described = [rung["model"]["description"] for rung in found["rungs"]]
    assert ["hidden 108" in one for one in described] == [True, True, True, False, False]
    assert ["eager" in one for one in described] == [True, False, False, True, False]
    assert ["repeated" in one for one in described] == [True, True, False, True, False]
    for rung in found["rungs"]:
        assert rung["capacity"][0] > 0
        assert rung["low"]["score"]["errors"] == rung["below"]["score"]["errors"] == {}
        assert rung["below"]["rate"] == pytest.approx(0.7 * rung["capacity"][0])
        assert rung["by_first"]["p50"]["median"] > 0
    rungs, ratios = comparisons.ladder(tmp_path / "out")
    assert [row[0] for row in rungs.rows] == [f"`{rung.name}`" for rung in RUNGS]
    assert rungs.rows[0][2] == shown(found["rungs"][0]["capacity"][0])
    assert ratios.rows[-1][1] == spread(found["rungs"][-1]["by_first"]["capacity"])
    said = capsys.readouterr().out
    assert "the paper's: 38.2 ms to 6.6 ms, / 5.8; 360 requests/s" in said
    page = (tmp_path / "out" / "ladder.html").read_text()
    assert page.count("<img") == 1
    assert "4 candidates, histories of 50" in page
    assert (tmp_path / "out" / "ladder.png").read_bytes().startswith(b"\x89PNG")


def known() -> dict[str, Any]:
    score = {"score": {"p50": ONE, "p99": ONE}, "server_cpu_ms": ONE}
    rung = {
        "what": "w",
        "model": {"description": "d"},
        "capacity": [8.0, 9.0, 10.0],
        "low": score,
        "below": {"rate": 6.3, **score},
        "by_first": {"capacity": ONE, "p50": ONE, "server_cpu_ms": None},
    }
    none = {"capacity": [0.0], "below": {"rate": 0.0}, "by_first": dict.fromkeys(("capacity", "p50", "server_cpu_ms"))}
    return {
        "machine": machine.describe(),
        "cores": {"servers": [], "client": [1]},
        "candidates": 200,
        "history": 50,
        "bound_p99_ms": 100.0,
        "low_rate": 2.0,
        "rungs": [copy.deepcopy(rung) | {"name": "naive"} | none, copy.deepcopy(rung) | {"name": "all"}],
    }


def test_a_rung_that_keeps_no_rate_is_said_and_drawn() -> None:
    said = text(known()).splitlines()
    rows = [line.split() for line in said]
    assert ["naive", "0.0", "2.00", "2.00", "-", "-", "-", "2.00"] in rows
    assert ["all", "8.0/9.0/10.0", "2.00", "2.00", "6.3", "2.00", "2.00", "2.00"] in rows
    assert "  all        capacity x 2 (1 to 3); p50 / 2 (1 to 3); CPU / unknown" in said
    assert "client and servers share the machine; servers on cores any, client on [1]" in said
    picture = drawn(known(), "svg").decode()
    assert "<svg" in picture


@pytest.mark.parametrize("cell", ["augru", "agru", "aigru"])
def test_kernels_change_no_score(tmp_path: Path, cell: str) -> None:
    artifact = saved(tmp_path / "tiny", cell)
    scores_are_the_same(artifact, [History([], []), History([3], [0]), History(list(range(60, 68)), [0, 1] * 4)])


@pytest.mark.parametrize("hidden", [32, 108])
def test_kernels_change_no_score_of_the_bundled_model(tmp_path: Path, hidden: int) -> None:
    fresh.main([str(BUNDLED_MODEL), str(tmp_path / "wide"), "--hidden", str(hidden)])
    histories = [History(list(range(length)), [0, 1] * (length // 2)) for length in (0, 2, 50)]
    scores_are_the_same(BUNDLED_MODEL if hidden == 32 else tmp_path / "wide", histories)


def scores_are_the_same(artifact: Path, histories: list[History]) -> None:
    eager, fused = EagerDien(artifact), EagerDien(artifact, fused=True)
    assert "eager" in eager.description
    assert "kernels" in fused.description
    for history in histories:
        for items in ([7], list(range(200))):
            asked = ("12", items, history, {"tab": 1})
            assert np.abs(np.array(eager.score(*asked)) - fused.score(*asked)).max() < 1e-5


@pytest.mark.parametrize("shape", [{"model": "din"}, {"attention": "unit"}])
def test_a_model_without_a_kernel_is_served_plainly_or_not_at_all(
    tmp_path: Path, shape: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    schema = fit_schema(open_data(f"kuairand:{DATA}"), max_history=8)
    model = make_network(schema, ModelConfig(hidden=8, embedding=4, head=(8,), **shape))  # type: ignore[arg-type]
    save_artifact(of_model("tiny", model, schema, {}, {}), tmp_path / "tiny")
    plain = EagerDien(tmp_path / "tiny")
    assert len(plain.score("12", [7, 8], History([3], [0]), {"tab": 1})) == 2
    assert plain.description.startswith(model.config.title)
    assert baseline.main(["--model", str(tmp_path / "tiny"), "--fused"]) == 2
    assert "interest evolution, bilinear attention" in capsys.readouterr().err


def test_a_wider_artifact_differs_in_its_hidden_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    fresh.main([str(BUNDLED_MODEL), str(tmp_path / "wide"), "--hidden", "108"])
    assert torch.equal(torch.get_rng_state(), state)
    ours, theirs = load_artifact(BUNDLED_MODEL), load_artifact(tmp_path / "wide")
    assert (
        capsys.readouterr().out.strip() == theirs.version == fresh.fresh(BUNDLED_MODEL, tmp_path / "again", hidden=108)
    )
    assert (ours.config.hidden, theirs.config.hidden) == (32, 108)
    assert theirs.config.head == ours.config.head
    assert theirs.schema.max_history == ours.schema.max_history


def test_a_bad_model_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "loadtest.ladder: " in capsys.readouterr().err
    threads = torch.get_num_threads()
    assert baseline.main(["--fused", "--model", str(tmp_path / "none"), "--threads", str(threads)]) == 2


def test_matplotlib_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ladder, "find_spec", lambda name: None)
    assert main([]) == 2
    assert "needs matplotlib" in capsys.readouterr().err
