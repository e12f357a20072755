"""Histories of a data set, as sequences for a store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.data.dataset import DataSet
from service.stores.records import RECORD, Records, action_code, event_ids


def sequences(data: DataSet) -> Iterator[tuple[str, Records]]:
    """Each user with a history and their records, oldest first."""
    behaviors = data.behaviors
    records = np.zeros(len(behaviors.item_ids), dtype=RECORD)
    records["item_id"] = behaviors.item_ids
    records["timestamp_ms"] = behaviors.timestamps_ms
    if behaviors.actions is not None:
        codes = np.array([action_code(name) for name in data.actions], dtype=np.uint32)
        records["action"] = codes[behaviors.actions]
    lengths = np.diff(behaviors.offsets)
    user_of = np.repeat(np.arange(len(lengths)), lengths)
    records["event_id"] = _distinct(event_ids(behaviors.item_ids, behaviors.timestamps_ms, records["action"]), user_of)
    for user, first, end in zip(behaviors.user_ids, behaviors.offsets, behaviors.offsets[1:], strict=False):
        if end > first:
            yield str(user), records[first:end]


def _distinct(ids: np.ndarray, user_of: np.ndarray) -> np.ndarray:
    """Ids that are distinct within a user; logs can say the same thing twice, and it did happen twice."""
    order = np.lexsort((ids, user_of))
    repeats = np.zeros(len(ids), dtype=bool)
    repeats[order[1:]] = (ids[order[1:]] == ids[order[:-1]]) & (user_of[order[1:]] == user_of[order[:-1]])
    places = np.flatnonzero(repeats)
    ids[places] = event_ids(ids[places].view(np.int64), places, np.zeros(len(places), dtype=np.uint32))
    return ids
