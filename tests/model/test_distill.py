from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from small_models import small_model
from torch.nn import functional
from written_data import SMALL, call, complaint, write_impressions

from model.artifact import load_artifact
from model.batches import Batch, Batcher
from model.config import ConfigError, ModelConfig
from model.data import TEST, TRAIN, open_data
from model.distill import RocketConfig, RocketObjective, run
from model.evaluate import score_inputs
from model.features import fit_schema
from model.metrics import auc
from model.scorer import Scorer
from model.workers import Workers
from model.zoo.dien import Dien

SHARE = pytest.mark.parametrize("share", [True, False])


def rocket(share: bool, *, hint: float = 0.3, auxiliary: float = 0.7) -> tuple[RocketObjective, Batch]:
    data = made_up_data()
    schema = fit_schema(data, max_history=6)
    booster = small_model(schema, seed=1, hidden=11)
    light = small_model(schema, seed=2, hidden=5)
    if share:
        light.embeddings = booster.embeddings
    batch = Batcher(data, schema, TRAIN).batch(np.arange(30), np.random.default_rng(0))
    return RocketObjective(light, booster, hint_weight=hint, auxiliary_weight=auxiliary), batch


def gradients(objective: RocketObjective, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    objective.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad.clone()
        for name, parameter in objective.named_parameters(remove_duplicate=False)
        if parameter.grad is not None and parameter.grad.any()
    }


@SHARE
def test_losses_are_those_worked_out_by_hand(share: bool) -> None:
    objective, batch = rocket(share)
    objective.eval()  # so that Dice gives the same numbers again
    losses = objective(batch)
    light, booster = (net(batch.inputs) for net in (objective.served, objective.booster))
    assert losses["hint"].item() == pytest.approx(float(np.mean((light - booster).detach().numpy() ** 2)), rel=1e-4)
    for name, logits in (("target", light), ("booster_target", booster)):
        due = functional.binary_cross_entropy_with_logits(logits, batch.clicks)
        assert losses[name].item() == pytest.approx(due.item(), rel=1e-4)
    total = losses["target"] + 0.7 * losses["auxiliary"] + losses["booster_target"]
    total = total + 0.7 * losses["booster_auxiliary"] + 0.3 * losses["hint"]
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-5)


@SHARE
def test_the_hint_does_not_reach_the_booster(share: bool) -> None:
    objective, batch = rocket(share)
    reached = gradients(objective, objective(batch)["hint"])
    own = {name for name in reached if name.startswith("booster.") and ".embeddings." not in name}
    assert not own
    assert any(name.startswith("booster.embeddings") for name in reached) is share
    assert {"served.attention.weight", "served.extractor.w_input", "served.head.output.bias"} <= reached.keys()
    assert any(name.startswith("served.embeddings") for name in reached)


def test_the_booster_learns_as_if_it_were_alone() -> None:
    objective, batch = rocket(share=False)
    together = gradients(objective, objective(batch)["loss"])
    losses = objective.booster.losses(batch.inputs, batch.following, batch.clicks)
    alone = gradients(objective, losses["target"] + 0.7 * losses["auxiliary"])
    of_booster = {name for name in together if name.startswith("booster.")}
    assert of_booster == alone.keys()
    for name in of_booster:
        torch.testing.assert_close(together[name], alone[name])


@SHARE
def test_each_parameter_is_optimised_once_and_only_embeddings_decay(share: bool) -> None:
    objective, _ = rocket(share)
    groups = objective.parameter_groups(0.25)
    optimised = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(parameter) for parameter in objective.parameters()}
    decayed = {id(one) for group in groups if group["weight_decay"] == 0.25 for one in group["params"]}
    embedded = [*objective.served.embeddings.parameters(), *objective.booster.embeddings.parameters()]
    assert decayed == {id(parameter) for parameter in embedded}
    assert all(group["weight_decay"] in (0, 0.25) for group in groups)


