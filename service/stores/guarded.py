"""The guard in front of a store: what a score is computed from when the store does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.settings import Settings
from service.stores import BehaviorStore, StoreError
from service.stores.records import Records, empty

UNAVAILABLE = "store_unavailable"


class Recalled(NamedTuple):
    """What is known of a user."""

    records: Records  # oldest first; empty where nothing is known
    degraded: str | None  # why they are less than what is stored


class GuardedStore:
    """A store behind a guard. Reads for scores go through `recall`, which always answers; all else may fail."""

    def __init__(self, store: BehaviorStore, settings: Settings) -> None:
        self._store = store
        self.histories, self.append, self.delete = store.histories, store.append, store.delete
        self.seed, self.ping, self.close = store.seed, store.ping, store.close

    async def recall(self, user_ids: Sequence[str]) -> list[Recalled]:
        """What is known of users, and how well."""
        found: Sequence[Records | None]
        try:
            found = await self.histories(user_ids)
        except StoreError:
            found = [None] * len(user_ids)
        return [Recalled(empty(), UNAVAILABLE) if records is None else Recalled(records, None) for records in found]
