"""The network's configuration and its parts; its numbers are checked in test_numpy_reference."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from small_models import small_artifact, small_model
from torch import nn

from model.batches import Batch, Batcher
from model.bench import Case, check, padded, random_requests
from model.config import ConfigError, ModelConfig, settings_of
from model.data import TRAIN, DataSet
from model.embeddings import Embeddings, Inputs
from model.features import FeatureSchema, Vocabulary, fit_schema
from model.layers import mask
from model.scorer import Scorer
from model.zoo.auxiliary import AuxiliaryNet
from model.zoo.dien import Dien

SMALL = ModelConfig(hidden=8, embedding=4, head=(6, 5))


def batch_of(data: DataSet, schema: FeatureSchema) -> Batch:
    batcher = Batcher(data, schema, TRAIN)
    return batcher.batch(np.arange(len(batcher)), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, r"^hidden=0: from 1 to 4096$"),
        ({"embedding": 4097}, r"^embedding=4097: from 1 to 4096$"),
        ({"head": ()}, r"^head=\(\): one to eight widths"),
        ({"head": (1,) * 9}, r"^head=\(1, .*\): one to eight widths"),
        ({"head": (8, 0)}, r"^head=\(8, 0\): one to eight widths from 1 to 4096$"),
        ({"initial_deviation": -0.1}, r"^initial_deviation=-0.1: finite"),
        ({"initial_deviation": float("nan")}, r"^initial_deviation=nan: finite"),
        ({"cell": "gru"}, r"^cell='gru': one of augru, agru, aigru, augru_released, for model=dien$"),
        ({"activation": "relu"}, r"^activation='relu': one of dice, prelu$"),
        ({"auxiliary": "yes"}, r"^auxiliary='yes': one of net, inner, none, for model=dien$"),
    ],
)
def test_configuration_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**settings)


def test_configuration_goes_through_json() -> None:
    config = ModelConfig(hidden=108, head=(9, 7), cell="agru", activation="prelu", auxiliary="inner")
    settings = json.loads(json.dumps(settings_of(config)))
    assert set(settings) == set(ModelConfig.__slots__)
    assert ModelConfig(**(settings | {"head": tuple(settings["head"])})) == config
    ModelConfig(hidden=1, embedding=4096, head=(4096,) * 8, initial_deviation=0.0)


@pytest.mark.parametrize("name", ["user_id", "action", "a.b", "values", "item_id"])
def test_a_field_whose_name_is_taken(name: str) -> None:
    schema = fit_schema(made_up_data())
    other = replace(
        schema, context_fields=(name,), vocabularies={**schema.vocabularies, name: Vocabulary(np.arange(3))}
    )
    with pytest.raises(ConfigError, match=f"^field '{name}': "):
        Dien(other, SMALL)


def test_tables_are_those_of_the_schema() -> None:
    data = made_up_data()
    schema = fit_schema(data)
    embeddings = Embeddings(schema, 4, 0.3)
    sizes = {name: table.num_embeddings for name, table in embeddings.tables.items() if isinstance(table, nn.Embedding)}
    assert sizes == {name: len(vocabulary) for name, vocabulary in schema.vocabularies.items()} | {"action": 4}
    weights = torch.cat([parameter.flatten() for parameter in embeddings.parameters()])
    assert weights.std().item() == pytest.approx(0.3, rel=0.2)
    assert (embeddings.item_width, embeddings.action_width, embeddings.side_width) == (12, 4, 12)
    assert "item_rows" not in embeddings.state_dict()
    bare = Embeddings(fit_schema(made_up_data(actions=False), user_id=False, context=[]), 4, 0.3)
    assert (bare.item_width, bare.action_width, bare.side_width) == (12, 0, 0)
    assert bare.side(torch.zeros(3, dtype=torch.int64), torch.zeros(3, 0, dtype=torch.int64)).shape == (3, 0)


def test_items_of_one_category_share_its_row() -> None:
    data = made_up_data()
    schema = fit_schema(data)
    embeddings = Embeddings(schema, 4, 0.3)
    rows = torch.arange(len(schema.item_rows))
    items = embeddings.items(rows)
    for n in range(len(schema.item_fields)):
        part = items[:, 4 * n : 4 * n + 4]
        for one in rows:
            same = torch.from_numpy(schema.item_rows[:, n] == schema.item_rows[one, n])
            assert torch.equal((part == part[one]).all(dim=1), same)
    assert torch.equal(embeddings.behaviors(rows[:4], rows[:4])[:, :12], items[:4])


def test_the_light_net_and_its_booster_may_share_embeddings() -> None:
    schema = fit_schema(made_up_data())
    booster = Dien(schema, ModelConfig(hidden=12, embedding=4, head=(6,)))
    light = Dien(schema, SMALL, booster.embeddings)
    assert light.embeddings is booster.embeddings
    assert Dien(schema, SMALL).embeddings is not booster.embeddings


def test_losses_and_their_parts() -> None:
    data = made_up_data()
    schema = fit_schema(data)
    batch = batch_of(data, schema)
    torch.manual_seed(0)
    model = Dien(schema, SMALL).eval()
    losses = model.losses(batch.inputs, batch.following, batch.clicks)
    torch.testing.assert_close(losses["logits"], model(batch.inputs))
    p = torch.sigmoid(losses["logits"])
    by_hand = -(batch.clicks * p.log() + (1 - batch.clicks) * (1 - p).log()).mean()
    torch.testing.assert_close(losses["target"], by_hand)
    assert losses["auxiliary"].item() == pytest.approx(2 * np.log(2), rel=0.1)  # nothing is learnt yet
    without = Dien(schema, replace(SMALL, auxiliary="none"))
    assert without.auxiliary is None
    assert set(without.losses(batch.inputs, batch.following, batch.clicks)) == {"logits", "target"}


def test_weight_decay_is_for_embeddings_alone() -> None:
    model = Dien(fit_schema(made_up_data()), SMALL)
    embedded, rest = model.parameter_groups(0.125)
    assert (embedded["weight_decay"], rest["weight_decay"]) == (0.125, 0.0)
    numbers = [id(parameter) for group in (embedded, rest) for parameter in group["params"]]
    assert sorted(numbers) == sorted(id(parameter) for parameter in model.parameters())
    assert {id(parameter) for parameter in embedded["params"]} == {id(p) for p in model.embeddings.parameters()}


def test_mask() -> None:
    assert mask(torch.tensor([0, 2, 3]), 3).t().tolist() == [[False] * 3, [True, True, False], [True] * 3]
    assert mask(torch.tensor([0, 2]), 0).shape == (0, 2)


def test_attention_of_huge_products_and_of_nothing() -> None:
    """A softmax of -inf alone would be NaN, and of huge products must not overflow."""
    model = Dien(fit_schema(made_up_data()), SMALL)
    target, lengths = torch.full((3, 12), 1e3), torch.tensor([2, 0, 3])
    states = torch.randn(3, 3, 8).sign() * 1e5
    a = model.attend(states, target, lengths)
    assert torch.isfinite(a).all()
    torch.testing.assert_close(a.sum(0), torch.tensor([1.0, 0.0, 1.0]))
    assert a[2, 0] == 0
    assert not a[:, 1].any()


def test_the_inner_product_maps_only_where_widths_differ() -> None:
    states, items = torch.randn(4, 12), torch.randn(4, 12)
    same = AuxiliaryNet("inner", 12, 12)
    assert not list(same.parameters())
    torch.testing.assert_close(same(states, items)[:, 0], (states * items).sum(1))
    mapped = AuxiliaryNet("inner", 5, 12)
    assert mapped(states[:, :5], items).shape == (4, 1)
    net = AuxiliaryNet("net", 5, 12)
    sizes = [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [100, 100, 50, 1]


@pytest.mark.parametrize("activation", ["dice", "prelu"])
@pytest.mark.parametrize("cell", ["augru", "agru", "aigru"])
def test_a_step_in_mixed_precision(cell: str, activation: str) -> None:
    """Close to the step in float32, with gradients and statistics in float32."""
    data = made_up_data()
    schema = fit_schema(data)
    batch = batch_of(data, schema)
    torch.manual_seed(0)
    config = replace(SMALL, cell=cell, activation=activation, initial_deviation=0.3)
    model = Dien(schema, config)
    gradients, losses = [], []
    for mixed in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            parts = model.losses(batch.inputs, batch.following, batch.clicks)
            loss = parts["target"] + parts["auxiliary"]
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    one, other = (torch.cat([gradient.flatten() for gradient in of]) for of in gradients)
    assert one.dtype == other.dtype == torch.float32
    assert float((one - other).norm() / one.norm()) < 0.05
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_inputs_past_the_length_are_anything() -> None:
    data = made_up_data()
    schema = fit_schema(data)
    inputs = batch_of(data, schema).inputs
    model = Dien(schema, SMALL).eval()
    padding = ~mask(inputs.lengths, inputs.history.shape[1]).t()
    other = Inputs(*inputs[:3], inputs.history + 3 * padding, inputs.actions + padding, inputs.lengths)
    assert padding.any()
    with torch.inference_mode():
        assert torch.equal(model(inputs), model(other))


@pytest.mark.parametrize("inner", [False, True])
def test_the_released_codes_gate(inner: bool) -> None:
    """Its own terms: a gate that keeps, scaled by 1 - a (`VecAttGRUCell`); row by row over real steps alone."""
    model = small_model(fit_schema(made_up_data()), cell="augru_released", inner_bias=inner)
    assert isinstance(model, Dien)
    lengths = [0, 1, 3, 5]
    states, attention = torch.randn(5, 4, 8).double(), torch.rand(5, 4).double()
    with torch.no_grad():
        model.double()
        found = model.evolve(states, attention, torch.tensor(lengths)).numpy()
        w_input, w_recurrent, bias, bias_candidate = (part.numpy() for part in model.evolution.weights())
    for row, length in enumerate(lengths):
        state = np.zeros(8)
        for t in range(length):
            x, h = states[t, row].numpy() @ w_input + bias, state @ w_recurrent
            keep = 1 - 1 / (1 + np.exp(-x[:8] - h[:8]))
            reset = 1 / (1 + np.exp(-x[8:16] - h[8:16]))
            keep = (1 - attention[t, row].item()) * keep
            state = keep * state + (1 - keep) * np.tanh(x[16:] + reset * (h[16:] + bias_candidate))
        np.testing.assert_allclose(found[row], state, atol=1e-12)


def test_the_released_codes_gate_is_served_as_it_is_trained() -> None:
    artifact = small_artifact(cell="augru_released")
    requests = random_requests(artifact, Case(3, 7, 5))
    assert check(Scorer(artifact, device="cpu"), artifact.model(), requests, padded(artifact, requests)) < 1e-5
