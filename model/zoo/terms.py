"""Terms of a network that depend on an item or on side features alone: tables, or computed where those would not fit.

R requests, K side fields (context and user), W width of the head's first layer.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from model.embeddings import Embeddings
from model.layers import Dice, Mlp


class ItemTerm:
    """Item embeddings or a linear map of them: a table over the catalogue, or computed where it would not fit."""

    def __init__(
        self, embeddings: Embeddings, tabled: bool, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        self._embeddings, self._weight, self._bias = embeddings, weight, bias
        self.width = embeddings.item_width if weight is None else weight.shape[1]
        rows = torch.arange(len(embeddings.item_rows), device=embeddings.item_rows.device)
        self.table = self._compute(rows) if tabled else None

    def _compute(self, rows: Tensor) -> Tensor:
        terms = self._embeddings.items(rows)
        if self._weight is not None:
            terms = terms @ self._weight
        return terms if self._bias is None else terms + self._bias

    def __call__(self, rows: Tensor) -> Tensor:
        """`[...]` rows of the catalogue to `[..., width]`."""
        return self._compute(rows) if self.table is None else F.embedding(rows, self.table)


class SideTerm:
    """What the first layer makes of context and user: rows of one table, or computed where that would not fit."""

    def __init__(self, embeddings: Embeddings, weight: Tensor, budget: int) -> None:
        self._embeddings, self._weight = embeddings, weight
        self._with_user = "user_id" in embeddings.tables
        names = [*embeddings.context_fields, *(["user_id"] if self._with_user else [])]
        parts = list(torch.split(weight, embeddings.width)) if names else []
        parts = parts[1:] + parts[:1] if self._with_user else parts  # the network has the user first
        tables: list[Tensor] = [embeddings.tables[name].weight for name in names]  # type: ignore[misc]
        sizes = [len(table) for table in tables]
        self.table: Tensor | None = None
        self.first_rows: dict[str, int] = {}
        if 4 * sum(sizes) * weight.shape[1] <= budget:
            terms = [table @ part for table, part in zip(tables, parts, strict=True)]
            self.table = torch.cat(terms) if terms else weight.new_zeros(0, weight.shape[1])
            self.first_rows = dict(zip(names, np.cumsum([0, *sizes]).tolist(), strict=False))

    def __call__(self, side: Tensor) -> Tensor:
        """`[R, K]` rows of the table, or of each field's own where there is none, to `[R, W]`."""
        if self.table is not None:
            return F.embedding(side, self.table).sum(1)
        context, user = (side[:, :-1], side[:, -1]) if self._with_user else (side, side)
        return self._embeddings.side(user, context) @ self._weight


def head_weights(head: Mlp, multiplied: Tensor) -> kernels.HeadWeights:
    """The head as the kernels take it: of its first layer what is multiplied for each candidate, [E + H, W]."""
    layers = []
    for number, (linear, act) in enumerate(zip(head.layers, head.activations, strict=True)):
        weight: Tensor = linear.weight.t() if number else multiplied  # type: ignore[operator]
        bias: Tensor = linear.bias  # type: ignore[assignment]
        if isinstance(act, Dice):
            rest = act.alpha, act.mean, torch.rsqrt(act.variance + act.epsilon)
        else:
            rest = act.weight, torch.zeros_like(bias), torch.zeros_like(bias)  # type: ignore[assignment]
        layers.append(kernels.HeadLayer(weight, bias, *rest))
    output = head.output
    return kernels.HeadWeights(
        tuple(layers), output.weight[0], output.bias, "dice" if isinstance(head.activations[0], Dice) else "prelu"
    )
