"""Behaviours in Redis: one packed string for each user, appended to by one script.

Exactly once within the window. An acknowledged write can still be lost by Redis itself, when a primary fails before
its replica has it or between two of its own syncs to disk; `AUGUR_STORE_REPLICAS` and Redis' own settings narrow that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha1
from importlib.resources import files
from itertools import islice
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from service.settings import Settings
from service.stores import StoreError, StoreRefusedError
from service.stores.cluster import Cluster
from service.stores.node import Command, Dialer, Node, NodeError
from service.stores.records import Appended, Records, empty, unpack
from service.stores.servers import FixedServer, Keyed, Sentinels, Servers
from service.stores.url import Kind, StoreUrl, parse

log = logging.getLogger("augur.store")

APPEND = files("service.stores").joinpath("append.lua").read_bytes()
APPEND_SHA = sha1(APPEND, usedforsecurity=False).hexdigest()
PREFIX = "augur:1:{"
LOOKED_AT = 1000  # keys among which to find users, where some are asked for
SEED_CHUNK = 500
SEED_SECONDS = 10.0
# No request waits so long: a connection that takes longer than a read is there for the next one.
CONNECT_SECONDS = 1.0


def key(user_id: str) -> bytes:
    """The key of a user: `augur`, the version of the layout, the id as hash tag with its braces escaped."""
    safe = user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"{PREFIX}{safe}}}".encode()


def user_of(name: bytes) -> str:
    """The user of a key."""
    safe = name.decode()[len(PREFIX) : -1]
    return safe.replace("%7B", "{").replace("%7D", "}").replace("%25", "%")


class RedisStore:
    """Behaviours on the servers that a URL names.

    A read or a write ends at its timeout, and nothing is tried again but what a server did not take: a script that it
    does not know, a key that is another's.
    """

    def __init__(self, settings: Settings, servers: Servers) -> None:
        self._window = settings.window
        self._ttl_ms = settings.ttl_seconds * 1000
        self._replicas = settings.store_replicas
        self._read_timeout = settings.store_timeout_ms / 1000
        self._write_timeout = settings.store_write_timeout_ms / 1000
        self._servers = servers

    async def histories(self, user_ids: Sequence[str]) -> list[Records | None]:
        """See `BehaviorStore`; one round trip for each server that has some of the users, all at once."""
        if not user_ids:
            return []
        deadline = asyncio.get_running_loop().time() + self._read_timeout
        try:
            values = await self._servers.get([key(user_id) for user_id in user_ids], deadline)
        except (NodeError, ResponseError) as error:
            raise _failure("read", error) from error
        return [_records(value) for value in values]

    async def users(self, limit: int) -> list[str]:
        """See `BehaviorStore`; of a cluster those on one of its servers."""
        deadline = asyncio.get_running_loop().time() + self._read_timeout
        scan = ("SCAN", 0, "MATCH", f"{PREFIX}*", "COUNT", LOOKED_AT)
        try:
            replies = await self._servers.run([(key(""), scan)], deadline)
        except NodeError as error:
            raise _failure("users", error) from error
        _, names = _checked("users", replies)[0]
        return [user_of(name) for name in names[:limit]]

    async def append(self, events: Mapping[str, Records]) -> Appended:
        """See `BehaviorStore`; one round trip for each server, each user's append atomic by itself."""
        # A write that changes nothing has nothing to wait for; asked to, the script writes even then.
        always = int(self._replicas > 0)
        arguments = {
            user_id: (1, key(user_id), self._window, self._ttl_ms, always, records.tobytes())
            for user_id, records in events.items()
        }
        deadline = asyncio.get_running_loop().time() + self._write_timeout
        replies = await self._write("append", _scripts("EVALSHA", APPEND_SHA, arguments.values()), deadline)
        lacking = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lacking:
            again = [list(arguments.values())[place] for place in lacking]
            # EVAL also leaves the script with the server for the next time.
            repeated = await self._write("append", _scripts("EVAL", APPEND, again), deadline)
            for place, reply in zip(lacking, repeated, strict=True):
                replies[place] = reply
        total = Appended()
        for reply in _checked("append", replies):
            total += Appended(*reply)
        return total

    async def delete(self, user_id: str) -> bool:
        """See `BehaviorStore`."""
        name = key(user_id)
        deadline = asyncio.get_running_loop().time() + self._write_timeout
        replies = await self._write("delete", [(name, ("DEL", name))], deadline)
        return bool(_checked("delete", replies)[0])

    async def seed(self, sequences: Iterable[tuple[str, Records]], *, replace: bool = False) -> int:
        """See `BehaviorStore`."""
        stored = 0
        options: Command = (() if replace else ("NX",)) + (("PX", self._ttl_ms) if self._ttl_ms else ())
        for chunk in _chunks(iter(sequences), SEED_CHUNK):
            commands: list[Keyed] = []
            for user_id, records in chunk:
                name = key(user_id)
                commands.append((name, ("SET", name, records[-self._window :].tobytes(), *options)))
            deadline = asyncio.get_running_loop().time() + max(self._write_timeout, SEED_SECONDS)
            replies = await self._write("seed", commands, deadline)
            stored += sum(reply is not None for reply in _checked("seed", replies))
        return stored

    async def ping(self) -> None:
        """See `BehaviorStore`."""
        try:
            await self._servers.ping(asyncio.get_running_loop().time() + self._write_timeout)
        except NodeError as error:
            raise _failure("ping", error) from error

    async def close(self) -> None:
        """See `BehaviorStore`."""
        await self._servers.close()

    async def _write(self, doing: str, commands: Sequence[Keyed], deadline: float) -> list[Any]:
        try:
            return await self._servers.run(commands, deadline, self._replicas)
        except NodeError as error:
            raise _failure(doing, error) from error


