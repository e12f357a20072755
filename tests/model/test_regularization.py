"""Mini-batch aware regularisation against the whole computation, and training with it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_data
from small_models import small_model
from test_training import QUICK, same, trainer, weights
from torch import Tensor, nn
from written_data import write_impressions

from model.batches import Batcher
from model.config import ConfigError
from model.data import TRAIN, DataSet, open_data
from model.distill import RocketObjective
from model.embeddings import Embeddings, Inputs
from model.features import FeatureSchema, fit_schema
from model.objective import ClickObjective
from model.regularization import BatchAware, occurrences
from model.training import TrainConfig, Trainer, evaluate
from model.workers import Workers

CPU = torch.device("cpu")
SHARE = pytest.mark.parametrize("bare", [False, True])


def features_of(schema: FeatureSchema, batcher: Batcher, row: int) -> set[tuple[str, int]]:
    """The rows that one impression has, by a loop over its history."""
    past = range(batcher.start[row], batcher.end[row])
    items = [batcher.target[row], *(batcher.history[n] for n in past)]
    found = {(name, int(schema.item_rows[item, n])) for item in items for n, name in enumerate(schema.item_fields)}
    found |= {(name, int(batcher.context[row, n])) for n, name in enumerate(schema.context_fields)}
    if batcher.user is not None:
        found.add(("user_id", int(batcher.user[row])))
    if schema.actions:
        found |= {("action", int(batcher.actions[n])) for n in past}
    return found


def made_up(bare: bool) -> tuple[FeatureSchema, Batcher, list[set[tuple[str, int]]]]:
    data = made_up_data(actions=not bare, context=not bare)
    schema = fit_schema(data, max_history=5, user_id=not bare)
    batcher = Batcher(data, schema, TRAIN)
    return schema, batcher, [features_of(schema, batcher, row) for row in range(len(batcher))]


@SHARE
def test_occurrences_are_counted_once_a_sample(bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, batcher, samples = made_up(bare)
    by_hand = Counter(pair for sample in samples for pair in sample)
    monkeypatch.setattr("model.regularization.CHUNK", 7)
    counts = occurrences(batcher)
    assert counts.keys() == schema.vocabularies.keys() | ({"action"} if schema.actions else set())
    for name, found in counts.items():
        assert found.tolist() == [by_hand[name, row] for row in range(len(found))]
    assert max(counts["item_id"]) >= 20
    more = occurrences(batcher, 0.25)
    known = counts["item_id"][1:].sum()
    assert more["item_id"][0] == min(len(batcher), counts["item_id"][0] + 0.25 * known)
    assert np.array_equal(more["item_id"][1:], counts["item_id"][1:])


def of_batch(batcher: Batcher, rows: Any) -> Inputs:
    return batcher.batch(np.array(rows), np.random.default_rng(0)).inputs


@SHARE
def test_the_penalty_and_its_gradient_are_those_of_all_rows(bare: bool) -> None:
    """Against λ α_j / n_j w_j over the whole of every table, in float64."""
    schema, batcher, samples = made_up(bare)
    model = small_model(schema, model="base").double()
    penalty = BatchAware(ClickObjective(model, 0.0), batcher, 0.3)
    counts = Counter(pair for sample in samples for pair in sample)
    for rows in ([0, 3, 5], [7], range(len(batcher))):
        alpha = set().union(*(samples[row] for row in rows))
        model.zero_grad()
        value = penalty(of_batch(batcher, list(rows)))
        value.backward()  # type: ignore[no-untyped-call]
        due = 0.0
        for name, table in model.embeddings.tables.items():
            weight: Tensor = table.weight  # type: ignore[assignment]
            assert weight.grad is not None
            assert weight.grad.is_sparse
            whole = torch.zeros_like(weight)
            for row in range(len(weight)):
                if (name, row) in alpha:
                    due += 0.15 / counts[name, row] * weight[row].square().sum().item()
                    whole[row] = 0.3 / counts[name, row] * weight[row].detach()
            torch.testing.assert_close(weight.grad.to_dense(), whole, rtol=1e-12, atol=1e-15)
        assert value.item() == pytest.approx(due, rel=1e-12)


@pytest.mark.parametrize("share", [True, False])
def test_tables_of_two_nets_are_each_counted_once(share: bool) -> None:
    schema, batcher, _ = made_up(False)
    booster, light = small_model(schema, 1, hidden=9), small_model(schema, 2)
    if share:
        light.embeddings = booster.embeddings
    penalty = BatchAware(RocketObjective(light, booster, hint_weight=0.1, auxiliary_weight=0.1), batcher, 0.3)
    inputs = of_batch(batcher, [1, 2, 3])
    alone = [BatchAware(one, batcher, 0.3)(inputs).item() for one in (booster, light)]
    assert penalty(inputs).item() == pytest.approx(alone[0] if share else sum(alone))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return open_data(write_impressions(tmp_path_factory.mktemp("data")))


AWARE: dict[str, Any] = {"regularization": "batch_aware", "embedding_decay": 0.05}


def test_training_with_it(data: DataSet, tmp_path: Path) -> None:
    how = AWARE | {"epochs": 3, "batch_size": 32}
    runs = [trainer(data, tmp_path / str(n), **(how | {"embedding_decay": n})) for n in (0.0, 1.0)]
    sizes = []
    for run in runs:
        facts = run.run()
        assert facts["steps"] == run.total
        assert evaluate(run.objective.served, run.dev, CPU)["auc"] > 0.7
        sizes.append(sum(table.square().sum().item() for table in run.objective.served.embeddings.parameters()))
    assert sizes[1] < 0.7 * sizes[0]


def test_a_step_leaves_rows_that_do_not_occur(data: DataSet, tmp_path: Path) -> None:
    """Also of the optimiser nothing moves them; the coupled decay moves all."""
    run = trainer(data, tmp_path / "aware", shape={"model": "pnn"}, **AWARE)
    decayed = trainer(data, tmp_path / "l2", shape={"model": "pnn"}, embedding_decay=0.05)
    before = weights(run)
    for one in (run, decayed):
        for batch in list(one.train.epoch(4, 0, 0))[:2]:
            losses, _ = one._train_step(one.objective, batch, False)
        assert ("regularization" in losses) is (one is run)
    name = "served.embeddings.tables.user_id.weight"
    still = [(tables[name] == before[name]).all(dim=1) for tables in (weights(run), weights(decayed))]
    assert 30 < int(still[0].sum()) < len(before[name])
    assert not still[1].any()


def test_a_run_with_it_goes_on_as_if_it_had_not_stopped(data: DataSet, tmp_path: Path) -> None:
    whole, part = (trainer(data, tmp_path / name, shape={"model": "din"}, **AWARE) for name in ("whole", "part"))
    whole.run()
    step = Trainer._train_step

    def stopping(self: Trainer, module: nn.Module, batch: Any, asked: bool) -> Any:
        return step(self, module, batch, self.step + 1 == 7)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            part.run()
    again = trainer(data, tmp_path / "part", shape={"model": "din"}, **AWARE)
    again.resume()
    again.run()
    assert same(weights(again), weights(whole))


def test_none_is_no_decay(data: DataSet, tmp_path: Path) -> None:
    off = trainer(data, tmp_path / "off", regularization="none", embedding_decay=0.5)
    zero = trainer(data, tmp_path / "zero", embedding_decay=0.0)
    for run in (off, zero):
        run.run()
    assert same(weights(off), weights(zero))


def test_what_cannot_be_is_refused(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^regularization='l1': l2 or batch_aware or none$"):
        TrainConfig(regularization="l1")
    run = trainer(data, tmp_path, **AWARE)
    parts = run.objective, run.train, run.dev, TrainConfig(**(QUICK | AWARE)), tmp_path
    with pytest.raises(ConfigError, match=r"^regularization=batch_aware: one worker, not 2$"):
        Trainer(*parts, settings={}, workers=Workers(0, 2))


def test_embeddings_are_sparse_only_with_it(data: DataSet, tmp_path: Path) -> None:
    for number, (more, sparse) in enumerate([(AWARE, True), ({}, False)]):
        run = trainer(data, tmp_path / str(number), **more)
        (embeddings,) = (part for part in run.objective.modules() if isinstance(part, Embeddings))
        assert {part.sparse for part in embeddings.modules() if isinstance(part, nn.Embedding)} == {sparse}
        assert len(run.optimizers) == 1 + sparse
