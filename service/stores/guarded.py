"""The guard in front of a store: a circuit breaker, and what a score is computed from when the store does not answer.

The ladder of a read: the stored sequence; else what this process last read for that user, a short while ago; else
nothing. Each answer says on which step it stands.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from service.settings import Settings
from service.stores import BehaviorStore, StoreError, StoreRefusedError
from service.stores.breaker import Breaker
from service.stores.memory import MemoryStore
from service.stores.records import Appended, Records, empty, merge

log = logging.getLogger("augur.store")
Result = TypeVar("Result")

STALE = "store_stale"
UNAVAILABLE = "store_unavailable"


class Recalled(NamedTuple):
    """What is known of a user."""

    records: Records  # oldest first; empty where nothing is known
    degraded: str | None  # None: as stored; `store_stale`: a local copy; `store_unavailable`: nothing is known


class LocalCopies:
    """What this process last read, bounded in users and in age, with what it has written since.

    A copy is never older than a write that this process acknowledged: the write is kept beside it, until it is used.
    """

    def __init__(self, users: int, seconds: float, window: int, clock: Callable[[], float]) -> None:
        self._users = users
        self._seconds = seconds
        self._window = window
        self._clock = clock
        # By the time of reading, which stands last.
        self._copies: OrderedDict[str, tuple[Records, tuple[Records, ...], float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._copies)

    def keep(self, read: Iterable[tuple[str, Records]]) -> None:
        """Sequences just read; those that are too many or too old go."""
        now, copies = self._clock(), self._copies
        for user_id, records in read:
            copies[user_id] = (records, (), now)
            copies.move_to_end(user_id)
        while copies and (len(copies) > self._users or now - next(iter(copies.values()))[2] > self._seconds):
            copies.popitem(last=False)

    def add(self, events: Mapping[str, Records]) -> None:
        """An acknowledged write."""
        for user_id, arriving in events.items():
            if user_id in self._copies:
                records, written, read_at = self._copies[user_id]
                if sum(map(len, written)) + len(arriving) > self._window:
                    del self._copies[user_id]
                else:
                    self._copies[user_id] = (records, (*written, arriving), read_at)

    def drop(self, user_id: str) -> None:
        """The copy is no longer what the store has."""
        self._copies.pop(user_id, None)

    def find(self, user_id: str) -> Records | None:
        """The copy of a user; None where there is none that is young enough."""
        records, written, read_at = self._copies.get(user_id, (None, (), 0.0))
        if records is None or self._clock() - read_at > self._seconds:
            return None
        for arriving in written:
            records, _ = merge(records, arriving, self._window)
        return records


class GuardedStore:
    """A store behind a guard. Reads for scores go through `recall`, which always answers; all else raises StoreError.

    `counts` grows with what happened: reads, read_users, read_errors, write_errors, and of `recall`'s users stale and
    empty; opened, each time the breaker left the store alone.
    """

    def __init__(self, store: BehaviorStore, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._clock = clock
        self._told_at = float("-inf")
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds, self.counts, clock)
        seconds = min(settings.stale_seconds, settings.ttl_seconds or settings.stale_seconds)
        self._copies = LocalCopies(settings.stale_users, seconds, settings.window, clock)
        # For each read under way, users that were written meanwhile: what it returns may be older than the write.
        self._reading: list[set[str]] = []

    @property
    def breaker_state(self) -> str:
        """`closed`, `open` or `half_open`."""
        return self._breaker.state

    @property
    def local(self) -> bool:
        """The store is a part of this process: what it has is known without waiting, and nothing can fail."""
        return isinstance(self._store, MemoryStore)

    def recall_local(self, user_ids: Iterable[str]) -> dict[str, Recalled]:
        """What is known of users, of a local store."""
        assert isinstance(self._store, MemoryStore)
        read = self._store.read
        found = {user_id: Recalled(read(user_id), None) for user_id in user_ids}
        self.counts["reads"] += 1
        self.counts["read_users"] += len(found)
        return found

    async def recall(self, user_ids: Sequence[str]) -> list[Recalled]:
        """What is known of users, and how well; never raises StoreError."""
        written: set[str] = set()
        self._reading.append(written)
        try:
            sequences = await self.histories(user_ids)
        except StoreError:
            return [self._fallback(user_id) for user_id in user_ids]
        finally:
            self._reading = [each for each in self._reading if each is not written]
        found = zip(user_ids, sequences, strict=True)
        self._copies.keep((user, records) for user, records in found if records is not None and user not in written)
        return [
            self._fallback(user) if records is None else Recalled(records, None)
            for user, records in zip(user_ids, sequences, strict=True)
        ]

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        """See `BehaviorStore`."""
        self.counts["reads"] += 1
        self.counts["read_users"] += len(user_ids)
        return await self._guard("read_errors", self._store.histories, user_ids)

    async def users(self, limit: int) -> list[str]:
        """See `BehaviorStore`."""
        return await self._guard("read_errors", self._store.users, limit)

    async def append(self, events: Mapping[str, Records]) -> Appended:
        """See `BehaviorStore`."""
        with self._writing(events):
            appended = await self._guard("write_errors", self._store.append, events)
            self._copies.add(events)
        return appended

    async def delete(self, user_id: str) -> bool:
        """See `BehaviorStore`."""
        with self._writing([user_id]):
            try:
                return await self._guard("write_errors", self._store.delete, user_id)
            finally:
                # Even when it failed: who is to be forgotten is not remembered here.
                self._copies.drop(user_id)

    async def seed(self, sequences: Iterable[tuple[str, Records]], *, replace: bool = False) -> int:
        """See `BehaviorStore`; for before requests are served, and not part of what opens the breaker."""
        return await self._store.seed(sequences, replace=replace)

    async def ping(self) -> None:
        """See `BehaviorStore`; asks the store even while the breaker is open."""
        await self._store.ping()

    async def close(self) -> None:
        """See `BehaviorStore`."""
        await self._store.close()

    def _fallback(self, user_id: str) -> Recalled:
        records = self._copies.find(user_id)
        self.counts["empty" if records is None else "stale"] += 1
        return Recalled(empty(), UNAVAILABLE) if records is None else Recalled(records, STALE)

    @contextmanager
    def _writing(self, users: Iterable[str]) -> Iterator[None]:
        """Reads under way leave no copies of these users, neither those of the write's begin nor of its end."""
        try:
            yield
        finally:
            for written in self._reading:
                written.update(users)

    async def _guard(self, errors: str, call: Callable[..., Awaitable[Result]], *arguments: object) -> Result:
        permit = self._breaker.admit()
        if permit is None:
            self.counts[errors] += 1
            raise StoreError("the store failed several times in a row and is left alone for a moment")
        try:
            result = await call(*arguments)
        except StoreError as error:
            self.counts[errors] += 1
            self._tell(error)
            self._breaker.report(permit, well=isinstance(error, StoreRefusedError))
            raise
        except BaseException:
            self._breaker.give_back(permit)
            raise
        self._breaker.report(permit, well=True)
        return result

    def _tell(self, error: StoreError) -> None:
        """Logs what is wrong with the store; in an outage once a second, and not for every request."""
        now = self._clock()
        if now - self._told_at >= 1:
            self._told_at = now
            log.warning("the store: %s", error)