def open_redis(settings: Settings) -> RedisStore:
    """The store at the URL of the settings; nothing is connected before it is used.

    Raises:
        ConfigError: a URL that names no store, or certificates that cannot be used.
    """
    url = parse(settings.store)
    return RedisStore(settings, _servers(url, settings))


def _servers(url: StoreUrl, settings: Settings) -> Servers:
    timeout = settings.store_write_timeout_ms / 1000
    make_node = partial(
        Node,
        dialer=Dialer(url, settings.store),
        connections=settings.store_connections,
        connect_timeout=max(timeout, CONNECT_SECONDS),
    )
    if url.kind is Kind.CLUSTER:
        return Cluster(url.addresses, make_node, timeout)
    if url.kind is Kind.SENTINEL:
        dialer = Dialer(url.of_sentinels(), settings.store)
        sentinels = [Node(each, dialer=dialer, connections=2, connect_timeout=timeout) for each in url.addresses]
        return Sentinels(url.service, sentinels, make_node, timeout)
    return FixedServer(make_node(url.addresses[0]))


def _scripts(verb: str, script: str | bytes, arguments: Iterable[tuple[Any, ...]]) -> list[Keyed]:
    return [(each[1], (verb, script, *each)) for each in arguments]


def _checked(doing: str, replies: Sequence[Any]) -> Sequence[Any]:
    """Replies without an error among them; the first one is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise StoreRefusedError(f"{doing}: {_text(reply)}") from reply
    return replies


def _failure(doing: str, error: Exception) -> StoreError:
    return (StoreError if isinstance(error, NodeError) else StoreRefusedError)(f"{doing}: {_text(error)}")


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, NodeError) else f"{type(error).__name__}: {error}"


def _records(value: bytes | Exception | None) -> Records | None:
    if isinstance(value, Exception):
        log.debug("a user cannot be read: %s", value)
        return None
    try:
        return unpack(value) if value else empty()
    except ValueError as error:
        log.error("a stored sequence cannot be read: %s", error)
        return None


def _chunks(rows: Iterator[tuple[str, Records]], size: int) -> Iterator[list[tuple[str, Records]]]:
    while chunk := list(islice(rows, size)):
        yield chunk
