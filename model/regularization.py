"""Mini-batch aware regularisation: L2 on the embedding rows that occur, at a cost that no vocabulary adds to.

M impressions, B rows, T steps, V rows of a table, n_j in how many samples of the training data row j occurs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.batches import Batcher
from model.data.dataset import IntArray
from model.embeddings import Embeddings, Inputs
from model.layers import mask

REGULARIZATIONS = ("l2", "batch_aware", "none")
CHUNK = 4096  # impressions that are counted at once

Counts = npt.NDArray[np.float64]


class BatchAware:
    """λ/2 · Σ_j α_mj / n_j ‖w_j‖² over the rows j of all tables of an objective (DIN section 5.1).

    α_mj is 1 where some sample of the batch m has row j among its own features: user, context, target and real
    behaviours; negatives of the auxiliary loss are none. So an epoch decays a row about once, however frequent it is.
    Gradients of the tables become sparse; with `SparseAdam` a step then touches the rows of its batch alone.
    """

    def __init__(self, objective: nn.Module, train: Batcher, strength: float, unknown_rate: float = 0.0) -> None:
        """Counts once, over the training split; `unknown_rate` is the share of ids that batches make unknown."""
        self.embeddings = [module for module in objective.modules() if isinstance(module, Embeddings)]
        device = next(objective.parameters()).device
        self._scale = {
            name: torch.from_numpy(strength / np.maximum(counts, 1)).to(device)
            for name, counts in occurrences(train, unknown_rate).items()
        }
        for table in self._tables():
            table.sparse = True

    def _tables(self) -> Iterable[nn.Embedding]:
        return (part for one in self.embeddings for part in one.modules() if isinstance(part, nn.Embedding))

    def __call__(self, inputs: Inputs) -> Tensor:
        """The penalty, a scalar, of a batch."""
        parts = []
        for embeddings in self.embeddings:
            for name, rows in occurring(embeddings, inputs).items():
                distinct = torch.unique(rows)
                values: Tensor = embeddings.tables[name](distinct)
                scale = self._scale[name][distinct].to(values.dtype)
                parts.append((scale * values.square().sum(1)).sum() / 2)
        return torch.stack(parts).sum()

    def optimizers(self, groups: list[dict[str, Any]], learning_rate: float) -> list[torch.optim.Optimizer]:
        """Adam for what is dense among the `groups`, and its lazy form for the tables: moments of absent rows stay."""
        tables = [table.weight for table in self._tables()]
        sparse = {id(weight) for weight in tables}
        dense = [group | {"params": [one for one in group["params"] if id(one) not in sparse]} for group in groups]
        return [
            torch.optim.Adam([group for group in dense if group["params"]], lr=learning_rate, fused=True),
            torch.optim.SparseAdam(tables, lr=learning_rate),
        ]


def occurring(embeddings: Embeddings, inputs: Inputs) -> dict[str, Tensor]:
    """Rows that a batch's samples have of each table, in any order and number."""
    real = mask(inputs.lengths, inputs.history.shape[1]).t()
    items = embeddings.item_rows[torch.cat([inputs.target, inputs.history[real]])]
    found = {name: items[:, place] for place, name in enumerate(embeddings.item_fields)}
    found |= {name: inputs.context[:, place] for place, name in enumerate(embeddings.context_fields)}
    found |= {"user_id": inputs.user, "action": inputs.actions[real]}
    return {name: rows for name, rows in found.items() if name in embeddings.tables}


def occurrences(train: Batcher, unknown_rate: float = 0.0) -> dict[str, Counts]:
    """n_j of every row of every table: in how many training impressions it occurs, once or more, `[V]`.

    Of the unknown's row what is expected of ids made unknown comes on top. A negative that an epoch draws counts for
    nothing.
    """
    schema = train.schema
    sizes = {name: len(vocabulary) for name, vocabulary in schema.vocabularies.items()}
    sizes |= {"action": len(schema.actions) + 1} if schema.actions else {}
    counts = {name: np.zeros(size) for name, size in sizes.items()}
    for begin in range(0, len(train), CHUNK):
        rows = np.arange(begin, min(begin + CHUNK, len(train)))
        lengths = train.end[rows] - train.start[rows]
        steps = np.arange(int(lengths.max(initial=0)))
        real = steps < lengths[:, None]
        place = np.where(real, train.start[rows, None] + steps, -1)
        items = schema.item_rows[np.concatenate([train.target[rows, None], train.history[place]], axis=1)]
        there = np.concatenate([np.ones((len(rows), 1), dtype=bool), real], axis=1)
        found = {name: np.where(there, items[:, :, n], -1) for n, name in enumerate(schema.item_fields)}
        found |= {name: train.context[rows, n : n + 1] for n, name in enumerate(schema.context_fields)}
        if train.user is not None:
            found["user_id"] = train.user[rows, None]
        if schema.actions:
            found["action"] = np.where(real, train.actions[place], -1)
        for name, ids in found.items():
            counts[name] += np.bincount(_distinct(ids), minlength=sizes[name])
    for each in counts.values():
        each[0] = min(len(train), each[0] + unknown_rate * each[1:].sum())
    return counts


def _distinct(ids: IntArray) -> IntArray:
    """Of each row of `ids [B, X]` the different ones that are not negative, end to end."""
    ordered = np.sort(ids, axis=1)
    first = ordered >= 0
    first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return ordered[first]
