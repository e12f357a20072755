"""The scorer: DIEN split by what each term depends on, every term computed once.

U different histories, N behaviours of them end to end, R requests, C candidates of all requests, I items of the
catalogue, K side fields (context and user), H hidden, E width of an item, A of an action, W width of the head's first
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from model.artifact import Artifact, load_artifact
from model.dien import Dien, Embeddings
from model.layers import Dice, Mlp
from model.ragged import Ids, Ragged, Requests, ScoreInput, ScoreInputError, as_ids

__all__ = ["Ids", "ScoreInput", "ScoreInputError", "Scorer", "load_scorer"]

TABLE_BUDGET = 1 << 30  # bytes; what would be larger as a table is computed on the fly

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
    """What the first layer makes of context and user: a sum of rows of one table, or computed where it would not fit."""

    def __init__(self, embeddings: Embeddings, weight: Tensor, budget: int) -> None:
        names = [*embeddings.context_fields, *(["user_id"] if "user_id" in embeddings.tables else [])]
        tables: list[Tensor] = [embeddings.tables[name].weight for name in names]  # type: ignore[misc]
        # The network has the user before the context.
        parts = list(weight.split(embeddings.width)) if names else []
        self._parts = parts[1:] + parts[:1] if "user_id" in embeddings.tables else parts
        self._tables, self._none = tables, weight.new_zeros(1, weight.shape[1])
        sizes = torch.tensor([len(table) for table in tables], dtype=torch.int64)
        self._table: Tensor | None = None
        if names and 4 * int(sizes.sum()) * weight.shape[1] <= budget:
            self._table = torch.cat([table @ part for table, part in zip(tables, self._parts, strict=True)])
            self._first_rows = (sizes.cumsum(0) - sizes).to(weight.device)

    def __call__(self, rows: Tensor) -> Tensor:
        """`[R, K]` rows of each field to `[R, W]`."""
        if self._table is not None:
            return torch.embedding_bag(self._table, *_bags(rows + self._first_rows))[0]
        if not self._tables:
            return self._none.expand(len(rows), -1)
        fields = zip(self._tables, self._parts, rows.unbind(1), strict=True)
        return torch.stack([F.embedding(own, table) @ part for table, part, own in fields]).sum(0)


def _bags(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`[R, K]` as `torch.embedding_bag` takes it: all end to end, and where each begins."""
    return rows.view(-1), torch.arange(0, rows.numel(), rows.shape[1], device=rows.device)


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
        self._requests = Requests(self.schema, self.device)
        with torch.inference_mode():
            self._split(artifact.model().to(self.device), table_budget)
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
    def description(self) -> str:
        """Architecture, size, backend (of native its instruction set) and device in one line."""
        kind = f"DIEN {self.config.cell} hidden {self.config.hidden}"
        backend = kernels.describe_backend(self.backend)
        return f"{kind}, {backend} kernels ({self.precision}) on {self.device.type}"

    def _split(self, model: Dien, table_budget: int) -> None:
        """Cut the weights by what they are multiplied with, and tabulate what depends on an item or a field alone."""
        embeddings = model.embeddings
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
        self._side = _SideTerm(embeddings, of_side, table_budget - item_bytes * tabled)
        self._action_table: Tensor | None = embeddings.tables["action"].weight if action else None  # type: ignore[assignment]
        self._projected_actions = None if self._action_table is None else self._action_table @ of_action
        self._head = kernels.prepare_head(
            _head_weights(model.head, torch.cat([of_crossed, of_final])), backend=self.backend
        )

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
        with torch.inference_mode():
            probabilities = torch.sigmoid(self._logits(batch)).cpu().numpy()
        return [
            (probabilities[begin:end], _unknown(batch.candidate_rows[begin:end])) for begin, end in pairwise(batch.ends)
        ]

    def attention(self, one: ScoreInput) -> Scores:
        """Attention of each candidate over the history that counts (DIEN eq. 9): `[C, T]`, rows sum to 1."""
        batch = self._requests.ragged([one])
        with torch.inference_mode():
            weights = kernels.attention(
                self._states(batch),
                batch.offsets,
                self._queries(batch.candidates),
                batch.history_of,
                backend=self.backend,
                threads=self.threads,
            )
        return weights.cpu().numpy()

    def _states(self, batch: Ragged) -> Tensor:
        """Interest states `[N, H]`."""
        projected = self._projected(batch.behaviors)
        if self._projected_actions is not None:
            projected += F.embedding(batch.actions, self._projected_actions)
        return kernels.gru(
            projected,
            batch.offsets,
            self._extractor,
            projected=True,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
        )

    def _logits(self, batch: Ragged) -> Tensor:
        """Logits `[C]`."""
        final = kernels.evolve(
            self._states(batch),
            batch.offsets,
            self._queries(batch.candidates),
            batch.history_of,
            self._evolution,
            cell=self.config.cell,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
        )
        pooled = self._pooled(batch)
        if batch.history_of_request is not None:
            pooled = pooled[batch.history_of_request]
        requests = torch.addmm(self._side(batch.side), pooled, self._of_pooled)
        factors = pooled[:, : self._items.width]
        targets, items, item_of = self._targets.table, self._items.table, batch.candidates
        if targets is None or items is None:
            targets, items = self._targets(item_of), self._items(item_of)
            item_of = torch.arange(len(item_of), device=self.device)
        return kernels.head(
            targets, items, item_of, requests, factors, batch.request_of, final, self._head, threads=self.threads
        )

    def _pooled(self, batch: Ragged) -> Tensor:
        """Mean of each history's behaviours `[U, E + A]`; zero for an empty one."""
        behaviors = self._items(batch.behaviors)
        if self._action_table is not None:
            behaviors = torch.cat([behaviors, F.embedding(batch.actions, self._action_table)], dim=1)
        lengths = batch.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), lengths)
        total = behaviors.new_zeros(len(lengths), behaviors.shape[1]).index_add_(0, owner, behaviors)
        return total / lengths.clamp(min=1).unsqueeze(1)


def _head_weights(head: Mlp, multiplied: Tensor) -> kernels.HeadWeights:
    """The head as the kernels take it: of its first layer what is multiplied for each candidate, [E + H, W]."""
    layers = []
    for number, (linear, act) in enumerate(zip(head.layers, head.activations, strict=True)):
        weight: Tensor = linear.weight.t() if number else multiplied  # type: ignore[operator,union-attr]
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


def _unknown(rows: npt.NDArray[np.int64]) -> int:
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
