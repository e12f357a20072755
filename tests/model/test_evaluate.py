import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from matplotlib import image
from small_models import small_artifact, small_model
from written_data import call, complaint, write_impressions, write_sequences

from model.artifact import load_artifact, of_model, save_artifact
from model.batches import Batcher
from model.config import ConfigError
from model.data import DEV, TEST, DataSet, open_data
from model.evaluate import interest_evolution, run
from model.features import fit_schema
from model.metrics import METRICS, bootstrap, measure
from model.slices import measure_slices
from model.training import predict

CPU = torch.device("cpu")


def artifact_of(name: str, folder: Path, user_id: bool = True, **shape: Any) -> Path:
    schema = fit_schema(open_data(name), max_history=8, user_id=user_id)
    save_artifact(of_model("small", small_model(schema, **shape), schema, {}, {}), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_impressions(tmp_path_factory.mktemp("data") / "logs")


@pytest.fixture(scope="module")
def artifact(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact_of(data, tmp_path_factory.mktemp("artifact") / "small")


def options(artifact: Path, data: str, out: Path, *more: object) -> list[str]:
    words = ("--artifact", artifact, "--data", data, "--out", out, "--draws", 20, "--device", "cpu", "--threads", 1)
    return [*map(str, words), *map(str, more)]


def size_of_png(file: Path) -> tuple[int, int]:
    start = file.read_bytes()[:24]
    assert start[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", start[16:24])
    return width, height


def assert_picture(file: Path) -> None:
    width, height = size_of_png(file)
    assert 600 <= width <= 4000
    assert 300 <= height <= 2500
    pixels = image.imread(file)[..., :3]
    assert pixels.shape[:2] == (height, width)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # something is drawn
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert np.all(edges == 1)  # and nothing is cut


@pytest.mark.parametrize("split", ["dev", "test"])
def test_metrics_are_those_of_the_predictions(
    data: str, artifact: Path, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, *options(artifact, data, tmp_path / "out", "--split", split)) == 0
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    loaded = load_artifact(artifact)
    batcher = Batcher(open_data(data), loaded.schema, {"dev": DEV, "test": TEST}[split])
    shown, scores = batcher.impressions, predict(loaded.model(), batcher, CPU)
    assert results["metrics"] == measure(shown.user_ids, shown.clicks, scores)
    intervals = bootstrap(shown.user_ids, shown.clicks, scores, draws=20)
    assert {name: tuple(ends) for name, ends in results["intervals"].items()} == intervals
    size = {"model": "dien", "parameters": loaded.parameters}
    assert results["artifact"] == {"name": "small", "version": loaded.version} | size
    assert results["data"] == {"name": data, "split": split, "impressions": len(shown)}
    assert results["scorer_largest_difference"] < 1e-5
    assert results["unknown_items"] == 0
    out = capsys.readouterr().out
    assert f"small {loaded.version}: DIEN augru hidden 8, {loaded.parameters:,} parameters" in out
    for name in METRICS:
        low, high = results["intervals"][name]
        assert f"{name:18} {results['metrics'][name]:.4f}  95 % interval {low:.4f} to {high:.4f}" in out
    assert {part.name for part in (tmp_path / "out").iterdir()} == {
        "metrics.json",
        "reliability.png",
        "slices.png",
        "interest_evolution.png",
    }
    assert results["slices"] == measure_slices(batcher, scores, draws=20)
    assert results["slices"]
    assert results["click_rate"] == pytest.approx(shown.clicks.mean())
    for name in ("reliability.png", "slices.png", "interest_evolution.png"):
        assert_picture(tmp_path / "out" / name)


def test_a_model_without_attention_has_one_picture_less(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = artifact_of(data, tmp_path / "artifact", model="wide_deep")
    assert call(run, *options(artifact, data, tmp_path / "out")) == 0
    assert {part.name for part in (tmp_path / "out").iterdir()} == {"metrics.json", "reliability.png", "slices.png"}
    out = capsys.readouterr().out
    assert ": Wide&Deep, " in out
    assert f"written to {tmp_path / 'out'}: metrics.json, reliability.png, slices.png\n" in out


def test_sequences_are_evaluated_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_sequences(tmp_path / "data", users=80)
    artifact = artifact_of(name, tmp_path / "artifact", user_id=False)
    assert call(run, *options(artifact, name, tmp_path / "out")) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["data"]["impressions"] == 16
    assert_picture(tmp_path / "out" / "interest_evolution.png")
    line = complaint(run, capsys, *options(artifact, name, tmp_path / "out", "--split", "train"))
    assert "has clicks alone there" in line


def test_data_that_does_not_fit_is_refused(
    data: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = write_sequences(tmp_path / "data", users=40)
    assert "has no context field 'tab', which small reads" in complaint(
        run, capsys, *options(artifact, sequences, tmp_path / "out")
    )
    bare = artifact_of(sequences, tmp_path / "bare", user_id=False)
    line = complaint(run, capsys, *options(bare, data, tmp_path / "out"))
    assert "has the actions click, long_view; small reads none" in line
    foreign = made_up_data(actions=False, context=False)
    save_artifact(small_artifact(foreign), tmp_path / "foreign")
    line = complaint(run, capsys, *options(tmp_path / "foreign", sequences, tmp_path / "out"))
    assert "has no item in test that small knows" in line
    early = write_impressions(tmp_path / "early", rows=100, splits={"train": 0.5, "dev": 1.0})
    assert "has no impressions in it" in complaint(run, capsys, *options(artifact, early, tmp_path / "out"))


def test_a_bad_line_is_refused_in_one_line(
    data: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for words, rule in [
        (options(artifact, data, tmp_path / "file"), "file: cannot be written to"),
        (options(tmp_path / "nothing", data, tmp_path / "out"), "no such folder"),
        (options(artifact, "csv:x", tmp_path / "out"), "adapter 'csv'"),
        (options(artifact, data, tmp_path / "out", "--candidates", 0), "candidates=0: at least 1"),
        (options(artifact, data, tmp_path / "out", "--draws", -1), "draws=-1: at least 1"),
        (options(artifact, data, tmp_path / "out", "--split-seed", -1), "split_seed=-1: at least 0"),
        (options(artifact, data, tmp_path / "out", "--user", 12345), "user=12345: has no impression"),
        (options(artifact, data, tmp_path / "out", "--split", "all"), "invalid choice: 'all'"),
    ]:
        assert rule in complaint(run, capsys, *words)


@pytest.fixture(scope="module")
def made_up() -> tuple[DataSet, Batcher]:
    data = made_up_data(seed=2, impressions=300)
    return data, Batcher(data, fit_schema(data, max_history=6), TEST)


def test_interest_evolution_shows_what_came_before_the_first_candidate(made_up: tuple[DataSet, Batcher]) -> None:
    data, batcher = made_up
    shown = batcher.impressions
    for user in np.unique(shown.user_ids).tolist():
        one = interest_evolution(data, batcher, user, 4)
        rows = np.flatnonzero(shown.user_ids == user)
        rows = rows[np.argsort(shown.timestamps_ms[rows], kind="stable")]
        due = list(dict.fromkeys(shown.item_ids[rows].tolist()))[:4]
        assert (one.user_id, list(one.item_ids)) == (user, due)
        place = np.flatnonzero(data.behaviors.user_ids == user)
        past = np.zeros(0, dtype=np.int64)
        if len(place):
            own = slice(data.behaviors.offsets[place[0]], data.behaviors.offsets[place[0] + 1])
            before = data.behaviors.timestamps_ms[own] < shown.timestamps_ms[rows[0]]
            past = data.behaviors.item_ids[own][before][-6:]
        np.testing.assert_array_equal(one.history, past)


def test_the_user_shown_has_much_to_see(made_up: tuple[DataSet, Batcher]) -> None:
    data, batcher = made_up
    chosen = interest_evolution(data, batcher, None, 4)
    every = [interest_evolution(data, batcher, user, 4) for user in np.unique(batcher.impressions.user_ids).tolist()]
    assert len(chosen.history) * len(chosen.item_ids) == max(len(one.history) * len(one.item_ids) for one in every) > 0
    with pytest.raises(ConfigError, match="user=77: has no impression"):
        interest_evolution(data, batcher, 77, 4)
