"""Interest evolution step by step, as explained, against the equations in float64 and the scores served."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import made_up_data
from numpy_dien import NumpyDien, Row
from small_models import small_artifact

from model.artifact import Artifact
from model.config import RELEASED
from model.scorer import ScoreInput, ScoreInputError, Scorer

CATALOGUE = made_up_data().items.item_ids
ONE = ScoreInput(CATALOGUE[:5], CATALOGUE[3:13], context={"tab": 1}, user_id=3)
STEPS = 6  # of the longest history that counts


def row_of(artifact: Artifact, item: int) -> Row:
    """What `ONE` is to a candidate, in rows of tables."""
    schema = artifact.schema
    return Row(
        user=int(schema.vocabularies["user_id"].rows(3)),
        context=[int(schema.vocabularies["tab"].rows(1)), 0],
        target=int(schema.catalogue.rows(item)),
        history=schema.catalogue.rows(ONE.history)[-STEPS:].tolist(),
        actions=[schema.actions.index("click") + 1] * STEPS,
    )


@pytest.mark.parametrize("cell", ["augru", "agru", "aigru"])
@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_every_step_is_that_of_the_equations(cell: str, budget: int) -> None:
    artifact = small_artifact(cell=cell)
    plain = NumpyDien(
        artifact.model(), artifact.schema.item_rows, artifact.schema.item_fields, artifact.schema.context_fields
    )
    scorer = Scorer(artifact, device="cpu", table_budget=budget)
    evolution = scorer.evolution(ONE)
    layers, activation = len(artifact.config.head), artifact.config.activation
    rows = [row_of(artifact, int(item)) for item in ONE.item_ids]
    logits = [[plain.logit(row, cell, layers, activation, steps) for steps in range(STEPS + 1)] for row in rows]
    np.testing.assert_allclose(evolution.probabilities, 1 / (1 + np.exp(-np.array(logits))), rtol=0, atol=1e-6)
    assert np.ptp(evolution.probabilities, axis=1).min() > 0.01
    np.testing.assert_allclose(evolution.attention, scorer.attention(ONE), atol=1e-6)
    assert evolution.update.shape == evolution.moved.shape == (5, STEPS)


@pytest.mark.parametrize("shape", [{}, {"cell": RELEASED}, {"attention": "unit"}, {"hidden": 108}])
def test_it_ends_at_the_score(shape: dict[str, Any]) -> None:
    scorer = Scorer(small_artifact(**shape), device="cpu")
    for one in (ONE, replace(ONE, history=CATALOGUE[:1]), replace(ONE, history=())):
        evolution = scorer.evolution(one)
        np.testing.assert_allclose(evolution.probabilities[:, -1], scorer.score([one])[0], rtol=0, atol=1e-6)
        assert evolution.update.shape == (5, min(len(one.history), STEPS))
    assert scorer.evolution(replace(ONE, item_ids=[])).probabilities.shape == (0, STEPS + 1)


def test_a_gate_that_attention_closes_moves_nothing() -> None:
    """AGRU's update is the attention itself, AUGRU's no more than that, and the state moves no further than it lets."""
    for cell, most in (("agru", 1e-6), ("augru", 1.0)):
        evolution = Scorer(small_artifact(cell=cell), device="cpu").evolution(ONE)
        below = evolution.attention - evolution.update
        assert below.min() > -1e-6
        assert below.max() <= most
        # No unit of a state, nor of what it moves towards, is beyond 1: the way is at most 2 in each.
        assert (evolution.moved <= 2 * np.sqrt(8 * evolution.update)).all()
        assert evolution.moved.min() > 0


def test_a_model_without_evolution_says_so() -> None:
    scorer = Scorer(small_artifact(model="din"), device="cpu")
    assert not scorer.evolves
    with pytest.raises(ScoreInputError, match="model: DIN has no interest evolution"):
        scorer.evolution(ONE)