def test_nets_that_share_have_one_set_of_embeddings() -> None:
    schema = fit_schema(made_up_data())
    booster = Dien(schema, ModelConfig(hidden=9, embedding=4))
    light = Dien(schema, ModelConfig(hidden=3, embedding=4), booster.embeddings)
    assert light.embeddings is booster.embeddings


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"hint_weight": -0.1}, "hint_weight=-0.1: finite"),
        ({"hint_weight": float("inf")}, "hint_weight=inf: finite"),
        ({"booster_hidden": 0}, "booster_hidden=0: from 1 to 4096"),
        ({"booster_hidden": 5000}, "booster_hidden=5000: from 1 to 4096"),
    ],
)
def test_a_setting_that_breaks_a_rule_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=f"^{rule}"):
        RocketConfig(**change)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_impressions(tmp_path_factory.mktemp("data") / "logs")


def options(data: str, folder: Path, *more: object) -> list[str]:
    words = ("--data", data, "--out", folder / "light", "--run", folder / "run", *SMALL, "--batch-size", 64, *more)
    return [str(word) for word in words]


@SHARE
def test_distilling_writes_both_nets(
    data: str, tmp_path: Path, share: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ("--booster-out", tmp_path / "booster", "--booster-hidden", 13, "--share" if share else "--no-share")
    assert call(run, *options(data, tmp_path, *both, "--epochs", 8, "--learning-rate", 0.02)) == 0
    light, booster = (load_artifact(tmp_path / name) for name in ("light", "booster"))
    assert (light.name, light.config.hidden, booster.name, booster.config.hidden) == ("light", 6, "booster", 13)
    assert light.weights["attention.weight"].shape[0] == 6
    assert not any("booster" in name or "auxiliary" in name for name in light.weights)
    tables = [name for name in light.weights if name.startswith("embeddings.")]
    assert all(torch.equal(light.weights[name], booster.weights[name]) for name in tables) is share
    opened = open_data(data)
    batcher = Batcher(opened, light.schema, TEST)
    inputs = score_inputs(opened, batcher, np.arange(len(batcher)))
    for artifact in (light, booster):
        scores = np.concatenate(Scorer(artifact, device="cpu").score(inputs))
        stated = artifact.metrics["test"]["auc"]
        assert auc(batcher.impressions.clicks, scores) == pytest.approx(stated, abs=1e-3)
        assert stated > 0.7
    assert light.metrics["booster"] == booster.metrics
    settings = light.training["settings"]
    assert (settings["booster_hidden"], settings["hint_weight"], settings["share"]) == (13, 0.1, share)
    out = capsys.readouterr().out
    assert f"version {light.version}" in out
    assert f"version {booster.version}" in out


def test_the_light_net_alone_is_written_unless_asked(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(data, tmp_path, "--booster-hidden", 7)
    assert call(run, *words) == 0
    assert {part.name for part in tmp_path.iterdir()} == {"light", "run"}
    assert "hint_weight=0.2: " in complaint(run, capsys, *words, "--hint-weight", 0.2, "--resume")


def test_two_artifacts_do_not_go_to_one_place(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path / "light", tmp_path / "light" / "booster"):
        line = complaint(run, capsys, *options(data, tmp_path, "--booster-out", place))
        assert "two artifacts in one place" in line
    assert "booster_hidden=0" in complaint(run, capsys, *options(data, tmp_path, "--booster-hidden", 0))
    line = complaint(run, capsys, *options(data, tmp_path, "--model", "din"))
    assert "model=din: has no hidden size, in which both nets differ; gru_attention, aigru, agru, augru, " in line


def test_only_the_first_worker_writes(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.distill.fit", lambda *_, **__: {})
    monkeypatch.setattr(Workers, "first", property(lambda _: False))
    assert call(run, *options(data, tmp_path, "--booster-hidden", 7)) == 0
    assert list(tmp_path.iterdir()) == []
