import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from written_data import SMALL, call, complaint, write_impressions, write_sequences

from model.artifact import load_artifact
from model.batches import Batcher
from model.data import DEV, TEST, open_data
from model.metrics import measure
from model.train import run
from model.training import Trainer, predict

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_impressions(tmp_path_factory.mktemp("data") / "logs")


def options(data: str, folder: Path, *more: object) -> list[str]:
    words = ("--data", data, "--out", folder / "model", "--run", folder / "run", *SMALL, "--batch-size", 64, *more)
    return [str(word) for word in words]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_artifact(folder / "model").weights  # type: ignore[return-value]


def process(module: str, words: list[str], *before: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-W", "ignore", *before, "-m", module, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def test_training_writes_an_artifact_worth_what_it_says(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call(
            run, *options(data, tmp_path, "--epochs", 8, "--learning-rate", 0.02, "--context", "tab", "--patience", 99)
        )
        == 0
    )
    artifact, opened = load_artifact(tmp_path / "model"), open_data(data)
    assert artifact.name == "model"
    assert artifact.config.hidden == 6
    assert artifact.schema.max_history == 8
    assert artifact.training["data"]["data"] == data
    assert artifact.training["settings"]["learning_rate"] == 0.02
    assert artifact.training["settings"]["auxiliary_weight"] == 0.25
    assert artifact.training["run"]["steps"] == 80
    for split, name in ((DEV, "dev"), (TEST, "test")):
        batcher = Batcher(opened, artifact.schema, split)
        shown = batcher.impressions
        due = measure(shown.user_ids, shown.clicks, predict(artifact.model(), batcher, CPU))
        assert {key: artifact.metrics[name][key] for key in due} == pytest.approx(due, abs=1e-4)
    assert artifact.metrics["test"]["auc"] > 0.7
    low, high = artifact.metrics["test"]["intervals"]["auc"]
    assert low <= artifact.metrics["test"]["auc"] <= high
    told = capsys.readouterr().out
    assert f"version {artifact.version}" in told
    assert f"auc                {artifact.metrics['test']['auc']:.4f}  95 % interval {low:.4f} to {high:.4f}" in told
    assert {part.name for part in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "metrics.json", "tensorboard"}


def test_sequences_are_trained_the_papers_way(tmp_path: Path) -> None:
    name = write_sequences(tmp_path / "data")
    words = options(name, tmp_path, "--epochs", 6, "--learning-rate", 0.02, "--prefixes", "--no-user-id", "--seed", 1)
    assert call(run, *words) == 0
    artifact = load_artifact(tmp_path / "model")
    assert artifact.schema.actions == artifact.schema.context_fields == ()
    assert not artifact.schema.uses_user_id
    assert artifact.metrics["test"]["auc"] > 0.7


def test_a_killed_run_goes_on_as_if_it_had_not_been(data: str, tmp_path: Path) -> None:
    more = ("--epochs", 8, "--checkpoint-seconds", 0, "--evaluations", 5, "--patience", 1000)
    whole, killed = options(data, tmp_path / "whole", *more), options(data, tmp_path / "killed", *more)
    running = process("model.train", killed)
    metrics = tmp_path / "killed" / "run" / "metrics.json"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and len(json.loads(metrics.read_text())["dev"]) >= 6):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    state = torch.load(tmp_path / "killed" / "run" / "checkpoint.pt", weights_only=True)
    assert 10 < state["step"] < 80
    assert not (tmp_path / "killed" / "model").exists()

    assert call(run, *whole) == 0
    assert call(run, *killed, "--resume") == 0
    files = ("model/model.safetensors", "run/metrics.json")
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, other = (load_artifact(tmp_path / name / "model") for name in ("whole", "killed"))
    assert (one.version, one.metrics) == (other.version, other.metrics)


def test_two_workers_train_the_same_model_as_one(data: str, tmp_path: Path) -> None:
    rows = int((open_data(data).impressions.splits == 0).sum())
    assert rows % 37 == 1  # an odd batch size, and a last batch of one row
    whole = ("--batch-size", 37, "--activation", "prelu", "--auxiliary", "none", "--epochs", 2, "--learning-rate", 0.01)
    more = (*whole, "--unknown-rate", 0)  # each worker would draw its own
    torchrun = ["--standalone", "--nproc-per-node", "2", "-m", "--", "model.train"]
    pair = process("torch.distributed.run", [*torchrun, *options(data, tmp_path / "pair", *more)])
    assert call(run, *options(data, tmp_path / "alone", *more)) == 0
    out, err = pair.communicate(timeout=100)
    assert pair.returncode == 0, err
    assert out.count("version") == 1
    one, two = weights(tmp_path / "alone"), weights(tmp_path / "pair")
    fresh = tmp_path / "fresh"
    assert call(run, *options(data, fresh, *more, "--learning-rate", 0)) == 0
    first = weights(fresh)
    for name, tensor in one.items():
        moved = (tensor - first[name]).norm()
        assert (two[name] - tensor).norm() <= 0.02 * moved + 1e-6, name
    aucs = [load_artifact(tmp_path / name / "model").metrics["test"]["auc"] for name in ("alone", "pair")]
    assert aucs[0] == pytest.approx(aucs[1], abs=0.005)


def test_ctrl_c_saves_and_says_how_to_go_on(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(data, tmp_path, "--epochs", 2)
    step = Trainer._train_step

    def interrupted(self: Trainer, *parts: Any) -> Any:
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *parts)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_step", interrupted)
        assert call(run, *words) == 130
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("stopped at step ")
    assert "--resume goes on from there" in err
    assert "Traceback" not in err
    assert not (tmp_path / "model").exists()
    assert call(run, *words, "--resume") == 0
    assert load_artifact(tmp_path / "model").training["run"]["steps"] == 20


