"""The record of a behaviour, and the rule by which a user's sequence takes new ones.

A sequence is packed records, oldest first; records of one time stand in the order they arrived. The rule is written
twice: here for stores in this process, and in `append.lua` inside Redis. Tests hold the two to the same bytes.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

# Little-endian and without padding, so that the bytes mean the same on every machine.
RECORD = np.dtype([("event_id", "<u8"), ("item_id", "<i8"), ("timestamp_ms", "<i8"), ("action", "<u4")])
Records = npt.NDArray[np.void]  # of RECORD, [N]
IntArray = npt.NDArray[np.int64]
CodeArray = npt.NDArray[np.uint32]

# Lua's numbers are doubles: every millisecond up to here is one.
LATEST_MS = 2**53 - 1
NO_ACTION = 0


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of the events of an append."""

    accepted: int = 0
    duplicates: int = 0  # their event id is in the sequence already
    outside_window: int = 0  # no later than the oldest behaviour of a full sequence

    def __add__(self, other: Appended) -> Appended:
        return Appended(
            self.accepted + other.accepted,
            self.duplicates + other.duplicates,
            self.outside_window + other.outside_window,
        )


def empty() -> Records:
    """A sequence of nothing."""
    return np.zeros(0, dtype=RECORD)


def unpack(value: bytes) -> Records:
    """The records of a stored value, without a copy; ValueError when it cannot be a sequence."""
    if len(value) % RECORD.itemsize:
        raise ValueError(f"{len(value)} bytes: a multiple of {RECORD.itemsize} expected")
    return np.frombuffer(value, dtype=RECORD)


def action_code(action: str | None) -> int:
    """The number that stands for an action in a record: crc32 of its name, 0 for none stated.

    A name and not a place in some model's list, so that sequences outlive the model that was served when they grew.
    """
    return NO_ACTION if action is None else zlib.crc32(action.encode())


def event_ids(
    item_ids: IntArray, timestamps_ms: IntArray, actions: CodeArray, names: Sequence[str | None] | None = None
) -> npt.NDArray[np.uint64]:
    """Ids of events [N]: from the names that clients gave them, else from what happened.

    With the second kind, posting the same thing twice is a duplicate without any effort of the client.
    """
    ids = _mix(item_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    ids = _mix(ids ^ timestamps_ms.astype(np.uint64))
    ids = _mix(ids ^ actions.astype(np.uint64))
    for place, name in enumerate(names or ()):
        if name is not None:
            ids[place] = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
    return ids


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of the input moves about half the bits of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def pack(
    item_ids: IntArray,
    timestamps_ms: IntArray,
    actions: CodeArray | None = None,
    names: Sequence[str | None] | None = None,
) -> Records:
    """Records of events [N] in the order given."""
    records = np.zeros(len(item_ids), dtype=RECORD)
    records["item_id"] = item_ids
    records["timestamp_ms"] = timestamps_ms
    if actions is not None:
        records["action"] = actions
    records["event_id"] = event_ids(item_ids, timestamps_ms, records["action"], names)
    return records


def merge(kept: Records, arriving: Records, window: int) -> tuple[Records, Appended]:
    """A sequence after an append: each event once, by time, the latest `window` of them.

    An event no later than the oldest of a full sequence is refused: it may have been here before and left.
    """
    everything = np.concatenate([kept[-window:], arriving])
    ids, times = everything["event_id"].tolist(), everything["timestamp_ms"].tolist()
    order = list(range(len(kept[-window:])))
    kept_times = [times[place] for place in order]
    present = {ids[place] for place in order}
    accepted = duplicates = outside = 0
    for place in range(len(order), len(everything)):
        if ids[place] in present:
            duplicates += 1
        elif len(order) == window and times[place] <= kept_times[0]:
            outside += 1
        else:
            accepted += 1
            present.add(ids[place])
            position = bisect_right(kept_times, times[place])
            order.insert(position, place)
            kept_times.insert(position, times[place])
            if len(order) > window:
                present.discard(ids[order.pop(0)])
                kept_times.pop(0)
    return everything[order], Appended(accepted, duplicates, outside)
