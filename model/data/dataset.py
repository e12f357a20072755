"""The one shape that every data set takes in memory, and its point-in-time histories.

Shapes: I items, U users, N behaviours of all users end to end, M impressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
ActionArray = npt.NDArray[np.int8]

TRAIN, DEV, TEST = 0, 1, 2
SPLITS = ("train", "dev", "test")

CHUNK = 1 << 22  # behaviours looked at in one go, where all of them might not fit into memory


class DataError(ValueError):
    """A data set that cannot be used: the message names the file, the row, the column and the rule."""


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue: ids as the data has them, and integer side fields (category, author, ...)."""

    item_ids: IntArray  # [I] ascending, no id twice
    fields: Mapping[str, IntArray]  # each [I]

    def __post_init__(self) -> None:
        if np.any(self.item_ids[1:] <= self.item_ids[:-1]):
            raise DataError("items: item_id must be ascending and without repetition")
        for name, values in self.fields.items():
            if len(values) != len(self.item_ids):
                raise DataError(f"items: {name} has {len(values)} values for {len(self.item_ids)} items")


@dataclass(frozen=True, slots=True)
class Behaviors:
    """What each user did, oldest first, all users end to end."""

    user_ids: IntArray  # [U] ascending, no id twice
    offsets: IntArray  # [U + 1]
    item_ids: IntArray  # [N]
    timestamps_ms: IntArray  # [N] never falling within a user
    actions: ActionArray | None = None  # [N] places in DataSet.actions
    negatives: IntArray | None = None  # [N] an item shown at about that time and not chosen; the item itself: none

    def __post_init__(self) -> None:
        if np.any(self.user_ids[1:] <= self.user_ids[:-1]):
            raise DataError("behaviours: user_id must be ascending and without repetition")
        ends = (self.offsets[0], self.offsets[-1]) if len(self.offsets) else None
        if len(self.offsets) != len(self.user_ids) + 1 or ends != (0, len(self.item_ids)):
            raise DataError(f"behaviours: offsets must run from 0 to {len(self.item_ids)}, one more than users")
        if np.any(np.diff(self.offsets) < 0):
            raise DataError("behaviours: offsets must not fall")
        for column in (self.timestamps_ms, self.actions, self.negatives):
            if column is not None and len(column) != len(self.item_ids):
                raise DataError(f"behaviours: a column has {len(column)} values for {len(self.item_ids)} behaviours")
        for first in range(0, len(self.item_ids), CHUNK):
            # One place more than a chunk, so that every pair of neighbours is seen once.
            falls = 1 + first + np.flatnonzero(np.diff(self.timestamps_ms[first : first + CHUNK + 1]) < 0)
            inside = falls[self.offsets[np.searchsorted(self.offsets, falls)] != falls]
            if len(inside):
                raise DataError(f"behaviours: time falls within a user at place {int(inside[0])}")

    def of_user(self, user_ids: IntArray) -> tuple[IntArray, IntArray]:
        """First place and one past the last of each user's behaviours; an unknown user has none."""
        if not len(self.user_ids):
            nothing = np.zeros(len(user_ids), dtype=np.int64)
            return nothing, nothing
        place = np.minimum(np.searchsorted(self.user_ids, user_ids), len(self.user_ids) - 1)
        known = self.user_ids[place] == user_ids
        return np.where(known, self.offsets[place], 0), np.where(known, self.offsets[place + 1], 0)

    def before(self, user_ids: IntArray, timestamps_ms: IntArray) -> tuple[IntArray, IntArray]:
        """The behaviours of each user strictly before a time: first place and one past the last.

        A binary search of all rows at once, so that nothing at or after the time can enter.
        """
        first, low_end = self.of_user(user_ids)
        low, high = first.copy(), low_end.copy()
        while np.any(low < high):
            middle = (low + high) // 2
            open_ = low < high
            earlier = np.zeros(len(low), dtype=bool)
            earlier[open_] = self.timestamps_ms[middle[open_]] < timestamps_ms[open_]
            low = np.where(open_ & earlier, middle + 1, low)
            high = np.where(open_ & ~earlier, middle, high)
        return first, low


@dataclass(frozen=True, slots=True)
class Impressions:
    """What was shown, when, and whether it was clicked."""

    user_ids: IntArray  # [M]
    item_ids: IntArray  # [M]
    timestamps_ms: IntArray  # [M]
    clicks: npt.NDArray[np.int8]  # [M] 0 or 1
    splits: npt.NDArray[np.int8]  # [M] TRAIN, DEV or TEST
    context: Mapping[str, IntArray] = field(default_factory=dict)  # each [M]

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, rows: npt.NDArray[Any]) -> Impressions:
        """The impressions at these places or under this mask."""
        return Impressions(
            self.user_ids[rows],
            self.item_ids[rows],
            self.timestamps_ms[rows],
            self.clicks[rows],
            self.splits[rows],
            {name: values[rows] for name, values in self.context.items()},
        )


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set ready for features: catalogue, behaviours, impressions.

    With `sampled_negatives` the training impressions are positives alone and the trainer draws a fresh negative for
    each in every epoch (DIEN's protocol on Amazon); the dev and test negatives are fixed rows of the table.
    """

    name: str
    items: Items
    behaviors: Behaviors
    impressions: Impressions
    actions: tuple[str, ...] = ()
    default_action: str | None = None
    sampled_negatives: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        if (self.behaviors.actions is None) != (not self.actions):
            raise DataError("behaviours have actions exactly if the data set names its actions")
        if self.actions and self.default_action not in self.actions:
            raise DataError(f"default_action={self.default_action!r}: one of {', '.join(self.actions)}")

    @property
    def shown_action(self) -> int | None:
        """The place of the action that says an item was shown and not chosen, where the data tells it."""
        return self.actions.index("shown") if "shown" in self.actions else None

    def split(self, split: int) -> Impressions:
        """The impressions of TRAIN, DEV or TEST."""
        return self.impressions.take(self.impressions.splits == split)
