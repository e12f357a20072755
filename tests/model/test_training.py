import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from written_data import write_impressions

from model.batches import Batch, Batcher
from model.checkpoint import FILE
from model.config import ConfigError, ModelConfig
from model.data import DEV, TRAIN, DataSet, open_data
from model.features import fit_schema
from model.metrics import auc, measure
from model.objective import ClickObjective, Objective
from model.training import TrainConfig, Trainer, evaluate, predict
from model.workers import Workers, stop_signals, workers
from model.zoo import make_network

CPU = torch.device("cpu")
QUICK = {"epochs": 2, "batch_size": 64, "learning_rate": 0.02, "evaluations": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return open_data(write_impressions(tmp_path_factory.mktemp("data")))


def trainer(data: DataSet, folder: Path, *, shape: Any = None, settings: Any = None, **config: Any) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    how = TrainConfig(**(QUICK | config))
    schema = fit_schema(data, max_history=8)
    torch.manual_seed(how.seed)
    model = make_network(schema, ModelConfig(**({"hidden": 6, "embedding": 6, "head": (12,)} | (shape or {}))))
    train, dev = (Batcher(data, schema, split, negatives=how.negatives) for split in (TRAIN, DEV))
    objective = ClickObjective(model, how.auxiliary_weight)
    return Trainer(objective, train, dev, how, folder, settings=settings or {"hidden": 6})


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.objective.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def events(folder: Path) -> dict[str, list[float]]:
    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {tag: [event.value for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.parametrize("activation", ["dice", "prelu"])
def test_loss_falls_and_dev_auc_rises(
    data: DataSet, tmp_path: Path, activation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(data, tmp_path, shape={"activation": activation}, epochs=6, batch_size=32)
    before = evaluate(run.objective.served, run.dev, CPU)
    facts = run.run()
    after = evaluate(run.objective.served, run.dev, CPU)
    assert before["auc"] < 0.6
    assert after["auc"] > 0.8
    assert after["log_loss"] < before["log_loss"] - 0.1
    assert facts["steps"] == run.total == 6 * math.ceil(len(run.train) / 32)
    logged = events(tmp_path)
    assert np.mean(logged["train/loss"][-2:]) < np.mean(logged["train/loss"][:1]) - 0.1
    assert {"train/target", "train/auxiliary", "train/loss", "dev/auc", "dev/log_loss"} <= logged.keys()
    history = json.loads((tmp_path / "metrics.json").read_text())["dev"]
    np.testing.assert_allclose([entry["auc"] for entry in history], logged["dev/auc"], atol=1e-6)
    assert history == run.history
    bar = capsys.readouterr().err
    assert all(shown in bar for shown in ("loss=", "dev AUC=0.", "100%", "step/s", "<"))


def test_the_best_weights_on_dev_are_kept(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(data, tmp_path, epochs=3)
    seen: list[dict[str, torch.Tensor]] = []
    given = iter([0.6, 0.7, 0.9, 0.8, 0.9, 0.7])

    def told(*_: object) -> dict[str, float]:
        seen.append(weights(run))
        return {"auc": next(given)}

    monkeypatch.setattr("model.training.evaluate", told)
    facts = run.run()
    assert len(seen) == 6
    assert facts["best_step"] == run.history[2]["step"] < run.step
    assert same(weights(run), seen[2])
    assert not same(weights(run), seen[5])


def test_it_stops_when_dev_auc_no_longer_rises(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.6, 0.7, 0.65, 0.7, 0.6, 0.9, 0.9])
    monkeypatch.setattr("model.training.evaluate", lambda *_: {"auc": next(given)})
    run = trainer(data, tmp_path, epochs=9, patience=3)
    assert run.run()["steps"] == 5 * run.every < run.total
    again = trainer(data, tmp_path, epochs=9, patience=3)
    again.resume()
    assert again.run()["steps"] == run.step
    assert same(weights(again), weights(run))


def test_the_same_seed_gives_the_same_weights(data: DataSet, tmp_path: Path) -> None:
    runs = [trainer(data, tmp_path / str(number), seed=seed) for number, seed in enumerate([3, 3, 4])]
    for run in runs:
        run.run()
    assert same(weights(runs[0]), weights(runs[1]))
    assert not same(weights(runs[0]), weights(runs[2]))


@pytest.mark.parametrize("stop", [1, 7, 10, 13])
def test_a_run_goes_on_as_if_it_had_not_stopped(data: DataSet, tmp_path: Path, stop: int) -> None:
    whole = trainer(data, tmp_path / "whole")
    facts = whole.run()
    assert whole.per_epoch == 10
    part = trainer(data, tmp_path / "part")
    step = Trainer._train_step

    def stopping(self: Trainer, module: Any, batch: Any, asked: bool) -> Any:
        return step(self, module, batch, self.step + 1 == stop)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_train_step", stopping)
        with pytest.raises(KeyboardInterrupt, match=f"step {stop} of 20"):
            part.run()
    again = trainer(data, tmp_path / "part", seed=0)
    again.resume()
    assert again.step == stop
    resumed = again.run()
    assert same(weights(again), weights(whole))
    times = {"seconds": 0, "cpu_seconds": 0}
    assert {**resumed, **times} == {**facts, **times}
    assert (tmp_path / "part" / "metrics.json").read_bytes() == (tmp_path / "whole" / "metrics.json").read_bytes()


def test_a_finished_run_taken_up_again_is_as_it_was(data: DataSet, tmp_path: Path) -> None:
    run = trainer(data, tmp_path)
    facts = run.run()
    again = trainer(data, tmp_path)
    again.resume()
    assert again.run() == facts
    assert same(weights(again), weights(run))


def test_checkpoints_come_by_time(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Trainer, "save", lambda self: saved.append(self.step))
    often = trainer(data, tmp_path / "often", checkpoint_seconds=0)
    often.run()
    assert saved == [*range(1, often.total + 1), often.total]
    saved.clear()
    trainer(data, tmp_path / "rarely", checkpoint_seconds=1e9).run()
    assert saved == [often.total]


def test_a_run_with_other_settings_or_data_is_not_taken_up(data: DataSet, tmp_path: Path) -> None:
    settings = {"hidden": 6, "context": ("tab",), "checkpoint_seconds": 60.0}
    run = trainer(data, tmp_path, settings=settings)
    run.save()
    trainer(data, tmp_path, settings=settings | {"checkpoint_seconds": 5.0}).resume()
    with pytest.raises(ConfigError, match=r"hidden=8: .*checkpoint\.pt is of a run with 6"):
        trainer(data, tmp_path, settings=settings | {"hidden": 8}).resume()
    with pytest.raises(ConfigError, match=r"context=None: .* is of a run with"):
        trainer(data, tmp_path, settings=settings | {"context": None}).resume()
    with pytest.raises(ConfigError, match=r"new=1: .* is of a run with None"):
        trainer(data, tmp_path, settings=settings | {"new": 1}).resume()
    with pytest.raises(ConfigError, match="data_digest="):
        trainer(made_up_data(), tmp_path, settings=settings).resume()


def test_a_damaged_checkpoint_is_refused(data: DataSet, tmp_path: Path) -> None:
    run = trainer(data, tmp_path)
    run.save()
    whole = (tmp_path / FILE).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 40):
        (tmp_path / FILE).write_bytes(whole[:cut])
        with pytest.raises(ConfigError, match=r"checkpoint\.pt: not a checkpoint, or damaged"):
            run.resume()
    for other in ([1], {"step": 1}):
        torch.save(other, tmp_path / FILE)
        with pytest.raises(ConfigError, match="not a checkpoint of this build"):
            run.resume()
    (tmp_path / FILE).unlink()
    with pytest.raises(ConfigError, match="not a checkpoint, or damaged"):
        run.resume()


def test_a_failed_save_leaves_the_old_checkpoint(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(data, tmp_path)
    run.save()

    def full(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match="No space"):
        run.save()
    monkeypatch.undo()
    run.resume()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_saves(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = trainer(data, tmp_path, epochs=50)
    before = signal.getsignal(number)
    step = Trainer._train_step

    def signalled(self: Trainer, *parts: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), number)
        return step(self, *parts)

    monkeypatch.setattr(Trainer, "_train_step", signalled)
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step [45] of 500; --resume goes on"):
        run.run()
    assert signal.getsignal(number) == before
    again = trainer(data, tmp_path, epochs=50)
    again.resume()
    assert again.step == run.step


def test_a_second_signal_stops_at_once() -> None:
    with stop_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    asked: list[bool] = []

    def inside() -> None:
        with stop_signals() as stopping:
            asked.append(stopping())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert asked == [False]


def test_a_last_batch_of_one_row(data: DataSet, tmp_path: Path) -> None:
    rows = len(data.split(TRAIN))
    run = trainer(data, tmp_path, epochs=1, batch_size=rows - 1)
    assert run.run()["steps"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(run).values())


def test_a_loss_that_is_not_finite_stops_the_run(data: DataSet, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, learning_rate=1e30)
    with pytest.raises(ConfigError, match=r"learning_rate=1e\+30: the loss is .* after step"):
        run.run()
    assert not (tmp_path / FILE).exists()


def test_mixed_precision_learns_the_same(data: DataSet, tmp_path: Path) -> None:
    runs = [trainer(data, tmp_path / str(mixed), mixed_precision=mixed, epochs=6) for mixed in (False, True)]
    for run in runs:
        run.run()
    assert not same(weights(runs[0]), weights(runs[1]))
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(runs[1]).values())
    plain, mixed = (evaluate(run.objective.served, run.dev, CPU)["auc"] for run in runs)
    assert mixed > 0.8
    assert abs(plain - mixed) < 0.05


def test_the_learning_rate_falls_linearly_to_zero(data: DataSet, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, epochs=1)
    rates: list[float] = []
    step = run.optimizers[0].step

    def noted() -> None:
        rates.extend({group["lr"] for group in run.optimizers[0].param_groups})
        step()

    run.optimizers[0].step = noted  # type: ignore[method-assign, assignment]
    run.run()
    np.testing.assert_allclose(rates, 0.02 * (1 - np.arange(10) / 10))


def test_numbers_too_small_for_full_precision_are_zero_while_it_trains(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = trainer(data, tmp_path), []
    small = torch.full((3, 3), 1e-39)

    def watched(batch: Batch) -> dict[str, torch.Tensor]:
        found.append((small @ torch.eye(3)).count_nonzero().item())
        return forward(batch)

    forward = run.objective.forward
    monkeypatch.setattr(run.objective, "forward", watched)
    run.run()
    assert set(found) == {0}
    assert (small @ torch.eye(3)).count_nonzero() == 9


def test_threads_that_start_while_it_trains_know_it_too() -> None:
    script = """
import numpy as np, torch
from model.training import without_denormals
torch.set_num_threads(3)
small = torch.from_numpy(np.full(3_000_000, 1e-39, np.float32))
with without_denormals():
    print((small * 1).count_nonzero().item())
"""
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "0\n"


def test_the_auxiliary_loss_is_weighted(data: DataSet, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, auxiliary_weight=0.7)
    batch = next(run.train.epoch(64, 0, 0))
    losses = run.objective(batch)
    assert losses["loss"].item() == pytest.approx((losses["target"] + 0.7 * losses["auxiliary"]).item())
    bare = trainer(data, tmp_path, shape={"auxiliary": "none"})
    losses = bare.objective(batch)
    assert "auxiliary" not in losses
    assert losses["loss"].item() == losses["target"].item()


def test_an_objective_must_say_what_it_minimises(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Objective must say"):
        Objective()(next(trainer(data, tmp_path).train.epoch(2, 0, 0)))


def test_predictions_are_in_the_order_of_the_split(data: DataSet, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, epochs=8)
    run.run()
    model = run.objective.served
    model.train()
    scores = predict(model, run.dev, CPU, size=7)
    assert model.training
    np.testing.assert_allclose(scores, predict(model, run.dev, CPU), atol=1e-6)
    shown = data.split(DEV)
    assert auc(shown.clicks, scores) > 0.8
    assert evaluate(model, run.dev, CPU) == pytest.approx(measure(shown.user_ids, shown.clicks, scores), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"epochs": 0}, "epochs=0: at least 1"),
        ({"batch_size": -1}, "batch_size=-1: at least 1"),
        ({"patience": 0}, "patience=0: at least 1"),
        ({"evaluations": 0}, "evaluations=0: at least 1"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: finite"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: finite"),
        ({"embedding_decay": float("inf")}, "embedding_decay=inf: finite"),
        ({"auxiliary_weight": -0.1}, "auxiliary_weight=-0.1: finite"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds=-1.0: finite"),
        ({"seed": -1}, "seed=-1: from 0"),
        ({"seed": 2**63}, "seed=9223372036854775808: from 0"),
        ({"negatives": "real"}, "negatives='real': sampled or shown"),
    ],
)
def test_a_setting_that_breaks_a_rule_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=f"^{rule}"):
        TrainConfig(**change)


def test_one_process_is_a_group_of_one() -> None:
    with workers(CPU) as group:
        assert group == Workers()
        assert group.first
        assert group.total([2.0, 3.0]) == [2.0, 3.0]
        assert group.of_first(True)
        assert not group.of_first(False)


def test_a_group_of_one_that_torchrun_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: DataSet) -> None:
    calls: list[str] = []
    monkeypatch.setattr("model.workers.dist.init_process_group", calls.append)
    monkeypatch.setattr("model.workers.dist.destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setattr("model.workers.dist.get_rank", lambda: 1)
    monkeypatch.setattr("model.workers.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("model.workers.dist.all_reduce", lambda sums: sums.mul_(2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with workers(CPU) as group:
        assert (group.rank, group.count, group.first) == (1, 2, False)
        assert group.total([1.0, 2.5]) == [2.0, 5.0]
        assert not group.of_first(True)
        run = trainer(data, tmp_path)
        run.workers = group
        run.save()
        run._evaluate(None)
        with run._writer() as writer:
            assert writer is None
    assert calls == ["gloo", "left"]
    assert list(tmp_path.iterdir()) == []
