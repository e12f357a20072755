"""The setting `inner_bias`: what it makes of an artifact, of scores and of training; by default there is none."""

from pathlib import Path

import pytest
import torch
from small_models import small_artifact
from test_artifact import repack
from test_scorer import random_inputs
from test_zoo import batch_of, network

from model.artifact import ArtifactError, load_artifact, save_artifact
from model.artifact_checks import architecture_part
from model.config import ConfigError, ModelConfig
from model.scorer import load_scorer
from model.zoo import make_network

NAMES = {"extractor.bias_candidate", "evolution.bias_candidate"}


def test_it_is_in_an_artifact_only_where_it_is_on(tmp_path: Path) -> None:
    for inner in (True, False):
        artifact = small_artifact(inner_bias=inner)
        assert (NAMES & artifact.weights.keys()) == (NAMES if inner else set())
        assert ("inner_bias" in architecture_part(artifact.config)) is inner
        save_artifact(artifact, tmp_path / "small")
        loaded = load_artifact(tmp_path / "small")
        assert loaded.config.inner_bias is inner
        assert loaded.title.startswith(f"DIEN augru hidden 8{' inner bias' if inner else ''}, ")


def test_an_artifact_of_it_is_checked(tmp_path: Path) -> None:
    save_artifact(small_artifact(inner_bias=True), tmp_path / "small")
    repack(tmp_path / "small", lambda tensors: tensors["evolution.bias_candidate"][2].fill_(torch.inf))
    with pytest.raises(ArtifactError, match=r"evolution.bias_candidate has a value that is not finite"):
        load_artifact(tmp_path / "small")
    repack(tmp_path / "small", lambda tensors: tensors.update({"evolution.bias_candidate": torch.zeros(9)}))
    with pytest.raises(ArtifactError, match=r"evolution.bias_candidate has shape \[9\] where \[8\] is due"):
        load_artifact(tmp_path / "small")
    repack(tmp_path / "small", lambda tensors: tensors.pop("evolution.bias_candidate"))
    with pytest.raises(ArtifactError, match=r"unknown: \['evolution.bias_candidate'\]"):
        load_artifact(tmp_path / "small")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_either_layers_moves_a_score(name: str, tmp_path: Path) -> None:
    artifact = small_artifact(inner_bias=True)
    save_artifact(artifact, tmp_path / "small")
    inputs = random_inputs(artifact)
    first = load_scorer(tmp_path / "small", device="cpu").score(inputs)
    repack(tmp_path / "small", lambda tensors: tensors[name].zero_())
    second = load_scorer(tmp_path / "small", device="cpu").score(inputs)
    assert max(abs(one - other).max() for one, other in zip(first, second, strict=True) if len(one)) > 0.01


def test_a_new_one_is_zero_and_leaves_the_random_numbers_alone() -> None:
    schema = batch_of()[0]
    states = []
    for inner in (False, True):
        torch.manual_seed(3)
        states.append(make_network(schema, ModelConfig(hidden=8, inner_bias=inner)).state_dict())
    without, having = states
    assert having.keys() - without.keys() == NAMES
    assert not any(having[name].any() for name in NAMES)
    assert all(torch.equal(value, having[name]) for name, value in without.items())


def test_it_is_trained() -> None:
    """Every number of it has a gradient, from the click's loss alone."""
    schema, batch = batch_of()
    model = network(schema, inner_bias=True)
    losses = model.losses(batch.inputs, batch.following, batch.clicks.double())
    losses["target"].backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    for name in NAMES:
        gradient = parameters[name].grad
        assert gradient is not None
        assert gradient.abs().min() > 0


@pytest.mark.parametrize("name", ["base", "wide_deep", "pnn", "din"])
def test_a_model_without_a_recurrent_layer_has_none(name: str) -> None:
    with pytest.raises(ConfigError, match=f"inner_bias=True: model={name} has no recurrent layer"):
        ModelConfig(model=name, inner_bias=True)
