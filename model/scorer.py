"""The scorer: DIEN split by what each term depends on, every term computed once.

U different histories, N behaviours of them end to end, R requests, C candidates of all requests, I items of the
catalogue, H hidden, E width of an item, A of an action, W width of the head's first layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from model.artifact import Artifact, load_artifact
from model.data.dataset import IntArray
from model.dien import Dien, Embeddings
from model.features import FeatureSchema

TABLE_BUDGET = 1 << 30  # bytes; a catalogue whose tables would be larger is computed on the fly

Ids = Sequence[int] | IntArray


class ScoreInputError(ValueError):
    """An input that cannot be scored; `field` names which part of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """One user's request: candidates, and what is known of the user."""

    item_ids: Ids  # [C] ids of the catalogue
    history: Ids = ()  # [T] oldest first; the newest `max_history` count
    actions: Sequence[str] | npt.NDArray[np.integer[Any]] | None = None  # [T] names, or places in `Scorer.actions`
    context: Mapping[str, int] = field(default_factory=dict)
    user_id: int | None = None


class _ItemTerm:
    """Item embeddings or a linear map of them: a table over the catalogue, or computed where it would not fit."""

    def __init__(
        self, embeddings: Embeddings, tabled: bool, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        self._embeddings, self._weight, self._bias = embeddings, weight, bias
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
        """What its memory goes to: weights, and tables over the catalogue."""
        tables = (term.table for term in (self._items, self._projected, self._candidates))
        return [*self._model.parameters(), *self._model.buffers(), *(table for table in tables if table is not None)]

    @property
    def description(self) -> str:
        """Architecture, size, backend (of native its instruction set) and device in one line."""
        kind = f"DIEN {self.config.cell} hidden {self.config.hidden}"
        backend = kernels.describe_backend(self.backend)
        return f"{kind}, {backend} kernels ({self.precision}) on {self.device.type}"

    def _split(self, model: Dien, table_budget: int) -> None:
        """Cut the weights by what they are multiplied with, and tabulate what depends on an item alone."""
        self._model = model
        embeddings, head = model.embeddings, model.head
        item, action, hidden = embeddings.item_width, embeddings.action_width, self.config.hidden
        self._extractor, self._evolution = model.extractor.weights(), model.evolution.weights()
        first = head.layers[0]
        self._first_bias: Tensor = first.bias  # type: ignore[assignment]
        widths = [embeddings.side_width, item, item + action, item, hidden]
        parts = [part.t().contiguous() for part in torch.split(first.weight, widths, dim=1)]  # type: ignore[arg-type]
        self._of_side, of_target, self._of_pooled, self._of_crossed, self._of_final = parts
        of_item, of_action = torch.split(self._extractor.w_input, [item, action])
        of_candidate = torch.cat([model.attention.weight.t(), of_target], dim=1)
        columns = of_item.shape[1] + of_candidate.shape[1] + item
        tabled = len(embeddings.item_rows) * columns * 4 <= table_budget
        self._items = _ItemTerm(embeddings, tabled)
        self._projected = _ItemTerm(embeddings, tabled, of_item, self._extractor.bias)
        self._candidates = _ItemTerm(embeddings, tabled, of_candidate)
        self._action_table: Tensor | None = embeddings.tables["action"].weight if action else None  # type: ignore[assignment]
        self._projected_actions = None if self._action_table is None else self._action_table @ of_action

    def count_unknown(self, item_ids: Ids) -> int:
        """How many of these items are not in the catalogue and score through the shared row."""
        return int(np.count_nonzero(self.schema.catalogue.rows(_ids("item_ids", item_ids)) == 0))

    def score(self, inputs: Sequence[ScoreInput]) -> list[npt.NDArray[np.float32]]:
        """Click probabilities of each input's candidates, in their order.

        Inputs with the same history share its work. Raises ScoreInputError, naming the field, before any is scored.
        """
        if not inputs:
            return []
        batch = _Ragged(self.schema, inputs, self.device)
        with torch.inference_mode():
            probabilities = torch.sigmoid(self._logits(batch)).cpu().numpy()
        return np.split(probabilities, batch.cuts)

    def attention(self, one: ScoreInput) -> npt.NDArray[np.float32]:
        """Attention of each candidate over the history that counts (DIEN eq. 9): `[C, T]`, rows sum to 1."""
        batch = _Ragged(self.schema, [one], self.device)
        with torch.inference_mode():
            states = self._states(batch)
            queries = self._candidates(batch.candidates)[:, : self.config.hidden]
            weights = kernels.attention(
                states, batch.offsets, queries, batch.history_of, backend=self.backend, threads=self.threads
            )
        return weights.cpu().numpy()

    def _states(self, batch: _Ragged) -> Tensor:
        """Interest states `[N, H]`."""
        projected = self._projected(batch.behaviors)
        if self._projected_actions is not None:
            projected = projected + F.embedding(batch.actions, self._projected_actions)
        return kernels.gru(
            projected,
            batch.offsets,
            self._extractor,
            projected=True,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
        )

    def _logits(self, batch: _Ragged) -> Tensor:
        """Logits `[C]`: first layer from its item, user and candidate terms, then the rest of the head."""
        terms = self._candidates(batch.candidates)
        queries, first = terms[:, : self.config.hidden], terms[:, self.config.hidden :]
        final = kernels.evolve(
            self._states(batch),
            batch.offsets,
            queries,
            batch.history_of,
            self._evolution,
            cell=self.config.cell,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
        )
        pooled = self._pooled(batch)
        side = self._model.embeddings.side(batch.user, batch.context) @ self._of_side + self._first_bias
        crossed = self._items(batch.candidates) * pooled[batch.history_of, : self._of_crossed.shape[0]]
        hidden = first + crossed @ self._of_crossed + final @ self._of_final
        hidden = hidden + (pooled @ self._of_pooled)[batch.history_of] + side[batch.request_of]
        return self._model.head.after_first(hidden)

    def _pooled(self, batch: _Ragged) -> Tensor:
        """Mean of each history's behaviours `[U, E + A]`; zero for an empty one."""
        behaviors = self._items(batch.behaviors)
        if self._action_table is not None:
            behaviors = torch.cat([behaviors, F.embedding(batch.actions, self._action_table)], dim=1)
        lengths = batch.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), lengths)
        total = behaviors.new_zeros(len(lengths), behaviors.shape[1]).index_add_(0, owner, behaviors)
        return total / lengths.clamp(min=1).unsqueeze(1)


