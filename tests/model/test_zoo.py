"""Every model of the zoo: against NumPy, in parts and by size; what a scorer makes of it is in test_zoo_scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from numpy_dien import Row
from numpy_zoo import NumpyZoo
from small_models import small_model
from test_numpy_reference import TOLERANCES, close, padded
from test_numpy_reference import schema as numpy_schema

from kernels import CELLS
from model.artifact import load_artifact, of_model, save_artifact
from model.artifact_checks import architecture_part, shapes_of
from model.batches import Batch, Batcher
from model.config import MODELS, ConfigError, ModelConfig
from model.data import TRAIN
from model.embeddings import Inputs
from model.features import FeatureSchema, fit_schema
from model.layers import Dice
from model.zoo import ZOO, Network, make_network
from model.zoo.auxiliary import Following
from model.zoo.din import Din

BUNDLED = Path(__file__).parents[2] / "model" / "artifacts" / "kuairand"
ATTENDING = [name for name, definition in MODELS.items() if len(definition.attention) > 1]
# Every model as it is defined, and those with attention in its other form.
SHAPES: list[dict[str, Any]] = [
    *({"model": name} for name in MODELS),
    *({"model": name, "attention": MODELS[name].attention[1]} for name in ATTENDING),
    {"model": "dien", "cell": "aigru", "attention": "unit"},
    *({"model": "dien", "cell": cell, "inner_bias": True} for cell in CELLS),
    {"model": "dien", "attention": "unit", "inner_bias": True},
    {"model": "gru_attention", "inner_bias": True},
]
ALL = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))


def network(of: FeatureSchema, dtype: torch.dtype = torch.float64, **shape: Any) -> Network:
    return small_model(of, 7, **({"embedding": 4, "head": (9, 5)} | shape)).eval().to(dtype)


def batch_of(seed: int = 0) -> tuple[FeatureSchema, Batch]:
    data = made_up_data(seed)
    schema = fit_schema(data, max_history=6)
    batcher = Batcher(data, schema, TRAIN)
    return schema, batcher.batch(np.arange(40), np.random.default_rng(0))


def test_the_zoo_is_the_table_of_the_comparison() -> None:
    names = "base", "wide_deep", "pnn", "din", "gru_attention", "aigru", "agru", "augru", "dien"
    assert tuple(MODELS) == tuple(ZOO) == names
    for name in names:
        config = ModelConfig(model=name)
        assert config.auxiliary == ("net" if name == "dien" else "none")
        assert config.cell == (name if name in ("aigru", "agru", "augru") else "augru" if name == "dien" else "none")
    assert ModelConfig(model="din").attention == "unit"
    assert {ModelConfig(model=name).attention for name in names[4:]} == {"bilinear"}
    assert ModelConfig() == ModelConfig(model="dien", cell="augru", attention="bilinear", auxiliary="net")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "fm"}, r"^model='fm': one of base, wide_deep, pnn, "),
        ({"model": "base", "cell": "agru"}, r"^cell='agru': one of none, for model=base$"),
        ({"model": "augru", "cell": "agru"}, r"^cell='agru': one of augru, for model=augru$"),
        ({"model": "pnn", "attention": "unit"}, r"^attention='unit': one of none, for model=pnn$"),
        ({"attention": "none"}, r"^attention='none': one of bilinear, unit, for model=dien$"),
    ],
)
def test_what_a_model_has_not_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**settings)


@ALL
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_logits_are_those_of_the_equations(shape: dict[str, Any], dtype: torch.dtype) -> None:
    for lengths in ([1], [0, 3, 63], [0, 0], [2, 5, 0, 1]):
        for activation in ("dice", "prelu"):
            of = numpy_schema(actions=len(lengths) > 1, side=len(lengths) > 2)
            model = network(of, dtype, **shape, activation=activation)
            inputs, rows = padded(of, lengths, more=2)
            with torch.inference_mode():
                logits = model(inputs)
            assert logits.dtype == dtype
            truth = NumpyZoo(model, of, model.config)
            close(logits, [truth.score_logit(row) for row in rows], dtype)


@ALL
def test_a_score_depends_on_no_neighbour_and_no_padding(shape: dict[str, Any]) -> None:
    schema, batch = batch_of()
    model = network(schema, **shape)
    inputs = batch.inputs
    with torch.inference_mode():
        together = model(inputs)
        alone = torch.cat([model(Inputs(*(part[n : n + 1] for part in inputs))) for n in range(len(together))])
        blank = torch.ones(len(together), 5, dtype=torch.int64)
        longer = (torch.cat([part, blank], dim=1) for part in (inputs.history, inputs.actions))
        more = model(inputs._replace(**dict(zip(("history", "actions"), longer, strict=True))))
    assert float(together.std()) > 0.1
    torch.testing.assert_close(alone, together, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(more, together, rtol=1e-11, atol=1e-12)
    if model.config.activation == "dice":
        assert not torch.allclose(model.train()(inputs), together)  # in training statistics are the batch's


def parameters(name: str, hidden: int, d: int) -> int:
    """By hand, for the made-up data: 3 fields of an item, actions, user and 2 contexts; a head of 9 and 5."""
    item, behavior, side = 3 * d, 4 * d, 3 * d
    gru = {"extractor": 3 * hidden * (behavior + hidden + 1), "upper": 3 * hidden * (2 * hidden + 1)}
    unit = 80 * (3 * item + behavior) + 80 + 40 * 80 + 40 + 40 + 1 + 80 + 40  # with Dice's α of each unit
    inputs = side + item + behavior
    own = {"base": 0, "pnn": 0, "wide_deep": 2 * item + behavior + 1, "din": unit}
    inputs += 0 if name in ("base", "wide_deep") else item
    inputs += behavior if name == "din" else hidden if name not in own else 0
    own_of = own.get(name, gru["extractor"] + gru["upper"] + hidden * item)
    return own_of + 9 * (inputs + 1) + 9 + 5 * 10 + 5 + 5 + 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("hidden", "embedding"), [(8, 5), (7, 3)])
def test_the_number_of_parameters(name: str, hidden: int, embedding: int) -> None:
    schema = fit_schema(made_up_data())
    model = small_model(schema, model=name, hidden=hidden, embedding=embedding, head=(9, 5), auxiliary="net")
    rows = sum(len(vocabulary) for vocabulary in schema.vocabularies.values()) + len(schema.actions) + 1
    artifact = of_model("small", model, schema, {}, {})
    assert artifact.parameters == parameters(name, hidden, embedding) + rows * embedding
    served = sum(part.numel() for part in artifact.model().parameters())
    assert served == artifact.parameters < sum(part.numel() for part in model.parameters())
    assert artifact.title.endswith(f" {served:,} parameters")


@ALL
def test_artifacts_keep_what_a_model_is(shape: dict[str, Any], tmp_path: Path) -> None:
    schema = fit_schema(made_up_data())
    model = small_model(schema, **shape, auxiliary="inner")
    artifact = of_model("small", model, schema, {}, {})
    assert not any("auxiliary" in name for name in artifact.weights)
    assert shapes_of(schema, model.config) == {name: tuple(one.shape) for name, one in artifact.weights.items()}
    save_artifact(artifact, tmp_path / "small")
    loaded = load_artifact(tmp_path / "small")
    assert loaded.config == model.config
    inputs = batch_of()[1].inputs
    with torch.inference_mode():
        assert torch.equal(loaded.model()(inputs), model.eval()(inputs))


def test_the_bundled_artifact_is_read_as_it_was_written(tmp_path: Path) -> None:
    """It is older than the zoo; what is written of it today is the same to the version."""
    artifact = load_artifact(BUNDLED)
    assert artifact.config == ModelConfig()
    assert architecture_part(artifact.config).keys() == {
        *("kind", "hidden", "embedding", "cell", "head", "activation", "auxiliary", "initial_deviation")
    }
    assert save_artifact(artifact, tmp_path / "kuairand") == artifact.version == "f7f6ce8f9e1f"


@pytest.mark.parametrize("form", ["net", "inner"])
@pytest.mark.parametrize("name", MODELS)
def test_the_auxiliary_loss_beside_any_model(name: str, form: str) -> None:
    """Of the model's own states where it has some, else of a GRU's beside it, which scores nothing."""
    schema, batch = batch_of()
    model = network(schema, model=name, auxiliary=form)
    clicks = batch.clicks.double()
    losses = model.losses(batch.inputs, batch.following, clicks)
    truth = NumpyZoo(model, schema, model.config)
    total, terms = 0.0, 0
    history, actions, lengths = (part.tolist() for part in batch.inputs[3:])
    chosen, negatives, against = (part.tolist() for part in batch.following)
    for n, length in enumerate(lengths):
        states = truth.of_auxiliary(Row(0, (), 0, history[n][:length], actions[n][:length]))
        for t in range(length - 1):
            for asked, item, sign in ((chosen, history, 1), (against, negatives, -1)):
                if asked[n][t + 1]:
                    x = sign * truth.foretells(form, states[t], truth.item(item[n][t + 1]))
                    total, terms = total + float(np.logaddexp(0, -x)), terms + 1
    assert terms > 20
    close(losses["auxiliary"], total / (terms / 2), torch.float64)
    own = "auxiliary.extractor.w_input" in model.state_dict()
    assert own is not MODELS[name].recurrent
    losses["auxiliary"].backward()  # type: ignore[no-untyped-call]
    assert model.embeddings.tables["item_id"].weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
    without = network(schema, model=name, auxiliary="none")
    without.load_state_dict({key: one for key, one in model.state_dict().items() if not key.startswith("auxiliary")})
    assert torch.equal(without(batch.inputs), losses["logits"])
    assert set(without.losses(batch.inputs, batch.following, clicks)) == {"logits", "target"}


@ALL
def test_a_step_when_nobody_has_a_history(shape: dict[str, Any]) -> None:
    schema, batch = batch_of()
    model = small_model(schema, **shape, auxiliary="net").train()
    nobody = batch.inputs._replace(lengths=torch.zeros_like(batch.inputs.lengths))
    nothing = Following(*(torch.zeros_like(part) for part in batch.following))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = model.losses(nobody, nothing, batch.clicks)
    (losses["target"] + losses["auxiliary"]).backward()  # type: ignore[no-untyped-call]
    assert losses["auxiliary"].item() == 0
    assert all(part.grad is None or torch.isfinite(part.grad).all() for part in model.parameters())
    for name, value in model.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved is (name.startswith("head.") and name.endswith((".mean", ".variance"))), name


def test_the_unit_counts_real_steps_alone() -> None:
    """Dice's statistics in training are of pairs that there are, however long the batch's longest history is."""
    schema, batch = batch_of()
    models = [small_model(schema, model="din").train() for _ in range(2)]
    inputs = batch.inputs
    blank = torch.ones(len(inputs.user), 30, dtype=torch.int64)
    more = inputs._replace(history=torch.cat([inputs.history, blank], 1), actions=torch.cat([inputs.actions, blank], 1))
    torch.testing.assert_close(models[0](inputs), models[1](more))
    for one, other in zip(models[0].buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)
    model = models[0].eval()
    assert isinstance(model, Din)
    with torch.inference_mode():
        weights = model.attend(model.behaviors(inputs), model.embeddings.items(inputs.target), inputs.lengths)
    assert weights.min() < -0.1  # not normalised
    assert (weights.sum(0) - 1).abs().max() > 0.1


def test_dice_of_no_row() -> None:
    layer = Dice(3).train()
    assert layer(torch.zeros(0, 3)).shape == (0, 3)
    assert not layer.mean.any()


@pytest.mark.parametrize("name", ["din", "wide_deep", "gru_attention"])
def test_a_step_in_mixed_precision(name: str) -> None:
    schema, batch = batch_of()
    model = make_network(schema, replace(ModelConfig(model=name, auxiliary="net"), initial_deviation=0.3, hidden=8))
    found = []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            losses = model.losses(batch.inputs, batch.following, batch.clicks)
        model.zero_grad()
        (losses["target"] + losses["auxiliary"]).backward()  # type: ignore[no-untyped-call]
        found.append(torch.cat([part.grad.flatten() for part in model.parameters() if part.grad is not None]))
    assert found[1].dtype == torch.float32
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 0.05
