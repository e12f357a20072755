"""Where users' behaviours are kept: one protocol, chosen by the scheme of `AUGUR_STORE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.settings import Settings
from service.stores.records import Appended, Records
from service.stores.url import redact

__all__ = ["BehaviorStore", "StoreError", "StoreRefusedError", "open_store", "redact"]


class StoreError(Exception):
    """The store did not do what it was asked: unreachable, too slow, or refusing."""


class StoreRefusedError(StoreError):
    """The store is there, but did not do this: it refused, or the part of it that was asked is away."""


class BehaviorStore(Protocol):
    """Sequences of behaviours by user id, which is any text.

    Every method but `close` may raise StoreError. An append is atomic for each user and can be repeated: what arrived
    the first time is a duplicate the second time.
    """

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        """Sequences of users, oldest first, empty for one who is not known.

        None for a user who cannot be read while others can: what is stored is no sequence, or is on a server that does
        not answer.
        """

    async def users(self, limit: int) -> list[str]:
        """Some of the users who have behaviours, at most `limit`, which ones is not said; a single cheap look."""

    async def append(self, events: Mapping[str, Records]) -> Appended:
        """Adds events to their users' sequences, by the rule of `records.merge`."""

    async def delete(self, user_id: str) -> bool:
        """Forgets a user; whether there was anything to forget."""

    async def seed(self, sequences: Iterable[tuple[str, Records]], *, replace: bool = False) -> int:
        """Stores whole sequences, oldest first and each event once; how many were stored.

        Users that are known already are left as they are, unless `replace`.
        """

    async def ping(self) -> None:
        """Returns when the store answers."""

    async def close(self) -> None:
        """Lets go of connections."""


def open_store(settings: Settings) -> BehaviorStore:
    """The store that the settings name; nothing is connected before it is used.

    Raises:
        ConfigError: a URL that names no store.
    """
    if settings.store == "memory://":
        from service.stores.memory import MemoryStore

        return MemoryStore(window=settings.window, ttl_seconds=settings.ttl_seconds)
    from service.stores.redis import open_redis

    return open_redis(settings)