def test_a_run_is_neither_overwritten_nor_taken_up_by_another(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(data, tmp_path, "--epochs", 1)
    assert "holds no checkpoint" in complaint(run, capsys, *words, "--resume")
    assert call(run, *words) == 0
    before = load_artifact(tmp_path / "model")
    assert "holds a run already; --resume goes on" in complaint(run, capsys, *words)
    for change, rule in [
        (("--hidden", 7), "hidden=7: "),
        (("--max-history", 5), "max_history=5: "),
        (("--learning-rate", 0.1), "learning_rate=0.1: "),
        (("--auxiliary-weight", 0.3), "auxiliary_weight=0.3: "),
        (("--no-user-id",), "user_id=False: "),
        (("--context", "tab"), "context=('tab',): "),
    ]:
        line = complaint(run, capsys, *words, *change, "--resume")
        assert rule in line
        assert "is of a run with" in line
    shutil.rmtree(tmp_path / "model")
    assert call(run, *words, "--resume", "--checkpoint-seconds", 5) == 0
    again = load_artifact(tmp_path / "model")
    assert again.version == before.version
    assert again.training["run"] == before.training["run"]
    assert before.training["run"]["cpu_seconds"] > 0


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--threads", "x"), "argument --threads: invalid int value: 'x'"),
        (("--threads", -1), "threads=-1"),
        (("--device", "abacus"), "device='abacus'"),
        (("--hidden", 0), "hidden=0: from 1"),
        (("--head", "20,x"), "argument --head: invalid list of int value: '20,x'"),
        (("--head", ""), "head=(): one to eight widths"),
        (("--cell", "lstm"), "argument --cell: invalid choice: 'lstm'"),
        (("--initial-deviation", -1), "initial_deviation=-1.0: finite"),
        (("--epochs", -3), "epochs=-3: at least 1"),
        (("--seed", -1), "seed=-1: from 0"),
        (("--auxiliary-weight", "nan"), "auxiliary_weight=nan: finite"),
        (("--max-history", 0), "max_history=0: from 1 to 100000"),
        (("--max-history", 100_001), "max_history=100001: from 1 to 100000"),
        (("--min-count", 0), "min_count=0: at least 1"),
        (("--split-seed", -1), "split_seed=-1: at least 0"),
        (("--context", "page"), "context field 'page'"),
        (("--context", "tab,tab"), "context=tab,tab: a field occurs twice"),
        (("--data", "unheard:of"), "adapter 'unheard' must be one of"),
        (("--data", "canonical:/nowhere"), "/nowhere"),
        (("--prefixes",), "prefixes=True is for sequences"),
        (("--colour", "blue"), "unrecognized arguments: --colour blue"),
    ],
)
def test_a_bad_line_is_refused_in_one_line(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], rule: str
) -> None:
    assert rule in complaint(run, capsys, *options(data, tmp_path, *words))
    assert not (tmp_path / "run").exists()


def test_a_bad_place_is_refused_before_any_work(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.cli.open_data", lambda *_, **__: pytest.fail("data was read"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes").write_text("x")
    for out, rule in [
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "model", "cannot be written to"),
        ("/proc/augur/model", "cannot be written to"),
        (tmp_path / "work", "holds ['notes']"),
        ("/", "name=''"),
    ]:
        line = complaint(run, capsys, "--data", data, "--out", out, "--run", tmp_path / "run")
        assert rule in line
    inside = ("--out", tmp_path / "model", "--run", tmp_path / "model" / "run")
    assert "which the artifact will replace" in complaint(run, capsys, "--data", data, *inside)
    assert "required: --out" in complaint(run, capsys, "--data", data)


def test_an_artifact_among_the_runs_has_its_run_beside_it(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = options(data, Path("runs"), "--epochs", 1)
    place = words.index("--run")
    assert call(run, *words[:place], *words[place + 2 :]) == 0
    assert load_artifact(Path("runs/model")).name == "model"
    assert {part.name for part in Path("runs").iterdir()} == {"model", "model-run"}


def test_a_run_folder_that_is_a_file_is_refused(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("x")
    assert "cannot be written to" in complaint(run, capsys, *options(data, tmp_path))


@pytest.mark.parametrize(
    ("splits", "rule"),
    [
        ({"dev": 0.5, "test": 1.0}, "has no impressions in train"),
        ({"train": 0.5, "test": 1.0}, "has no impressions in dev"),
        ({"train": 0.985, "dev": 1.0}, "needs both clicks and non-clicks in dev"),
    ],
)
def test_a_split_that_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], splits: dict[str, float], rule: str
) -> None:
    name = write_impressions(tmp_path / "data", rows=100, splits=splits)
    assert rule in complaint(run, capsys, *options(name, tmp_path))


def test_without_test_days_dev_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_impressions(tmp_path / "data", rows=200, splits={"train": 0.6, "dev": 1.0})
    assert call(run, *options(name, tmp_path)) == 0
    artifact = load_artifact(tmp_path / "model")
    assert "test" not in artifact.metrics
    out = capsys.readouterr().out
    assert "on dev:" in out
    assert f"{artifact.metrics['dev']['auc']:.4f}\n" in out


def test_the_checkpoint_holds_no_more_than_tensors_and_plain_values(data: str, tmp_path: Path) -> None:
    assert call(run, *options(data, tmp_path, "--epochs", 1)) == 0
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    best = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    served = {name.removeprefix("served."): tensor for name, tensor in state["best"]["weights"].items()}
    shared = best.keys() & served.keys()
    assert len(shared) == len([name for name in best if not name.startswith("schema.")])
    assert all(np.array_equal(best[name].numpy(), served[name].numpy()) for name in shared)
