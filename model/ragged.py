"""Requests as the kernels take them: different histories end to end, candidates end to end, pointers between.

U different histories, N behaviours of them, R requests, C candidates of all requests, K context fields and the user.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels import Batch
from model.data.dataset import IntArray
from model.features import FeatureSchema, Vocabulary

MOST_IN_DICT = 1 << 16  # ids of a field whose rows a dictionary tells; larger vocabularies are searched

Ids = Sequence[int] | IntArray
Actions = Sequence[str] | npt.NDArray[np.integer[Any]]

_INT64 = np.iinfo(np.int64)


class ScoreInputError(ValueError):
    """An input that cannot be scored; `field` names which part of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """One user's request: candidates, and what is known of the user.

    Inputs of one call whose histories and actions are the same share their work. `history_key` says so without a
    comparison: of all inputs with an equal key, the first one's history and actions count.
    """

    item_ids: Ids  # [C] ids of the catalogue
    history: Ids = ()  # [T] oldest first; the newest `max_history` count
    actions: Actions | None = None  # [T] names, or places in `Scorer.actions`
    context: Mapping[str, int] = field(default_factory=dict)
    user_id: int | None = None
    history_key: Hashable | None = None


class Rows(NamedTuple):
    """`kernels.Batch` as tensors; rows of side features are those of each field."""

    behaviors: Tensor  # [N]
    actions: Tensor  # [N]
    offsets: Tensor  # [U + 1]
    candidates: Tensor  # [C]
    history_of: Tensor  # [C]
    request_of: Tensor  # [C]
    history_of_request: Tensor  # [R]
    side: Tensor  # [R, K]


class Ragged(NamedTuple):
    """What is asked of the kernels at once. Rows are those of tables, 0 what is unknown."""

    ends: list[int]  # [R + 1] where the candidates of each request begin and end
    rows: Batch

    def on(self, device: torch.device) -> Rows:
        """`rows` as tensors of a device; on the CPU they share memory, elsewhere all go in one transfer."""
        if device.type == "cpu":
            return Rows(*map(torch.from_numpy, self.rows))
        sent = torch.from_numpy(np.concatenate([part.ravel() for part in self.rows])).to(device)
        pieces = torch.split(sent, [part.size for part in self.rows])
        return Rows(*(piece.view(part.shape) for piece, part in zip(pieces, self.rows, strict=True)))


class Requests:
    """Makes batches for a model's features. Refuses, naming the field, what cannot be scored."""

    def __init__(self, schema: FeatureSchema, first_rows: Mapping[str, int] | None = None) -> None:
        """`first_rows` says where a side field's rows begin in a table that holds several; 0 where it does not."""
        self._schema = schema
        first, names = first_rows or {}, schema.context_fields

        def rows(field: str, name: str) -> _FieldRows:
            return _FieldRows(field, schema.vocabularies[name], first.get(name, 0))

        self._context = [(name, rows(f"context.{name}", name)) for name in names]
        self._user = rows("user_id", "user_id") if schema.uses_user_id else None
        self._known = frozenset(names)

    def ragged(self, inputs: Sequence[ScoreInput]) -> Ragged:
        """One batch of at least one input. Raises ScoreInputError."""
        ids = [as_ids("item_ids", one.item_ids) for one in inputs]
        counts = [len(each) for each in ids]
        histories = _Histories(self._schema)
        history_of_request = np.array([histories.number(one) for one in inputs], dtype=np.int64)
        side = np.array([self._side(one) for one in inputs], dtype=np.int64).reshape(len(inputs), -1)
        if len(inputs) == 1:
            request_of = history_of = np.zeros(counts[0], dtype=np.int64)
        else:
            request_of = np.repeat(np.arange(len(inputs)), counts)
            history_of = history_of_request[request_of]
        offsets = [0, *accumulate(map(len, histories.items))]
        items = self._schema.catalogue.rows(np.concatenate([*histories.items, *ids]))
        rows = Batch(
            items[: offsets[-1]],
            histories.action_rows(),
            np.array(offsets, dtype=np.int64),
            items[offsets[-1] :],
            history_of,
            request_of,
            history_of_request,
            side,
        )
        return Ragged([0, *accumulate(counts)], rows)

    def _side(self, one: ScoreInput) -> list[int]:
        """Rows of the context fields and of the user."""
        stated = one.context
        rows = [field.row(stated[name]) if name in stated else field.unknown for name, field in self._context]
        if len(stated) > len(self._context) or not self._known.issuperset(stated):
            unknown = min(set(stated) - self._known)
            have = ", ".join(self._schema.context_fields) or "none"
            raise ScoreInputError(f"context.{unknown}", f"no context field of this model; it has {have}")
        if self._user is not None:
            rows.append(self._user.unknown if one.user_id is None else self._user.row(one.user_id))
        return rows


