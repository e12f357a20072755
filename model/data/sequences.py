"""Data without impressions: predict a user's last item against a drawn one (the protocol of DIEN, section 4.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.data.dataset import CHUNK, DEV, TEST, TRAIN, Behaviors, DataError, Impressions, IntArray
from model.data.tables import read_parquet


def popularity(item_ids: IntArray, *, without: IntArray | None = None) -> tuple[IntArray, IntArray]:
    """Items and the running sum of their frequencies, for `draw`; the places in `without` do not count.

    Counted in chunks: `item_ids` may be a memory map that is larger than memory.
    """
    items = counts = np.zeros(0, dtype=np.int64)
    for first in range(0, len(item_ids), CHUNK):
        some, times = np.unique(item_ids[first : first + CHUNK], return_counts=True)
        items, counts = _add(items, counts, some, times)
    if without is not None and len(without):
        some, times = np.unique(item_ids[without], return_counts=True)
        items, counts = _add(items, counts, some, -times)
    return items[counts > 0], np.cumsum(counts[counts > 0])


def _add(items: IntArray, counts: IntArray, some: IntArray, times: IntArray) -> tuple[IntArray, IntArray]:
    every = np.union1d(items, some)
    total = np.zeros(len(every), dtype=np.int64)
    total[np.searchsorted(every, items)] = counts
    total[np.searchsorted(every, some)] += times
    return every, total


def draw(frequencies: tuple[IntArray, IntArray], avoid: IntArray, generator: np.random.Generator) -> IntArray:
    """One item for each of `avoid`, drawn by frequency, never the avoided one itself."""
    items, running = frequencies
    if len(items) < 2:
        raise DataError(f"{len(items)} different items: a negative needs at least 2")
    drawn = np.empty(len(avoid), dtype=np.int64)
    same = np.ones(len(avoid), dtype=bool)
    while same.any():
        ticket = generator.integers(0, running[-1], size=int(same.sum()))
        drawn[same] = items[np.searchsorted(running, ticket, side="right")]
        same = drawn == avoid
    return drawn


def last_item_impressions(
    behaviors: Behaviors, *, seed: int, dev_share: float = 0.05, test_share: float = 0.1, prefixes: bool = False
) -> Impressions:
    """Impressions of the paper's protocol: each user's last behaviour, users split at random by `seed`.

    Dev and test users get the last item as a click and one drawn by popularity as a non-click. Training users get the
    last item alone (negatives are drawn afresh each epoch), or every item after the first with `prefixes`. Popularity
    is counted over training users and over what dev and test users did before their last item.
    """
    lengths = np.diff(behaviors.offsets)
    users = np.flatnonzero(lengths >= 2)
    generator = np.random.default_rng([seed, 0x5EED])
    order = generator.permutation(users)
    tests, devs = round(len(users) * test_share), round(len(users) * dev_share)
    split_of = np.full(len(lengths), TRAIN, dtype=np.int8)
    split_of[order[:tests]] = TEST
    split_of[order[tests : tests + devs]] = DEV

    last = behaviors.offsets[1:] - 1
    held_out = last[users[split_of[users] != TRAIN]]
    negatives = draw(popularity(behaviors.item_ids, without=held_out), behaviors.item_ids[held_out], generator)

    of_train = users[split_of[users] == TRAIN]
    if prefixes:
        user_of = np.repeat(np.arange(len(lengths)), lengths)
        not_first = np.ones(len(user_of), dtype=bool)
        not_first[behaviors.offsets[:-1][lengths > 0]] = False
        positives = np.flatnonzero(not_first & np.isin(user_of, of_train))
    else:
        positives = last[of_train]
    places = np.concatenate([positives, held_out, held_out])
    user_place = np.searchsorted(behaviors.offsets, places, side="right") - 1
    clicks = np.ones(len(places), dtype=np.int8)
    clicks[len(positives) + len(held_out) :] = 0
    return Impressions(
        user_ids=behaviors.user_ids[user_place],
        item_ids=np.concatenate([behaviors.item_ids[positives], behaviors.item_ids[held_out], negatives]),
        timestamps_ms=behaviors.timestamps_ms[places],
        clicks=clicks,
        splits=split_of[user_place],
    )


def read_sequences(path: Path, *, known: IntArray | None = None) -> Behaviors:
    """A parquet file of `user_id` and `item_ids`, oldest first, as behaviours whose time is their place from 0.

    With `known`, an item that is not among these is an error.
    """
    table = read_parquet(path, ["user_id", "item_ids"])
    user_ids = table.integers("user_id")
    order = table.distinct("user_id", user_ids)
    lengths, values = table.lists("item_ids")
    item_ids = values.integers("item_ids")
    if known is not None:
        values.refuse(~np.isin(item_ids, known), "item_ids", "must be listed in items.parquet")
    starts = np.cumsum(lengths) - lengths
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths[order])
    return Behaviors(user_ids[order], offsets, item_ids[np.repeat(starts[order], lengths[order]) + places], places)
