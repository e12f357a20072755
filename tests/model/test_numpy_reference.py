"""Every layer of the model and the whole of it against the equations written once more in NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy_dien import NumpyDien, Row, attention, final_interest, interest_states
from torch import Tensor

from kernels import CELLS
from model.config import ModelConfig
from model.embeddings import Inputs
from model.features import FeatureSchema, Vocabulary
from model.zoo.auxiliary import Following
from model.zoo.dien import Dien

SIZES = [([1], 8), ([0, 3, 63], 32), ([100] * 5, 108), ([0], 8), ([0, 0, 0], 32), ([1, 0], 8), ([2, 5, 0, 1], 108)]
TOLERANCES: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-11},
    torch.float32: {"rtol": 2e-4, "atol": 2e-5},
}


def schema(*, actions: bool = True, side: bool = True, items: int = 30) -> FeatureSchema:
    generator = np.random.default_rng(1)
    ids = np.arange(items, dtype=np.int64)
    rows = np.stack([np.arange(items + 1), generator.integers(0, 6, items + 1)], axis=1)
    vocabularies = {"item_id": Vocabulary(ids), "category": Vocabulary(ids[:5])}
    if side:
        vocabularies |= {"tab": Vocabulary(ids[:3]), "hour": Vocabulary(ids[:24]), "user_id": Vocabulary(ids[:7])}
    return FeatureSchema(
        catalogue=Vocabulary(ids),
        item_fields=("item_id", "category"),
        item_rows=rows,
        vocabularies=vocabularies,
        context_fields=("tab", "hour") if side else (),
        actions=("shown", "click") if actions else (),
        default_action="click" if actions else None,
    )


def network(of: FeatureSchema, config: ModelConfig, dtype: torch.dtype) -> Dien:
    """A network in inference whose every weight and moving statistic is far from its initial value."""
    torch.manual_seed(7)
    model = Dien(of, config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("variance"):
                tensor.uniform_(0.3, 2.0)
            else:
                tensor.normal_(std=0.5 if "tables" in name else 0.25)
    return model.eval().to(dtype)


def padded(of: FeatureSchema, lengths: list[int], *, more: int = 0) -> tuple[Inputs, list[Row]]:
    """A batch whose padding is rubbish, `more` steps longer than need be, and the same without padding."""
    generator = np.random.default_rng(len(lengths))
    rows, steps = len(lengths), max(*lengths, 1) + more
    items, actions = len(of.item_rows), len(of.actions) + 1
    inputs = Inputs(
        user=torch.from_numpy(generator.integers(0, 8, rows)),
        context=torch.from_numpy(np.stack([generator.integers(0, 4, rows), generator.integers(0, 25, rows)], 1)),
        target=torch.from_numpy(generator.integers(0, items, rows)),
        history=torch.from_numpy(generator.integers(0, items, (rows, steps))),
        actions=torch.from_numpy(generator.integers(0, actions, (rows, steps))),
        lengths=torch.tensor(lengths),
    )
    if not of.context_fields:
        inputs = inputs._replace(context=inputs.context[:, :0])
    single = [
        Row(
            int(inputs.user[n]),
            inputs.context[n].tolist(),
            int(inputs.target[n]),
            inputs.history[n, :length].tolist(),
            inputs.actions[n, :length].tolist(),
        )
        for n, length in enumerate(lengths)
    ]
    return inputs, single


def close(got: Tensor, expected: npt.ArrayLike, dtype: torch.dtype) -> None:
    np.testing.assert_allclose(got.detach().numpy(), np.asarray(expected), **TOLERANCES[dtype])


def twin(model: Dien, of: FeatureSchema) -> NumpyDien:
    return NumpyDien(model, of.item_rows, of.item_fields, of.context_fields)


@pytest.mark.parametrize("gradient", [True, False], ids=["written out scan", "plain scan"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("lengths", "hidden"), SIZES)
def test_layer_by_layer(lengths: list[int], hidden: int, dtype: torch.dtype, gradient: bool) -> None:
    of = schema()
    model = network(of, ModelConfig(hidden=hidden, embedding=6, head=(9, 5)), dtype)
    truth = twin(model, of)
    inputs, rows = padded(of, lengths, more=2)
    with torch.set_grad_enabled(gradient):
        behaviors = model.behaviors(inputs)
        states = model.interests(behaviors, inputs.lengths)
        target = model.embeddings.items(inputs.target)
        a = model.attend(states, target, inputs.lengths)
        final = model.evolve(states, a, inputs.lengths)
    assert states.dtype == a.dtype == final.dtype == dtype
    for n, row in enumerate(rows):
        length = lengths[n]
        of_row = truth.behaviors(row)
        close(behaviors[:length, n], of_row, dtype)
        close(target[n], truth.item(row.target), dtype)
        own = interest_states(truth.part("extractor"), of_row)
        close(states[:length, n], own, dtype)
        last = own[-1] if length else np.zeros(hidden)
        close(states[length:, n], np.tile(last, (len(states) - length, 1)), dtype)
        of_a = attention(own, truth.all["attention.weight"], truth.item(row.target))
        close(a[:length, n], of_a, dtype)
        assert not a[length:, n].any()
        close(final[n], final_interest(truth.part("evolution"), own, of_a, "augru"), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("lengths", "hidden"), SIZES)
def test_the_whole_network(lengths: list[int], hidden: int, cell: str, dtype: torch.dtype) -> None:
    of = schema()
    model = network(of, ModelConfig(hidden=hidden, embedding=6, cell=cell, head=(9, 5)), dtype)
    inputs, rows = padded(of, lengths)
    with torch.inference_mode():
        logits = model(inputs)
    truth = twin(model, of)
    expected = [truth.logit(row, cell, 2, "dice") for row in rows]
    close(logits, expected, dtype)


@pytest.mark.parametrize("actions", [True, False])
@pytest.mark.parametrize("side", [True, False])
@pytest.mark.parametrize("kind", ["dice", "prelu"])
def test_the_network_with_and_without_optional_inputs(kind: str, side: bool, actions: bool) -> None:
    of = schema(actions=actions, side=side)
    config = ModelConfig(hidden=8, embedding=6, head=(9, 5, 4), activation=kind)
    model = network(of, config, torch.float64)
    inputs, rows = padded(of, [4, 0, 2])
    truth = twin(model, of)
    expected = [truth.logit(row, "augru", 3, kind) for row in rows]
    close(model(inputs), expected, torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("form", "embedding"), [("net", 6), ("inner", 6), ("inner", 4)])
@pytest.mark.parametrize("lengths", [[1], [0, 3, 63], [2, 1, 0], [30] * 4, [0, 0]])
def test_the_auxiliary_loss(lengths: list[int], form: str, embedding: int, dtype: torch.dtype) -> None:
    """With an embedding of 4 the item is as wide as the state, and the inner product needs no map."""
    of = schema()
    model = network(of, ModelConfig(hidden=8, embedding=embedding, auxiliary=form, head=(5,)), dtype)
    assert model.auxiliary is not None
    assert hasattr(model.auxiliary, "map") == (form == "inner" and embedding == 6)
    inputs, rows = padded(of, lengths)
    generator = torch.Generator().manual_seed(3)
    shape = inputs.history.shape
    real = torch.arange(shape[1]) < inputs.lengths[:, None]
    following = Following(
        chosen=real & (torch.rand(shape, generator=generator) < 0.6),
        negatives=torch.randint(0, len(of.item_rows), shape, generator=generator),
        against=real & (torch.rand(shape, generator=generator) < 0.7),
    )
    losses = model.losses(inputs, following, torch.zeros(len(lengths), dtype=dtype))
    chosen, negatives, against = (part.tolist() for part in following)
    expected = twin(model, of).auxiliary_loss(form, rows, chosen, negatives, against)
    close(losses["auxiliary"], expected, dtype)
