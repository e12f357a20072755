"""What the scorer makes of every model of the zoo: the network's own numbers, whatever is asked."""

from typing import Any

import numpy as np
import pytest
import torch
from made_up import UNKNOWN_ITEM, made_up_data
from numpy_dien import Row
from numpy_zoo import NumpyZoo
from small_models import small_artifact
from test_scorer import CATALOGUE, assert_same, of_network, padded_inputs, random_inputs, spread
from test_zoo import ALL, ATTENDING

from model.artifact import Artifact
from model.config import MODELS
from model.ragged import ScoreInput, ScoreInputError
from model.scorer import Scorer
from model.zoo.network import Attending, Recurrent


def row_of(artifact: Artifact, one: ScoreInput, place: int) -> Row:
    """One candidate of an input, without padding."""
    inputs, length = padded_inputs(artifact.schema, one), min(len(one.history), artifact.schema.max_history)
    context, history, actions = (part[place].tolist() for part in (inputs.context, inputs.history, inputs.actions))
    return Row(int(inputs.user[place]), context, int(inputs.target[place]), history[:length], actions[:length])


@ALL
def test_scores_are_the_networks_and_the_equations(shape: dict[str, Any]) -> None:
    """Tables or none, either backend, with and without actions; some without a history, some items unknown."""
    for number, actions in enumerate((True, False)):
        data = made_up_data(number, actions=actions, context=actions)
        artifact = small_artifact(data, user_id=actions, **shape, activation=("dice", "prelu")[number])
        inputs = random_inputs(artifact, seed=number)
        due = of_network(artifact, inputs)
        assert spread(due) > 0.2
        for budget, backend in ((1 << 30, "auto"), (0, "auto"), (1 << 30, "reference")):
            scorer = Scorer(artifact, device="cpu", backend=backend, table_budget=budget)
            scores = scorer.score(inputs)
            assert_same(scores, due, 1e-5)
        truth = NumpyZoo(artifact.model(), artifact.schema, artifact.config)
        for one, of_one in list(zip(inputs, scores, strict=True))[:8]:
            logits = np.array([truth.score_logit(row_of(artifact, one, place)) for place in range(len(one.item_ids))])
            np.testing.assert_allclose(of_one, 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_odd_sizes(name: str) -> None:
    """Many candidates of few users, histories of 0, 1, 63 and 100 steps."""
    artifact = small_artifact(max_history=100, model=name, hidden=11)
    random = np.random.default_rng(0)
    known = np.append(CATALOGUE, UNKNOWN_ITEM)
    inputs = [
        ScoreInput(random.choice(known, candidates), random.choice(known, steps), context={"tab": 1})
        for candidates, steps in ((1, 0), (401, 100), (3, 1), (0, 63), (7, 63), (63, 1))
    ]
    assert_same(Scorer(artifact, device="cpu").score(inputs), of_network(artifact, inputs), 1e-5)


@pytest.mark.parametrize("form", ["bilinear", "unit"])
@pytest.mark.parametrize("name", ATTENDING)
def test_attention_is_the_networks(name: str, form: str) -> None:
    artifact = small_artifact(model=name, attention=form)
    scorer, schema, model = Scorer(artifact, device="cpu"), artifact.schema, artifact.model()
    one = ScoreInput(CATALOGUE[:5], CATALOGUE[3:13])
    assert scorer.attends
    weights = scorer.attention(one)
    assert weights.shape == (5, 6)
    assert isinstance(model, Attending)
    inputs = padded_inputs(schema, one)
    with torch.inference_mode():
        keys = model.interests(model.behaviors(inputs), inputs.lengths)
        if name == "gru_attention":
            assert isinstance(model, Recurrent)
            keys = model.get_submodule("second")(keys, torch.ones(6, 5), inputs.lengths)
        due = model.attend(keys, model.embeddings.items(inputs.target), inputs.lengths)
    np.testing.assert_allclose(weights, due.t().numpy(), rtol=1e-5, atol=1e-5)
    assert np.allclose(weights.sum(1), 1, atol=1e-5) is not ((name, form) == ("din", "unit"))
    assert float(np.ptp(weights)) > 0.02
    assert scorer.attention(ScoreInput([100, 103])).shape == (2, 0)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(ATTENDING)))
def test_a_model_without_attention_says_so(name: str) -> None:
    scorer = Scorer(small_artifact(model=name), device="cpu")
    assert not scorer.attends
    with pytest.raises(ScoreInputError, match=r"^model: .* has no attention$"):
        scorer.attention(ScoreInput([100], [103]))


@pytest.mark.parametrize("name", MODELS)
def test_a_scorer_tells_its_model_and_its_size(name: str) -> None:
    artifact = small_artifact(model=name)
    scorer = Scorer(artifact, device="cpu", backend="reference")
    assert (scorer.architecture, scorer.parameters) == (name, artifact.parameters)
    hidden = " hidden 8" if MODELS[name].recurrent else ""
    title = MODELS[name].title + (" augru" if name == "dien" else "")
    told = f"{title}{hidden}, {artifact.parameters:,} parameters, reference kernels (exact) on cpu"
    assert scorer.description == told
