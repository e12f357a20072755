"""From ids as users have them to rows of tables: one code for training and for serving.

I items of the catalogue, F item fields, K context fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.data import DataError, DataSet
from model.data.dataset import TRAIN, IntArray

OUT_OF_VOCABULARY = 0
DENSE = 4  # ids are looked up in a table, and not searched, while it is no more than so many times as long as they are


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Known ids, ascending. The n-th has row n + 1; row 0 is shared by all that are not known."""

    ids: IntArray  # [V]
    # Where ids are dense: the row of every number from the first id on, and of one past the last, which is nobody's.
    _row_of: IntArray | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        span = int(self.ids[-1]) - int(self.ids[0]) + 1 if len(self.ids) else 0
        if 0 < span <= DENSE * len(self.ids):
            row_of = np.zeros(span + 1, dtype=np.int64)
            row_of[self.ids - self.ids[0]] = np.arange(1, len(self.ids) + 1)
            object.__setattr__(self, "_row_of", row_of)

    @staticmethod
    def fit(values: IntArray, min_count: int) -> Vocabulary:
        """The ids that occur at least `min_count` times among `values`."""
        ids, counts = np.unique(values, return_counts=True)
        return Vocabulary(ids[counts >= min_count].astype(np.int64))

    def __len__(self) -> int:
        """Rows of a table over this vocabulary, the shared one included."""
        return len(self.ids) + 1

    def rows(self, values: npt.ArrayLike) -> IntArray:
        """The row of each id; 0 for an unknown one."""
        wanted = np.asarray(values, dtype=np.int64)
        if self._row_of is not None:
            # Read without a sign, what is below the first id is far above the last: one comparison sees both.
            place = np.subtract(wanted.reshape(-1), self.ids[0]).view(np.uint64)
            place = np.minimum(place, np.uint64(len(self._row_of) - 1)).view(np.int64)
            rows: IntArray = self._row_of.take(place).reshape(wanted.shape)
            return rows
        if not len(self.ids):
            return np.zeros(wanted.shape, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[place] == wanted, place + 1, OUT_OF_VOCABULARY)


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """What a model reads of an item, a behaviour, a user and a request, with the vocabulary of each field.

    `catalogue` knows every item; `item_rows[n]` are the rows of item n's fields, row 0 those of an unknown item. An
    item of the catalogue too rare for a row of its own still has its side fields.
    """

    catalogue: Vocabulary
    item_fields: tuple[str, ...]  # item_id first
    item_rows: IntArray  # [I + 1, F]
    vocabularies: Mapping[str, Vocabulary]  # of every item field, context field, and user_id where it is a feature
    context_fields: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    default_action: str | None = None
    max_history: int = 50

    @property
    def uses_user_id(self) -> bool:
        """Whether the user's own id is a feature."""
        return "user_id" in self.vocabularies

    def item_values(self, item_ids: IntArray) -> dict[str, list[int | None]]:
        """Side fields of items by name, as the data had them; None for a value that training did not know."""
        rows = self.item_rows[self.catalogue.rows(item_ids)]
        values: dict[str, list[int | None]] = {}
        for place, name in enumerate(self.item_fields[1:], 1):
            known = self.vocabularies[name].ids
            values[name] = [int(known[row - 1]) if row else None for row in rows[:, place].tolist()]
        return values

    def action_rows(self, places: npt.ArrayLike) -> IntArray:
        """Rows of actions given as places in `actions`; -1 is an unknown action."""
        return np.asarray(places, dtype=np.int64) + 1

    def action_places(self, names: Sequence[str]) -> IntArray:
        """Places of actions given by name; KeyError for a name the schema does not have."""
        place = {name: number for number, name in enumerate(self.actions)}
        return np.array([place[name] for name in names], dtype=np.int64)


def fit_schema(
    data: DataSet,
    *,
    min_count: int = 1,
    max_history: int = 50,
    user_id: bool = True,
    context: Sequence[str] | None = None,
) -> FeatureSchema:
    """The schema of a data set, counted over its training impressions and the behaviours these can see, nothing later.

    `context` picks context fields (all by default). Raises DataError for a field the data does not have, and for two
    fields of one name.
    """
    train = data.split(TRAIN)
    names = tuple(data.impressions.context) if context is None else tuple(context)
    for name in names:
        if name not in data.impressions.context:
            have = ", ".join(data.impressions.context) or "none"
            raise DataError(f"context field {name!r}: {data.name} has {have}")
    _told_apart(data, [*names, *(["user_id"] if user_id else [])])
    seen = np.concatenate([train.item_ids, data.behaviors.item_ids[seen_in_training(data)]])
    known = seen[np.isin(seen, data.items.item_ids)]
    place = np.searchsorted(data.items.item_ids, known)
    vocabularies = {"item_id": Vocabulary.fit(known, min_count)}
    for name, values in data.items.fields.items():
        vocabularies[name] = Vocabulary.fit(values[place], min_count)
    vocabularies |= {name: Vocabulary.fit(train.context[name], min_count) for name in names}
    if user_id:
        vocabularies["user_id"] = Vocabulary.fit(train.user_ids, min_count)
    item_fields = ("item_id", *data.items.fields)
    raw = [data.items.item_ids, *data.items.fields.values()]
    rows = np.stack([vocabularies[name].rows(values) for name, values in zip(item_fields, raw, strict=True)], axis=1)
    return FeatureSchema(
        catalogue=Vocabulary(data.items.item_ids),
        item_fields=item_fields,
        item_rows=np.concatenate([np.zeros((1, len(item_fields)), dtype=np.int64), rows]),
        vocabularies=vocabularies,
        context_fields=names,
        actions=data.actions,
        default_action=data.default_action,
        max_history=max_history,
    )


def _told_apart(data: DataSet, others: Sequence[str]) -> None:
    """Raise DataError where an item field has the name of another one: vocabularies are by name."""
    for name in ("item_id", *data.items.fields):
        if name in others:
            raise DataError(f"field {name!r}: {data.name} has one of items and one of users or context; rename one")


def seen_in_training(data: DataSet) -> npt.NDArray[np.bool_]:
    """Which behaviours stand in the history of some training impression: bool `[N]`."""
    train = data.split(TRAIN)
    first, end = data.behaviors.before(train.user_ids, train.timestamps_ms)
    edges = np.zeros(len(data.behaviors.item_ids) + 1, dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, end, -1)
    return np.cumsum(edges[:-1]) > 0