class _Ragged:
    """Requests as the kernels take them: different histories end to end, candidates end to end, pointers between."""

    def __init__(self, schema: FeatureSchema, inputs: Sequence[ScoreInput], device: torch.device) -> None:
        number_of: dict[tuple[bytes, bytes], int] = {}
        histories: list[tuple[IntArray, IntArray]] = []
        history_of, candidates = [], []
        for one in inputs:
            candidates.append(schema.catalogue.rows(_ids("item_ids", one.item_ids)))
            rows, actions = _history(schema, one)
            key = rows.tobytes(), actions.tobytes()
            if key not in number_of:
                number_of[key] = len(histories)
                histories.append((rows, actions))
            history_of.append(number_of[key])
        counts = np.array([len(rows) for rows in candidates])
        self.cuts = np.cumsum(counts)[:-1]
        lengths = np.array([len(rows) for rows, _ in histories])

        def tensor(values: npt.ArrayLike) -> Tensor:
            return torch.from_numpy(np.asarray(values, dtype=np.int64)).to(device)

        self.offsets = tensor(np.concatenate([[0], np.cumsum(lengths)]))
        self.behaviors = tensor(np.concatenate([rows for rows, _ in histories]))
        self.actions = tensor(np.concatenate([actions for _, actions in histories]))
        self.candidates = tensor(np.concatenate(candidates))
        self.history_of = tensor(np.repeat(history_of, counts))
        self.request_of = tensor(np.repeat(np.arange(len(inputs)), counts))
        self.user = tensor(_users(schema, inputs))
        self.context = tensor(_contexts(schema, inputs))


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


def _ids(name: str, values: Ids) -> IntArray:
    try:
        ids = np.asarray(values)
    except (ValueError, OverflowError):
        raise ScoreInputError(name, "must be a list of int64 ids") from None
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.dtype == np.uint64)):
        raise ScoreInputError(name, "must be a list of int64 ids")
    return ids.astype(np.int64)


def _history(schema: FeatureSchema, one: ScoreInput) -> tuple[IntArray, IntArray]:
    """Rows of the newest behaviours and of their actions."""
    history = _ids("history", one.history)
    if one.actions is not None and len(one.actions) != len(history):
        raise ScoreInputError("actions", f"{len(one.actions)} for a history of {len(history)}: one each")
    newest = slice(max(len(history) - schema.max_history, 0), None)
    rows = schema.catalogue.rows(history[newest])
    if not schema.actions:
        return rows, np.zeros(len(rows), dtype=np.int64)
    if one.actions is None:
        return rows, np.full(len(rows), schema.action_rows(schema.actions.index(schema.default_action or "")))
    return rows, schema.action_rows(_places(schema, one.actions[newest]))


def _places(schema: FeatureSchema, actions: Sequence[str] | npt.NDArray[np.integer[Any]]) -> IntArray:
    """Places of actions that are given as such, or by name."""
    try:
        whole = np.asarray(actions).dtype.kind in "iu"
        places = _ids("actions", actions) if whole else schema.action_places(actions)  # type: ignore[arg-type]
    except KeyError as error:
        raise ScoreInputError("actions", f"{error} is none of {', '.join(schema.actions)}") from None
    except (TypeError, ValueError):
        raise ScoreInputError("actions", "must be a list of names, or of places") from None
    if np.any((places < -1) | (places >= len(schema.actions))):
        raise ScoreInputError("actions", f"must be places from -1 (unknown) to {len(schema.actions) - 1}")
    return places


def _users(schema: FeatureSchema, inputs: Sequence[ScoreInput]) -> IntArray:
    if not schema.uses_user_id:
        return np.zeros(len(inputs), dtype=np.int64)
    known = np.array([one.user_id is not None for one in inputs])
    ids = _ids("user_id", [one.user_id or 0 for one in inputs])
    return np.where(known, schema.vocabularies["user_id"].rows(ids), 0)


def _contexts(schema: FeatureSchema, inputs: Sequence[ScoreInput]) -> IntArray:
    for one in inputs:
        unknown = sorted(set(one.context) - set(schema.context_fields))
        if unknown:
            have = ", ".join(schema.context_fields) or "none"
            raise ScoreInputError(f"context.{unknown[0]}", f"no context field of this model; it has {have}")
    columns = []
    for name in schema.context_fields:
        stated = np.array([name in one.context for one in inputs])
        values = _ids(f"context.{name}", [one.context.get(name, 0) for one in inputs])
        columns.append(np.where(stated, schema.vocabularies[name].rows(values), 0))
    return np.stack(columns, axis=1) if columns else np.zeros((len(inputs), 0), dtype=np.int64)
