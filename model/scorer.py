"""The scorer: DIEN split by what each term depends on, every term computed once.

U different histories, N behaviours of them end to end, R requests, C candidates of all requests, I items of the
catalogue, K side fields (context and user), H hidden, E width of an item, A of an action, W width of the head's first
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from model.artifact import Artifact, load_artifact
from model.data.dataset import IntArray
from model.dien import Dien, Embeddings
from model.layers import Dice, Mlp
from model.ragged import Ids, Ragged, Requests, Rows, ScoreInput, ScoreInputError, as_ids

__all__ = ["Ids", "ScoreInput", "ScoreInputError", "Scorer", "load_scorer"]

TABLE_BUDGET = 1 << 30  # bytes; what would be larger as a table is computed on the fly
SIDE_SHARE = 8  # of the budget what tables of context and user may take: they save microseconds, users can be many

Scores = npt.NDArray[np.float32]


class _ItemTerm:
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


class _SideTerm:
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


class Scorer:
    """Click probabilities from an artifact. Safe to call from several threads at once."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "exact",
        threads: int | None = None,
        table_budget: int = TABLE_BUDGET,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        hidden = artifact.config.hidden
        self.backend = kernels.resolve_backend(backend, self.device.type, torch.float32, hidden)
        self.precision, self.threads = precision, threads
        self.name, self.version = artifact.name, artifact.version
        self.training, self.metrics = artifact.training, artifact.metrics
        self.config, self.schema = artifact.config, artifact.schema
        with torch.inference_mode():
            self._split(artifact.model().to(self.device), table_budget)
        self._requests = Requests(self.schema, self._side.first_rows)
        self.score([ScoreInput(item_ids=())])  # the kernels refuse here what they cannot do, not at the first request

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions the model knows; empty where it knows none."""
        return self.schema.actions

    @property
    def default_action(self) -> str | None:
        """The action of a behaviour that states none."""
        return self.schema.default_action

    @property
    def context_fields(self) -> tuple[str, ...]:
        """Names of the context fields."""
        return self.schema.context_fields

    @property
    def max_history(self) -> int:
        """How many of the newest behaviours count."""
        return self.schema.max_history

    @property
    def tensors(self) -> list[Tensor]:
        """What its memory goes to: weights, and tables over items, context and users."""
        terms = self._items, self._projected, self._queries, self._targets, self._side
        tables = [term.table for term in terms if term.table is not None]
        return [*self._model.parameters(), *self._model.buffers(), *tables]

    @property
    def description(self) -> str:
        """Architecture, size, backend (of native its instruction set) and device in one line."""
        kind = f"DIEN {self.config.cell} hidden {self.config.hidden}"
        backend = kernels.describe_backend(self.backend)
        return f"{kind}, {backend} kernels ({self.precision}) on {self.device.type}"

    def _split(self, model: Dien, table_budget: int) -> None:
        """Cut the weights by what they are multiplied with, and tabulate what depends on an item or a field alone."""
        self._model, embeddings = model, model.embeddings
        item, action, hidden = embeddings.item_width, embeddings.action_width, self.config.hidden
        self._extractor, self._evolution = model.extractor.weights(), model.evolution.weights()
        first: Tensor = model.head.layers[0].weight  # type: ignore[assignment]
        widths = [embeddings.side_width, item, item + action, item, hidden]
        of_side, of_target, self._of_pooled, of_crossed, of_final = (
            part.t().contiguous() for part in torch.split(first, widths, dim=1)
        )
        of_item, of_action = torch.split(self._extractor.w_input, [item, action])
        columns = 4 * hidden + len(first) + item
        item_bytes = len(embeddings.item_rows) * columns * 4
        tabled = item_bytes <= table_budget
        self._items = _ItemTerm(embeddings, tabled)
        self._projected = _ItemTerm(embeddings, tabled, of_item, self._extractor.bias)
        self._queries = _ItemTerm(embeddings, tabled, model.attention.weight.t().contiguous())
        self._targets = _ItemTerm(embeddings, tabled, of_target)
        self._side = _SideTerm(embeddings, of_side, min(table_budget - item_bytes * tabled, table_budget // SIDE_SHARE))
        self._action_table: Tensor | None = embeddings.tables["action"].weight if action else None  # type: ignore[assignment]
        self._projected_actions = None if self._action_table is None else self._action_table @ of_action
        head = _head_weights(model.head, torch.cat([of_crossed, of_final]))
        self._head = kernels.prepare_head(head, backend=self.backend)
        self._fused = self._fuse(head) if self.backend == "native" and tabled else None

    def _fuse(self, head: kernels.HeadWeights) -> kernels.Fused:
        """On a CPU with all tables in memory the whole network is one call."""
        terms = (self._projected, self._queries, self._targets, self._items)
        projected, queries, targets, items = (cast(Tensor, term.table) for term in terms)
        actions = self._projected_actions, self._action_table
        tables = kernels.Tables(projected, queries, targets, items, *actions, self._of_pooled)
        layers = self._extractor, self._evolution
        return kernels.Fused(tables, *layers, head, cell=self.config.cell, precision=self.precision)

    def count_unknown(self, item_ids: Ids) -> int:
        """How many of these items are not in the catalogue and score through the shared row."""
        return _unknown(self.schema.catalogue.rows(as_ids("item_ids", item_ids)))

    def score(self, inputs: Sequence[ScoreInput]) -> list[Scores]:
        """Click probabilities of each input's candidates, in their order.

        Inputs with the same history share its work. Raises ScoreInputError, naming the field, before any is scored.
        """
        return [scores for scores, _ in self.score_counted(inputs)]

    def score_counted(self, inputs: Sequence[ScoreInput]) -> list[tuple[Scores, int]]:
        """Like `score`; beside each input's probabilities how many of its candidates are unknown (`count_unknown`)."""
        if not inputs:
            return []
        batch = self._requests.ragged(inputs)
        probabilities = self._probabilities(batch)
        candidates = batch.rows.candidates
        return [(probabilities[begin:end], _unknown(candidates[begin:end])) for begin, end in pairwise(batch.ends)]

    def attention(self, one: ScoreInput) -> Scores:
        """Attention of each candidate over the history that counts (DIEN eq. 9): `[C, T]`, rows sum to 1."""
        rows = self._requests.ragged([one]).on(self.device)
        with torch.inference_mode():
            weights = kernels.attention(
                self._states(rows),
                rows.offsets,
                self._queries(rows.candidates),
                rows.history_of,
                backend=self.backend,
                threads=self.threads,
            )
        return weights.cpu().numpy()

    def _probabilities(self, batch: Ragged) -> Scores:
        """Click probabilities `[C]`: in one call where it can be, else by one operation after the other."""
        if self._fused is None:
            with torch.inference_mode():
                return torch.sigmoid(self._logits(batch.on(self.device))).cpu().numpy()
        table, rows = self._side.table, batch.rows
        if table is None:
            with torch.inference_mode():
                table = self._side(torch.from_numpy(rows.side))
            rows = rows._replace(side=np.arange(len(table)).reshape(-1, 1))
        return self._fused(rows, table, threads=self.threads)

    def _states(self, rows: Rows) -> Tensor:
        """Interest states `[N, H]`."""
        projected = self._projected(rows.behaviors)
        if self._projected_actions is not None:
            projected += F.embedding(rows.actions, self._projected_actions)
        return kernels.gru(
            projected,
            rows.offsets,
            self._extractor,
            projected=True,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
        )

    def _logits(self, rows: Rows) -> Tensor:
        """Logits `[C]`."""
        final = kernels.evolve(
            self._states(rows),
            rows.offsets,
            self._queries(rows.candidates),
            rows.history_of,
            self._evolution,
            cell=self.config.cell,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
        )
        pooled = self._pooled(rows)[rows.history_of_request]
        requests = torch.addmm(self._side(rows.side), pooled, self._of_pooled)
        factors = pooled[:, : self._items.width]
        item_of = rows.candidates
        targets, items = self._targets.table, self._items.table
        if targets is None or items is None:
            targets, items = self._targets(item_of), self._items(item_of)
            item_of = torch.arange(len(item_of), device=self.device)
        return kernels.head(
            targets, items, item_of, requests, factors, rows.request_of, final, self._head, threads=self.threads
        )

    def _pooled(self, rows: Rows) -> Tensor:
        """Mean of each history's behaviours `[U, E + D]`; zero for an empty one."""
        behaviors = self._items(rows.behaviors)
        if self._action_table is not None:
            behaviors = torch.cat([behaviors, F.embedding(rows.actions, self._action_table)], dim=1)
        lengths = rows.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), lengths)
        total = behaviors.new_zeros(len(lengths), behaviors.shape[1]).index_add_(0, owner, behaviors)
        return total / lengths.clamp(min=1).unsqueeze(1)


def _head_weights(head: Mlp, multiplied: Tensor) -> kernels.HeadWeights:
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


def _unknown(rows: IntArray) -> int:
    return len(rows) - int(np.count_nonzero(rows))


def load_scorer(
    path: str | Path,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "exact",
    threads: int | None = None,
) -> Scorer:
    """A scorer of the artifact in a folder. `threads` is how many a CPU backend may use (None: torch's number).

    Raises ArtifactError for a bad artifact, KernelInputError or BackendUnavailableError for a bad choice of backend.
    """
    return Scorer(load_artifact(path), device=device, backend=backend, precision=precision, threads=threads)