class _FieldRows:
    """The row of one value of a field, in a table where the field's rows begin at `unknown`."""

    def __init__(self, name: str, vocabulary: Vocabulary, first: int) -> None:
        self._name, self._vocabulary, self.unknown = name, vocabulary, first
        self._row_of: dict[int, int] | None = None
        if len(vocabulary) <= MOST_IN_DICT:
            self._row_of = {known: number for number, known in enumerate(vocabulary.ids.tolist(), first + 1)}

    def row(self, value: int) -> int:
        """The row of a value. Raises ScoreInputError for what is no int64."""
        if self._row_of is not None and type(value) is int and _INT64.min <= value <= _INT64.max:
            return self._row_of.get(value, self.unknown)
        return self.unknown + int(self._vocabulary.rows(as_ids(self._name, [value]))[0])


class _Histories:
    """The different histories among requests, numbered as they come."""

    def __init__(self, schema: FeatureSchema) -> None:
        self._schema = schema
        self._number_of: dict[tuple[bytes, bytes], int] = {}
        self._number_of_key: dict[Hashable, int] = {}
        self.items: list[IntArray] = []  # each [T], ids
        self.actions: list[IntArray] = []  # each [T], rows; empty for a model without actions

    def number(self, one: ScoreInput) -> int:
        """Of an input's history, which is kept if it is a new one."""
        known = self._number_of_key.get(one.history_key) if one.history_key is not None else None
        if known is not None:
            return known
        items, actions = _history(self._schema, one)
        number = self._number_of.setdefault((items.tobytes(), actions.tobytes()), len(self.items))
        if number == len(self.items):
            self.items.append(items)
            self.actions.append(actions)
        if one.history_key is not None:
            self._number_of_key[one.history_key] = number
        return number

    def action_rows(self) -> IntArray:
        """Of all histories, end to end. Raises ScoreInputError for what is no action's row."""
        rows, known = _joined(self.actions), len(self._schema.actions)
        # Read without a sign, what is negative is larger than any row: one pass sees both ends.
        if rows.size and np.maximum.reduce(rows.view(np.uint64)) > known:
            raise ScoreInputError("actions", f"must be places from -1 (unknown) to {known - 1}")
        return rows


def as_ids(name: str, values: Ids) -> IntArray:
    """Ids as an array. Raises ScoreInputError, naming the field, for what is no list of int64."""
    if type(values) is np.ndarray and values.dtype == np.int64 and values.ndim == 1:
        return values
    try:
        ids = np.asarray(values)
    except (ValueError, OverflowError):
        raise ScoreInputError(name, "must be a list of int64 ids") from None
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.dtype == np.uint64)):
        raise ScoreInputError(name, "must be a list of int64 ids")
    return ids.astype(np.int64, copy=False)


def _joined(arrays: list[IntArray]) -> IntArray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


_NO_ACTIONS = np.zeros(0, dtype=np.int64)


def _history(schema: FeatureSchema, one: ScoreInput) -> tuple[IntArray, IntArray]:
    """Ids of the newest behaviours, and rows of their actions."""
    history = as_ids("history", one.history)
    if one.actions is not None and len(one.actions) != len(history):
        raise ScoreInputError("actions", f"{len(one.actions)} for a history of {len(history)}: one each")
    first = max(len(history) - schema.max_history, 0)
    items = history[first:]
    if not schema.actions:
        return items, _NO_ACTIONS
    if one.actions is None:
        row = schema.actions.index(schema.default_action or "") + 1
        return items, np.full(len(items), row, dtype=np.int64)
    return items, _action_rows(schema, one.actions[first:])


def _action_rows(schema: FeatureSchema, actions: Actions) -> IntArray:
    """Rows of actions that are given as places, or by name."""
    if type(actions) is np.ndarray and actions.dtype.kind == "i" and actions.ndim == 1:
        return np.add(actions, 1, dtype=np.int64)
    try:
        whole = np.asarray(actions).dtype.kind in "iu"
        places = as_ids("actions", actions) if whole else schema.action_places(actions)  # type: ignore[arg-type]
    except KeyError as error:
        raise ScoreInputError("actions", f"{error} is none of {', '.join(schema.actions)}") from None
    except (TypeError, ValueError):
        raise ScoreInputError("actions", "must be a list of names, or of places") from None
    return schema.action_rows(places)
