"""Where users' behaviours are kept: one protocol, chosen by the scheme of `AUGUR_STORE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.settings import ConfigError, Settings
from service.stores.records import Appended, Records


class StoreError(Exception):
    """The store did not do what it was asked: unreachable, too slow, or refusing."""


class BehaviorStore(Protocol):
    """Sequences of behaviours by user id, which is any text.

    Every method but `close` may raise StoreError. An append is atomic for each user and can be repeated: what arrived
    the first time is a duplicate the second time.
    """

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        """Sequences of users, oldest first, empty for one who is not known.

        None where a value is there and is no sequence: that user cannot be read, the others can.
        """

    async def append(self, events: Mapping[str, Records]) -> Appended:
        """Adds events to their users' sequences, by the rule of `records.merge`."""

    async def delete(self, user_id: str) -> bool:
        """Forgets a user; whether there was anything to forget."""

    async def seed(self, sequences: Iterable[tuple[str, Records]]) -> int:
        """Stores whole sequences, oldest first, of users that are not known yet; how many were stored."""

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
        from service.stores.memory import MemoryStore  # noqa: PLC0415

        return MemoryStore(window=settings.window, ttl_seconds=settings.ttl_seconds)
    if settings.store.startswith(("redis://", "rediss://")):
        from service.stores.redis import RedisStore  # noqa: PLC0415

        return RedisStore(settings)
    raise ConfigError(
        f"AUGUR_STORE={redact(settings.store)!r}: memory://, redis://HOST:PORT/DB or rediss://HOST:PORT/DB"
    )


def redact(url: str) -> str:
    """A store's URL without the password and options in it, for people to read."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
