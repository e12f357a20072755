"""A small made-up data set with every awkward thing a real one has.

Histories of length 0, 1 and many; impressions before, between and at the time of behaviours; a user without behaviours
who is first seen after the training days, one with behaviours who is never shown anything; item ids 0, negative and at
the ends of int64; items outside the catalogue.
"""

import numpy as np

from model.data import DEV, TEST, TRAIN, Behaviors, DataSet, Impressions, Items
from model.data.dataset import ActionArray, IntArray

ACTIONS = ("shown", "click", "long_view")
INT64 = np.iinfo(np.int64)
UNKNOWN_ITEM = 5_000_000_001  # behaviours and impressions have it, the catalogue has not
STRANGER = 900  # a user without behaviours, in dev and test impressions alone
LONG_AGO = 1_650_000_000_000


def made_up_data(
    seed: int = 0,
    users: int = 12,
    items: int = 20,
    *,
    impressions: int = 120,
    longest: int = 9,
    actions: bool = True,
    context: bool = True,
    given_negatives: bool = True,
    sampled_negatives: bool = False,
    behaviors: bool = True,
) -> DataSet:
    """A data set of at least 2 `users` (ids from -3 on; the first three did 0, 1 and `longest` things) and 5 `items`.

    Items have a category and an author. Days are train, train, dev, test; a user's behaviours spread over them all, so
    that the same user's history grows from one impression to the next. `given_negatives` gives about half of what was
    chosen an item shown beside it; `behaviors=False` leaves all histories empty.
    """
    generator = np.random.default_rng(seed)
    catalogue = np.sort(np.concatenate([[INT64.min, -7, 0, INT64.max], 100 + 3 * np.arange(items - 4)])).astype(
        np.int64
    )
    fields = {"category": generator.integers(-2, 3, items), "author": generator.integers(0, max(items // 2, 1), items)}
    user_ids = np.arange(users, dtype=np.int64) - 3
    past = _behaviors(generator, user_ids, catalogue, longest if behaviors else 0, actions, given_negatives)
    return DataSet(
        name="made up",
        items=Items(catalogue, fields),
        behaviors=past,
        impressions=_impressions(generator, user_ids, catalogue, impressions, context, sampled_negatives),
        actions=ACTIONS if actions else (),
        default_action="click" if actions else None,
        sampled_negatives=sampled_negatives,
        description="made up by a test",
    )


def _items(generator: np.random.Generator, catalogue: IntArray, count: int) -> IntArray:
    """Items of which some are frequent and a few are outside the catalogue."""
    popular = generator.zipf(1.3, count) % (len(catalogue) + 1)
    return np.append(catalogue, UNKNOWN_ITEM)[popular]


def _behaviors(
    generator: np.random.Generator,
    user_ids: IntArray,
    catalogue: IntArray,
    longest: int,
    actions: bool,
    given_negatives: bool,
) -> Behaviors:
    lengths = generator.integers(0, longest + 1, len(user_ids))
    lengths[:3] = np.minimum([0, 1, longest], longest)[: len(lengths)]
    total = int(lengths.sum())
    item_ids = _items(generator, catalogue, total)
    of_user = np.repeat(np.arange(len(user_ids)), lengths)
    moments = LONG_AGO + 1000 * generator.integers(0, 40, total)  # few moments: ties with impressions happen
    moments = moments[np.lexsort((moments, of_user))]
    taken: ActionArray | None = generator.integers(0, len(ACTIONS), total).astype(np.int8) if actions else None
    beside: IntArray | None = None
    if given_negatives:
        beside = np.where(generator.random(total) < 0.5, generator.permutation(item_ids), item_ids)
    return Behaviors(user_ids, np.append(0, np.cumsum(lengths)), item_ids, moments, taken, beside)


def _impressions(
    generator: np.random.Generator,
    user_ids: IntArray,
    catalogue: IntArray,
    count: int,
    context: bool,
    sampled_negatives: bool,
) -> Impressions:
    moments = LONG_AGO + 1000 * np.sort(generator.integers(0, 40, count))
    splits = np.array([TRAIN, TRAIN, DEV, TEST], dtype=np.int8)[(moments - LONG_AGO) // 10_000]
    clicks = generator.integers(0, 2, count).astype(np.int8)
    item_ids = _items(generator, catalogue, count)
    if sampled_negatives:
        clicks[splits == TRAIN] = 1
    fields = {"tab": generator.integers(0, 4, count), "hour": generator.integers(0, 24, count)} if context else {}
    shown = np.where(splits == TRAIN, generator.choice(user_ids[:-1], count), 0)
    later = splits != TRAIN
    shown[later] = generator.choice(np.append(user_ids[:-1], STRANGER), int(later.sum()))
    return Impressions(shown, item_ids, moments, clicks, splits, fields)
