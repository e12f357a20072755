"""A whole network in one call of the native backend: rows of tables, interest states, evolution, head, sigmoid.

`gru`, `evolve` and `head` compute the same from tensors, one after the other, on any backend. Between them stand a
dozen small operations of torch, each a few microseconds of code that is no longer in the processor's caches when its
turn comes: for one candidate they take several times as long as the arithmetic. Here is nothing between.

U histories, N behaviours of them end to end, R requests, C candidates, I items, A actions, S rows of side features, K
side features of a request; H hidden, E width of an item's embedding, D of an action's, W of the head's first layer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.backends import resolve_backend
from kernels.contract import (
    CELLS,
    PRECISIONS,
    GruWeights,
    KernelInputError,
    check_choice,
    check_finite,
    check_gru,
    check_like,
    check_options,
    check_tensors,
)
from kernels.heads import HeadWeights, check_head_weights

Index = npt.NDArray[np.int64]


class Tables(NamedTuple):
    """What a network knows of every item and action, by row."""

    projected: Tensor  # [I, 3H] input projection of the interest states, bias included
    queries: Tensor  # [I, H]
    targets: Tensor  # [I, W] the item's term of the head's first layer
    embeddings: Tensor  # [I, E]
    projected_actions: Tensor | None  # [A, 3H], added to that of the item; None without actions
    action_embeddings: Tensor | None  # [A, D]
    of_pooled: Tensor  # [E + D, W] of the head's first layer what the mean of the behaviours is multiplied with


class Batch(NamedTuple):
    """One call's rows and pointers, contiguous int64 on the host."""

    behaviors: Index  # [N] rows of items
    actions: Index  # [N] rows of actions; not read without actions
    offsets: Index  # [U + 1]
    candidates: Index  # [C] rows of items
    history_of: Index  # [C] of which history
    request_of: Index  # [C] of which request
    history_of_request: Index  # [R]
    side: Index  # [R, K] rows of the side table, which are added up


class Fused:
    """A network made ready. Holds its weights and tables, which must not be changed; safe in any thread."""

    def __init__(
        self,
        tables: Tables,
        extractor: GruWeights,
        evolution: GruWeights,
        head: HeadWeights,
        *,
        cell: str = "augru",
        precision: str = "exact",
    ) -> None:
        """Raises KernelInputError for what does not fit, BackendUnavailableError without the native backend."""
        check_choice("cell", cell, CELLS)
        check_choice("precision", precision, PRECISIONS)
        _check_network(tables, extractor, evolution, head)
        resolve_backend("native", tables.projected.device.type, tables.projected.dtype, evolution.hidden)
        from kernels.native import fuse

        own = Tables(*(None if part is None else part.detach().contiguous() for part in tables))  # type: ignore[arg-type]
        self._width = own.targets.shape[1]
        # The extension reads tables and recurrent weights where they lie: `_kept` keeps them.
        self._call, self._kept = fuse(own, extractor, evolution, head, cell, precision)

    def __call__(self, batch: Batch, side_table: Tensor, *, threads: int | None = None) -> npt.NDArray[np.float32]:
        """Click probabilities `[C]`. `side_table [S, W]` are the terms of side features.

        Raises KernelInputError naming the part and the rule for a wrong shape, dtype or value.
        """
        check_options("native", threads)
        if (
            side_table.dtype != torch.float32
            or not side_table.is_cpu
            or side_table.dim() != 2
            or side_table.shape[1] != self._width
        ):
            raise KernelInputError(f"side_table: float32 [S, {self._width}] on the CPU, not {list(side_table.shape)}")
        side_table = side_table.contiguous()
        out = np.empty(len(batch.candidates), dtype=np.float32)
        number = torch.get_num_threads() if threads is None else threads
        *index, side = batch
        try:
            wrong = self._call(*index, side_table.data_ptr(), side_table.shape[0], side, number, out)
        except TypeError:
            raise KernelInputError(f"batch: contiguous int64 arrays {', '.join(Batch._fields)}") from None
        if wrong:
            raise KernelInputError(_WRONG[wrong])
        return out


_WRONG = {
    -1: "weights: changed since they were made ready",
    **{place: f"batch.{name}: a row or place that there is not" for place, name in enumerate(Batch._fields, 1)},
    3: "batch.offsets: from 0 to the number of behaviours, never falling",
    9: "batch: actions as long as behaviors; history_of and request_of as candidates; history_of_request as side",
}


def _check_network(tables: Tables, extractor: GruWeights, evolution: GruWeights, head: HeadWeights) -> None:
    projected, queries, targets, embeddings, projected_actions, action_embeddings, of_pooled = tables
    given = {name: part for name, part in zip(Tables._fields, tables, strict=True) if part is not None}
    check_tensors(tuple(f"tables.{name}" for name in given), *given.values(), weights=extractor)
    check_tensors((), weights=evolution)
    offsets = torch.zeros(1, dtype=torch.int64, device=projected.device)
    check_gru(projected, offsets, extractor, True)
    check_gru(queries, offsets, evolution, False)
    check_head_weights(head)
    for weights in (extractor, evolution):
        check_finite(weights)
    hidden, items = evolution.hidden, projected.shape[0]
    inputs, width = head.layers[0].weight.shape
    if extractor.hidden != hidden:
        raise KernelInputError(f"extractor: hidden {extractor.hidden} where evolution has {hidden}")
    if inputs <= hidden:
        raise KernelInputError(f"head: more than {hidden} inputs of the first layer, not {inputs}")
    embedding = inputs - hidden
    check_like("tables.queries", queries, (items, hidden), projected)
    check_like("tables.targets", targets, (items, width), projected)
    check_like("tables.embeddings", embeddings, (items, embedding), projected)
    check_like("head", head.output, (None,), projected)
    if (projected_actions is None) != (action_embeddings is None):
        raise KernelInputError("tables: projected_actions and action_embeddings go together")
    if projected_actions is not None and action_embeddings is not None:
        actions = projected_actions.shape[0]
        check_like("tables.projected_actions", projected_actions, (actions, 3 * hidden), projected)
        check_like("tables.action_embeddings", action_embeddings, (actions, None), projected)
        embedding += action_embeddings.shape[1]
    check_like("tables.of_pooled", of_pooled, (embedding, width), projected)
