"""Behaviours from a log that may be larger than memory: rows go to buckets on disk by user, and bucket by bucket into
memory-mapped arrays in each user's order of time.

What stays in memory is one bucket with its sorted copy, the users, and the catalogue; neither the text nor the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from model.data.dataset import Behaviors, IntArray

ROW = np.dtype([("user", "<i8"), ("item", "<i8"), ("category", "<i8"), ("time", "<i8"), ("action", "i1")])
MOST_BUCKETS = 512  # each holds a file open

Rows = npt.NDArray[Any]  # of ROW


class Spool:
    """Rows of ROW by user in unnamed temporary files, which vanish with the process however it ends.

    They lie in the folder for temporary files (`TMPDIR`), which needs 33 bytes a row, and 17 more for the arrays.
    """

    def __init__(self, buckets: int) -> None:
        # All are closed together, in __exit__.
        self._buckets: list[IO[bytes]] = [tempfile.TemporaryFile(prefix="augur-") for _ in range(buckets)]  # noqa: SIM115

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._buckets:
            file.close()

    def add(self, rows: Rows) -> None:
        """Append rows; those of one user keep their order."""
        # Fibonacci hashing: user ids that share a step with the number of buckets would crowd into few of them.
        mixed = rows["user"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
        bucket = (mixed % np.uint64(len(self._buckets))).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._buckets)))
        for file, part in zip(self._buckets, np.split(rows[order], ends[:-1]), strict=True):
            file.write(part.tobytes())

    def __iter__(self) -> Iterator[Rows]:
        """The buckets one after another; all rows of a user are in one of them."""
        for file in self._buckets:
            file.seek(0)
            yield np.fromfile(file, dtype=ROW)

    def users(self) -> tuple[IntArray, IntArray]:
        """The users, ascending [U], and how many rows each has [U]."""
        parts = [np.unique(rows["user"], return_counts=True) for rows in self]
        users = np.concatenate([part[0] for part in parts])
        counts = np.concatenate([part[1] for part in parts])
        order = np.argsort(users)
        return users[order], counts[order]

    def catalogue(self) -> tuple[IntArray, IntArray]:
        """The items, ascending [I], and each one's category [I]: of several the smallest."""
        items = categories = np.zeros(0, dtype=np.int64)
        for rows in self:
            items = np.concatenate([items, rows["item"]])
            categories = np.concatenate([categories, rows["category"]])
            order = np.lexsort((categories, items))
            items, categories = items[order], categories[order]
            first = np.diff(items, prepend=items[:1] - 1) != 0
            items, categories = items[first], categories[first]
        return items, categories

    def behaviors(self) -> Behaviors:
        """All rows in memory-mapped arrays, each user's by time; rows of one moment in the order they came in."""
        users, counts = self.users()
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        items, times = mapped(int(offsets[-1]), np.int64), mapped(int(offsets[-1]), np.int64)
        actions = mapped(int(offsets[-1]), np.int8)
        for rows in self:
            order = np.lexsort((rows["time"], rows["user"]))
            present, first, lengths = np.unique(rows["user"][order], return_index=True, return_counts=True)
            shift = offsets[np.searchsorted(users, present)] - first
            places = np.arange(len(rows)) + np.repeat(shift, lengths)
            items[places] = rows["item"][order]
            times[places] = rows["time"][order]
            actions[places] = rows["action"][order]
        return Behaviors(users, offsets, items, times, actions)


def mapped(length: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros backed by an unnamed temporary file, which lasts as long as the array."""
    if not length:
        return np.zeros(0, dtype=dtype)
    with tempfile.TemporaryFile(prefix="augur-") as file:
        return np.asarray(np.memmap(file, dtype=dtype, mode="w+", shape=(length,)))
