"""What a training step costs with few items and with many: the coupled decay of all rows, and that of the batch's.

`PYTHONPATH=. .venv/bin/python tests/model/regularization_bench.py`. The penalty is checked against the whole
computation before anything is timed; figures are the least of all steps, in milliseconds of one core. The last line
is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from model.batches import Batch, Batcher
from model.config import ModelConfig
from model.data import DEV, TRAIN, Behaviors, DataSet, Impressions, Items
from model.features import FeatureSchema, Vocabulary
from model.objective import ClickObjective, Objective
from model.regularization import REGULARIZATIONS, BatchAware, occurrences
from model.training import TrainConfig, Trainer
from model.zoo import make_network

VOCABULARIES, CHECKED = (10_000, 1_000_000), 500
BATCH, BATCHES, PAST, STRENGTH = 256, 8, 50, 0.01
ROUNDS = 5


def made_up(items: int) -> tuple[DataSet, FeatureSchema]:
    """Impressions of users with `PAST` behaviours, and a row for each item.

    As many items occur whatever there are, spread over all, so that only the table differs.
    """
    random = np.random.default_rng(0)
    users, ids = np.arange(BATCH * BATCHES), np.arange(items)
    count, occurring = len(users), ids[:: max(items // VOCABULARIES[0], 1)]
    offsets, past = np.arange(count + 1) * PAST, random.choice(occurring, count * PAST)
    behaviors = Behaviors(users, offsets, past, np.zeros(count * PAST, dtype=np.int64))
    splits = np.full(count, TRAIN, dtype=np.int8)
    clicks = random.integers(0, 2, count).astype(np.int8)
    shown = Impressions(users, random.choice(occurring, count), np.ones(count, dtype=np.int64), clicks, splits)
    item_rows = np.arange(items + 1).reshape(-1, 1)
    vocabulary = Vocabulary(ids)
    schema = FeatureSchema(vocabulary, ("item_id",), item_rows, {"item_id": vocabulary}, max_history=PAST)
    return DataSet("made up", Items(ids, {}), behaviors, shown), schema


def trainer(items: int, regularization: str, folder: Path) -> Trainer:
    """A run of BaseModel, not begun."""
    data, schema = made_up(items)
    torch.manual_seed(0)
    objective = ClickObjective(make_network(schema, ModelConfig(model="base")), 0.0)
    config = TrainConfig(
        batch_size=BATCH, regularization=regularization, embedding_decay=STRENGTH, unknown_rate=0, epochs=9
    )
    train, dev = (Batcher(data, schema, split) for split in (TRAIN, DEV))
    return Trainer(objective, train, dev, config, folder, settings={})


def check() -> float:
    """How far the penalty's gradient is from λ α_j / n_j w_j over the whole table, as a share of it."""
    data, schema = made_up(CHECKED)
    batcher = Batcher(data, schema, TRAIN)
    objective = ClickObjective(make_network(schema, ModelConfig(model="base")), 0.0)
    inputs = batcher.batch(np.arange(9), np.random.default_rng(0)).inputs
    BatchAware(objective, batcher, STRENGTH)(inputs).backward()  # type: ignore[no-untyped-call]
    weight: Any = objective.served.embeddings.tables["item_id"].weight
    alpha = torch.zeros(CHECKED + 1)
    alpha[torch.cat([inputs.target, inputs.history.flatten()])] = 1
    due = (
        STRENGTH
        * (alpha / torch.from_numpy(occurrences(batcher)["item_id"]).clamp(min=1)).unsqueeze(1)
        * weight.detach()
    )
    return float((weight.grad.to_dense() - due).norm() / due.norm())


def least_ms(call: Callable[[Batch], object], batches: list[Batch]) -> float:
    """Of calls with each batch in turn."""
    times = []
    for batch in batches * ROUNDS:
        begun = time.process_time()
        call(batch)
        times.append((time.process_time() - begun) * 1e3)
    return round(min(times), 2)


def measure(items: int) -> dict[str, float]:
    """A whole step under each regularisation, and the penalty alone with its gradient."""
    found = {}
    for regularization in REGULARIZATIONS:
        with TemporaryDirectory() as folder:
            run = trainer(items, regularization, Path(folder))
        batches = list(run.train.epoch(BATCH, 0, 0))
        found[regularization] = least_ms(lambda batch, of=run: of._train_step(of.objective, batch, False), batches)  # type: ignore[misc]
        penalty = run.regularization
        if penalty is not None:

            def alone(batch: Batch, of: BatchAware = penalty, objective: Objective = run.objective) -> None:
                objective.zero_grad()
                of(batch.inputs).backward()  # type: ignore[no-untyped-call]

            found["penalty alone"] = least_ms(alone, batches)
    return found


def main() -> None:
    """Check, measure, tell."""
    torch.set_num_threads(1)
    off = check()
    if not off < 1e-6:
        raise SystemExit(f"the penalty's gradient is off by {off:.1e}")
    results = {items: measure(items) for items in VOCABULARIES}
    print(f"ms a step of {BATCH} rows, {PAST} behaviours each; {torch.get_num_threads()} thread")
    print(f"{'rows of the table':18}" + "".join(f"{name:>15}" for name in next(iter(results.values()))))
    for items, found in results.items():
        print(f"{items:<18,}" + "".join(f"{value:>15.2f}" for value in found.values()))
    print(json.dumps({"torch": torch.__version__, "gradient_off": off, "ms": results}))


if __name__ == "__main__":
    main()
