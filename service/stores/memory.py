"""Behaviours in this process: gone when it ends, shared with nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from service.stores.records import Appended, Records, empty, merge, unpack


class MemoryStore:
    """`memory://`: packed sequences in a dictionary, in the order of their last write."""

    def __init__(self, *, window: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._ttl = ttl_seconds
        self._clock = clock
        self._sequences: dict[str, tuple[bytes, float]] = {}  # packed records, time of the last write

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        """See `BehaviorStore`."""
        return [self.read(user_id) for user_id in user_ids]

    async def users(self, limit: int) -> list[str]:
        """See `BehaviorStore`; those written longest ago."""
        self._forget_expired()
        return list(islice(self._sequences, limit))

    async def append(self, events: Mapping[str, Records]) -> Appended:
        """See `BehaviorStore`."""
        self._forget_expired()
        total = Appended()
        for user_id, arriving in events.items():
            sequence, appended = merge(self.read(user_id), arriving, self._window)
            total += appended
            if appended.accepted:
                # Out and in again, so that the dictionary stays in the order of the last write.
                self._sequences.pop(user_id, None)
                self._sequences[user_id] = (sequence.tobytes(), self._clock())
        return total

    async def delete(self, user_id: str) -> bool:
        """See `BehaviorStore`."""
        self._forget_expired()
        return self._sequences.pop(user_id, None) is not None

    async def seed(self, sequences: Iterable[tuple[str, Records]], *, replace: bool = False) -> int:
        """See `BehaviorStore`."""
        self._forget_expired()
        stored, now = 0, self._clock()
        for user_id, records in sequences:
            if replace or user_id not in self._sequences:
                self._sequences.pop(user_id, None)
                self._sequences[user_id] = (records[-self._window :].tobytes(), now)
                stored += 1
        return stored

    async def ping(self) -> None:
        """See `BehaviorStore`."""

    async def close(self) -> None:
        """See `BehaviorStore`."""

    def read(self, user_id: str) -> Records:
        """A user's sequence, empty where there is none."""
        value, written = self._sequences.get(user_id, (b"", 0.0))
        if not value or self._expired(written):
            return empty()
        return unpack(value)

    def _expired(self, written: float) -> bool:
        return self._ttl > 0 and self._clock() - written >= self._ttl

    def _forget_expired(self) -> None:
        """The oldest writes come first, so that this looks at what it drops and at one more."""
        while self._sequences:
            user_id = next(iter(self._sequences))
            if not self._expired(self._sequences[user_id][1]):
                return
            del self._sequences[user_id]
