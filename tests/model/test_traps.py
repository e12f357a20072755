"""Mistakes that public implementations of DIEN have made, one test each."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import STRANGER, made_up_data
from torch import Tensor

import kernels
from kernels.reference import step
from model.batches import Batch, Batcher
from model.config import ModelConfig
from model.data import DEV, TEST, TRAIN, DataSet
from model.data.dataset import IntArray
from model.data.sequences import draw, popularity
from model.embeddings import Embeddings, Inputs
from model.features import FeatureSchema, fit_schema, seen_in_training
from model.layers import Dice, Gru
from model.objective import ClickObjective
from model.training import TrainConfig, Trainer
from model.zoo.auxiliary import AuxiliaryNet, Following, auxiliary_loss
from model.zoo.dien import Dien

SMALL: dict[str, Any] = {"hidden": 8, "embedding": 4, "head": (6, 5), "initial_deviation": 0.7}


def made_up(**other: Any) -> tuple[DataSet, FeatureSchema, Dien]:
    """Data, schema, and a small network whose statistics are not those it starts with."""
    data = made_up_data()
    schema = fit_schema(data)
    torch.manual_seed(0)
    model = Dien(schema, ModelConfig(**(SMALL | other))).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    for module in model.modules():
        if isinstance(module, Dice):
            module.mean.normal_()
            module.variance.uniform_(0.5, 2)
    return data, schema, model.eval()


def whole(data: DataSet, schema: FeatureSchema, split: int = TRAIN, negatives: str = "sampled") -> Batch:
    batcher = Batcher(data, schema, split, negatives=negatives)
    return batcher.batch(np.arange(len(batcher)), np.random.default_rng(0))


def longer(part: Tensor, steps: int, filling: int) -> Tensor:
    return F.pad(part, (0, steps), value=filling)


def padded(inputs: Inputs, steps: int) -> Inputs:
    """The same with so many more steps of padding, and rubbish in it."""
    return inputs._replace(history=longer(inputs.history, steps, 3), actions=longer(inputs.actions, steps, 1))


def of_length(data: DataSet, schema: FeatureSchema, *lengths: int) -> Batch:
    """The training rows with the longest histories, cut to these lengths."""
    batcher = Batcher(data, schema, TRAIN)
    order = np.argsort(batcher.start - batcher.end, kind="stable")[: len(lengths)]
    batcher.start[order] = batcher.end[order] - np.array(lengths)
    return batcher.batch(order, np.random.default_rng(0))


def test_no_attention_no_step() -> None:
    """The released code's AUGRU keeps with (1 - a)·u, so that a = 0 still moves the state; the paper's keeps all."""
    torch.manual_seed(0)
    weights = Gru(4, 4).double().weights()
    projected, state, a = torch.randn(3, 12).double(), torch.randn(3, 4).double(), torch.zeros(3, 1).double()
    assert torch.equal(step(projected, state, weights, "augru", a), state)
    assert torch.equal(step(projected, state, weights, "agru", a), state)

    def released(a: Tensor) -> Tensor:
        new = step(projected, state, weights, "agru", torch.ones(3, 1).double())
        keep = (1 - a) * torch.sigmoid(projected[:, :4] + (state @ weights.w_recurrent)[:, :4])
        return keep * state + (1 - keep) * new

    assert (released(a) - state).abs().max() > 0.1
    # And at a = 1 the released cell forgets everything, where the paper's is a plain GRU.
    plain = step(projected, state, weights, "gru")
    torch.testing.assert_close(step(projected, state, weights, "augru", a + 1), plain)
    assert (released(a + 1) - plain).abs().max() > 0.1
    # Once more through the public operation: a second step without attention changes no bit.
    states, query = torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0]]).double(), torch.zeros(2, 4).double()
    query[:, 0] = 1000
    with torch.inference_mode():
        final = kernels.evolve(states, torch.tensor([0, 2, 3]), query, torch.tensor([0, 1]), weights)
    assert torch.equal(final[0], final[1])


@pytest.mark.parametrize("form", ["net", "inner"])
def test_auxiliary_mean_is_over_real_steps(form: str) -> None:
    """A mean over padding as well makes the loss depend on the longest history of the batch."""
    data, schema, model = made_up(auxiliary=form)
    batch = whole(data, schema)

    def loss(steps: int) -> Tensor:
        following = Following(
            longer(batch.following.chosen, steps, 0),
            longer(batch.following.negatives, steps, 2),
            longer(batch.following.against, steps, 0),
        )
        return model.losses(padded(batch.inputs, steps), following, batch.clicks.double())["auxiliary"]

    torch.testing.assert_close(loss(0), loss(40), rtol=1e-12, atol=0.0)
    pairs = int((batch.inputs.lengths - 1).clamp(min=0).sum())
    assert pairs < batch.inputs.history[:, 1:].numel() / 2
    assert batch.following.chosen[:, 1:].sum() == pairs
    summed: Tensor = torch.zeros(1).double()
    for n in range(len(batch.clicks)):
        one = Batch(Inputs(*(part[n : n + 1] for part in batch.inputs)), batch.following, batch.clicks[n : n + 1])
        following = Following(*(part[n : n + 1] for part in batch.following))
        mean = model.losses(one.inputs, following, one.clicks.double())["auxiliary"]
        summed = summed + mean * max(int(one.inputs.lengths) - 1, 0)
    torch.testing.assert_close(loss(0), (summed / pairs)[0], rtol=1e-12, atol=0.0)


def test_auxiliary_loss_has_both_classes() -> None:
    """log σ for what was chosen, log(1 - σ) for what was not: with log σ twice the second term is -log σ(-1)."""
    table = torch.tensor([[0.0], [2.0], [-1.0], [3.0]]).double()
    states = torch.ones(1, 2, 1).double()
    items, negatives = torch.tensor([[1, 3]]), torch.tensor([[2, 1]])
    net = AuxiliaryNet("inner", 1, 1)

    def loss(chosen: list[bool], against: list[bool]) -> float:
        following = Following(torch.tensor([chosen]), negatives, torch.tensor([against]))
        return float(auxiliary_loss(net, states, table[items], following, lambda rows: table[rows]))

    def log_sigmoid(x: float) -> float:
        return float(-np.log1p(np.exp(-x)))

    pairs = -(log_sigmoid(2) + log_sigmoid(1)) / 1
    assert loss([True, False], [True, False]) == pytest.approx(pairs, rel=1e-12)
    four = -(log_sigmoid(2) + log_sigmoid(1) + log_sigmoid(3) + log_sigmoid(-2)) / 2
    assert loss([True, True], [True, True]) == pytest.approx(four, rel=1e-12)
    assert loss([True, True], [False, True]) == pytest.approx(
        -(log_sigmoid(2) + log_sigmoid(3) + log_sigmoid(-2)) / 1.5, rel=1e-12
    )
    assert loss([False, False], [False, False]) == 0.0


@pytest.mark.parametrize("form", ["net", "inner"])
def test_auxiliary_loss_reaches_the_weights(form: str) -> None:
    """A framework may drop an added loss silently: its gradient must be in that of what is minimised."""
    data, schema, model = made_up(auxiliary=form)
    model.train()
    batch = whole(data, schema)
    batch = Batch(batch.inputs, batch.following, batch.clicks.double())

    def gradients(weight: float) -> dict[str, Tensor]:
        model.zero_grad()
        losses = ClickObjective(model, weight)(batch)
        torch.testing.assert_close(losses["loss"], losses["target"] + weight * losses["auxiliary"])
        torch.autograd.backward(losses["loss"])
        return {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        }

    without, once, twice = gradients(0.0), gradients(1.0), gradients(2.0)
    assert set(once) == {name for name, _ in model.named_parameters()}
    for name in once:
        torch.testing.assert_close(twice[name] - without[name], 2 * (once[name] - without[name]))
    moved = {name for name in once if not torch.allclose(once[name], without[name])}
    assert {name for name in once if name.startswith("auxiliary")} <= moved
    assert {"extractor.w_input", "extractor.w_recurrent", "extractor.bias", "embeddings.tables.item_id.weight"} <= moved
    assert "evolution.w_input" not in moved


@pytest.mark.parametrize("cell", kernels.CELLS)
@pytest.mark.parametrize("lengths", [(0, 0, 0, 0), (5, 0, 0, 0), (0,), (1,)], ids=str)
def test_histories_all_empty_or_exactly_one_not(lengths: tuple[int, ...], cell: str) -> None:
    """Two libraries crash on a batch whose histories are all empty, or all but one."""
    data, schema, model = made_up(cell=cell)
    batch = of_length(data, schema, *lengths)
    assert batch.inputs.lengths.tolist() == list(lengths)
    losses = model.train().losses(batch.inputs, batch.following, batch.clicks.double())
    (losses["target"] + losses["auxiliary"]).backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(value).all() for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    with torch.inference_mode():
        logits = model.eval()(batch.inputs)
        assert torch.isfinite(logits).all()
        alone = [model(Inputs(*(part[n : n + 1] for part in batch.inputs))) for n in range(len(lengths))]
        torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-10, atol=1e-12)
        behaviors = model.behaviors(batch.inputs)
        states = model.interests(behaviors, batch.inputs.lengths)
        target = model.embeddings.items(batch.inputs.target)
        final = model.evolve(states, model.attend(states, target, batch.inputs.lengths), batch.inputs.lengths)
    assert final.any(dim=1).tolist() == [length > 0 for length in lengths]


def test_histories_of_length_one_have_no_auxiliary_pair() -> None:
    """There is nothing that a first and only behaviour could foretell."""
    data, schema, model = made_up()
    batch = of_length(data, schema, 1, 1, 1)
    losses = model.losses(batch.inputs, batch.following, batch.clicks.double())
    assert losses["auxiliary"].item() == 0.0
    wider = padded(batch.inputs, 3)
    following = Following(*(longer(part, 3, 0) for part in batch.following))
    assert model.losses(wider, following, batch.clicks.double())["auxiliary"].item() == 0.0
    two = of_length(data, schema, 2, 1, 1)
    assert model.losses(two.inputs, two.following, two.clicks.double())["auxiliary"].item() > 0.0


@pytest.mark.parametrize("negatives", ["sampled", "shown"])
@pytest.mark.parametrize("exposures", [True, False])
def test_negatives_are_never_the_positive(exposures: bool, negatives: str) -> None:
    """Drawn from the whole catalogue, a negative may be the positive itself."""
    items = popularity(np.array([1, 1, 1, 1, 1, 1, 2, 3]))
    avoid = np.repeat([1, 2, 3, 4], 2000)
    drawn = draw(items, avoid, np.random.default_rng(0))
    assert not np.any(drawn == avoid)
    assert set(drawn[avoid == 4].tolist()) == {1, 2, 3}
    for seed in range(3):
        data = made_up_data(seed, items=5, actions=exposures, sampled_negatives=True)
        batcher = Batcher(data, fit_schema(data), TRAIN, negatives=negatives)
        pairs = 0
        for epoch in range(10):
            for batch in batcher.epoch(20, seed=seed, epoch=epoch):
                asked = batch.following.chosen & batch.following.against
                assert not (batch.following.negatives == batch.inputs.history)[asked].any()
                pairs += int(asked.sum())
        assert pairs >= 50


def after_training(data: DataSet, generator: np.random.Generator) -> DataSet:
    """The data set with everything of the test days changed: users, items, contexts and clicks of its impressions."""
    rows = data.impressions
    test = rows.splits == TEST

    def other(values: IntArray) -> IntArray:
        changed = values.copy()
        changed[test] = generator.choice(np.append(values, 777_777), int(test.sum()))
        return changed

    clicks = rows.clicks.copy()
    clicks[test] = 1 - clicks[test]
    changed = replace(
        rows,
        user_ids=other(rows.user_ids),
        item_ids=other(rows.item_ids),
        clicks=clicks,
        context={name: other(values) for name, values in rows.context.items()},
    )
    return replace(data, impressions=changed)


def test_best_weights_are_picked_on_dev_alone(tmp_path: Path) -> None:
    """Whatever the test days hold, the run and the weights that it keeps are the same."""
    data = made_up_data(impressions=200)
    config = TrainConfig(epochs=2, batch_size=16, evaluations=3, learning_rate=0.05)
    weights, facts = [], []
    for number, of in enumerate([data, after_training(data, np.random.default_rng(0))]):
        schema = fit_schema(of)
        torch.manual_seed(0)
        objective = ClickObjective(Dien(schema, ModelConfig(**SMALL)), 0.1)
        folder = tmp_path / str(number)
        folder.mkdir()
        train, dev = Batcher(of, schema, TRAIN), Batcher(of, schema, DEV)
        trainer = Trainer(objective, train, dev, config, folder, settings={})
        facts.append(trainer.run()["best_step"])
        best = max(trainer.history, key=lambda entry: entry["auc"])
        assert facts[-1] == best["step"]
        weights.append(objective.state_dict())
    assert facts[0] == facts[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_unknown_user_is_nobody_known() -> None:
    """An unknown test user mapped to the first row would be scored as a real one."""
    data, schema, model = made_up()
    users = schema.vocabularies["user_id"]
    assert STRANGER not in users.ids
    assert users.rows(STRANGER) == users.rows(-(2**40)) == 0
    known = users.rows(users.ids)
    assert sorted(known.tolist()) == list(range(1, len(users)))
    batcher = Batcher(data, schema, TEST)
    strange = np.flatnonzero(batcher.impressions.user_ids == STRANGER)
    assert len(strange)
    batch = batcher.batch(strange, np.random.default_rng(0))
    assert not batch.inputs.user.any()
    with torch.inference_mode():
        scores = model(batch.inputs)
        for row in known.tolist():
            assert not torch.isclose(
                model(batch.inputs._replace(user=torch.full_like(batch.inputs.user, row))), scores
            ).any()


def test_no_statistic_comes_from_later_days() -> None:
    """Vocabularies, counts and popularity of negatives are those of training, whatever comes after it."""
    data = made_up_data()
    changed = after_training(data, np.random.default_rng(1))
    unseen = ~seen_in_training(data)
    later = data.behaviors.item_ids.copy()
    later[unseen] = np.random.default_rng(2).choice(data.items.item_ids, int(unseen.sum()))
    assert not np.array_equal(later, data.behaviors.item_ids)
    changed = replace(changed, behaviors=replace(data.behaviors, item_ids=later))
    for min_count in (1, 3):
        schema, other = fit_schema(data, min_count=min_count), fit_schema(changed, min_count=min_count)
        assert np.array_equal(schema.item_rows, other.item_rows)
        assert set(schema.vocabularies) == set(other.vocabularies)
        for name, vocabulary in schema.vocabularies.items():
            assert np.array_equal(vocabulary.ids, other.vocabularies[name].ids), name
    for one, two in zip(
        Batcher(data, schema, TRAIN).frequencies, Batcher(changed, schema, TRAIN).frequencies, strict=True
    ):
        assert np.array_equal(one, two)
    before, after = whole(data, schema), whole(changed, schema)
    assert all(torch.equal(one, two) for one, two in zip(before.inputs, after.inputs, strict=True))


def test_the_network_can_be_exported() -> None:
    """`pack_padded_sequence` would make it impossible; with ONNX and other batch sizes in test_export."""
    data, schema, model = made_up()
    inputs = of_length(data, schema, 4, 0).inputs
    program = torch.export.export(model, (inputs,))
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(inputs), model(inputs))


def test_hidden_size_is_free_of_the_embedding_size() -> None:
    """108 to 32 over one embedding table, whatever its width; also where the auxiliary loss is an inner product."""
    data = made_up_data()
    schema, batch = fit_schema(data), whole(data, fit_schema(data))
    embeddings = Embeddings(schema, 5, 0.1)
    for hidden in (1, 15, 32, 108):
        for form in ("net", "inner"):
            model = Dien(schema, ModelConfig(hidden=hidden, embedding=5, auxiliary=form), embeddings)
            losses = model.losses(batch.inputs, batch.following, batch.clicks)
            assert torch.isfinite(losses["target"] + losses["auxiliary"])
            assert model.interests(model.behaviors(batch.inputs), batch.inputs.lengths).shape[2] == hidden


@pytest.mark.parametrize("cell", kernels.CELLS)
def test_a_score_is_independent_of_its_neighbors(cell: str) -> None:
    """Batch statistics at inference make a score depend on what else is in the batch; so may the padding."""
    data, schema, model = made_up(cell=cell)
    inputs = whole(data, schema, TEST).inputs
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        together = model(inputs)
        alone = torch.cat([model(Inputs(*(part[n : n + 1] for part in inputs))) for n in range(len(together))])
        cut = [
            model(
                Inputs(*(part[n : n + 1] for part in inputs))._replace(
                    history=inputs.history[n : n + 1, :length], actions=inputs.actions[n : n + 1, :length]
                )
            )
            for n, length in enumerate(inputs.lengths.clamp(min=1).tolist())
        ]
        more = model(padded(inputs, 30))
    near = {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(alone, together, rtol=near["rtol"], atol=near["atol"])
    torch.testing.assert_close(torch.cat(cut), together, rtol=near["rtol"], atol=near["atol"])
    torch.testing.assert_close(more, together, rtol=near["rtol"], atol=near["atol"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.allclose(model.train()(inputs), together)  # in training it does depend
