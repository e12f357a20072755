"""Where the commands of a store go when one server has all keys: a fixed one, or the primary that sentinels name."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from service.stores.node import Command, Node, NodeError
from service.stores.url import Address
from service.stores.watch import Watch

log = logging.getLogger("augur.store")

# Sentinels can name another primary while the one before still answers; what is written there meanwhile is lost.
LOOK_SECONDS = 1.0

Keyed = tuple[bytes, Command]  # a command and the key it is about
MakeNode = Callable[..., Node]


class TooFewReplicasError(Exception):
    """A write was carried out, but fewer replicas than asked for said that they have it."""


class Servers(Protocol):
    """The servers of a store. Deadlines are of the loop's clock; an error reply stands in the place of a reply."""

    async def get(self, keys: Sequence[bytes], deadline: float) -> list[Any]:
        """Values of keys; NodeError when no server answers, or in the place of values whose server does not."""

    async def run(self, commands: Sequence[Keyed], deadline: float, replicas: int = 0) -> list[Any]:
        """Replies to commands, each once that many replicas have what it wrote. NodeErrors as of `get`."""

    async def ping(self, deadline: float) -> None:
        """Returns when all primaries answer; NodeError when one does not."""

    async def close(self) -> None:
        """Lets go of connections."""


class OneServer(ABC):
    """A server that has all keys."""

    async def get(self, keys: Sequence[bytes], deadline: float) -> list[Any]:
        """See `Servers`; one MGET."""
        (values,) = await self._exchange([("MGET", *keys)], deadline)
        if isinstance(values, Exception):
            raise values
        found: list[Any] = values
        return found

    async def run(self, commands: Sequence[Keyed], deadline: float, replicas: int = 0) -> list[Any]:
        """See `Servers`; one round trip."""
        sent = [command for _, command in commands]
        if not replicas:
            return await self._exchange(sent, deadline)
        return replicated(await self._exchange([*sent, wait(replicas, deadline)], deadline), replicas)

    async def ping(self, deadline: float) -> None:
        """See `Servers`."""
        (reply,) = await self._exchange([("PING",)], deadline)
        if isinstance(reply, Exception):
            raise NodeError(str(reply))

    @abstractmethod
    async def close(self) -> None:
        """See `Servers`."""

    @abstractmethod
    async def _primary(self, deadline: float) -> Node:
        """The server to speak to; NodeError when none is known."""

    @abstractmethod
    def _doubt(self, node: Node) -> None:
        """A server did not behave as the primary."""

    async def _exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        node = await self._primary(deadline)
        try:
            replies = await node.exchange(commands, deadline)
        except NodeError:
            self._doubt(node)
            raise
        if any(is_read_only(reply) for reply in replies):
            self._doubt(node)
        return replies


class FixedServer(OneServer):
    """`redis://`: the server at an address."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def close(self) -> None:
        """See `Servers`."""
        await self._node.close()

    async def _primary(self, deadline: float) -> Node:
        return self._node

    def _doubt(self, node: Node) -> None:
        """There is no other."""


class Sentinels(OneServer):
    """`redis+sentinel://`: the server that sentinels name as primary, followed when they name another.

    It is looked for in the background: every second, and at once when a server fails or says that it is a replica.
    """

    def __init__(self, service: str, sentinels: Sequence[Node], make_node: MakeNode, timeout: float) -> None:
        self._node: Node | None = None
        self._service = service
        self._sentinels = sentinels
        self._make_node = make_node
        self._timeout = timeout
        self._watch = Watch(self._look, NodeError, every=LOOK_SECONDS)

    async def close(self) -> None:
        """See `Servers`."""
        await self._watch.close()
        for node in (self._node, *self._sentinels):
            if node is not None:
                await node.close()

    async def _primary(self, deadline: float) -> Node:
        if self._node is None:
            await self._watch.tried(deadline)
        if self._node is None:
            raise NodeError(f"no sentinel names a primary of {self._service!r} that answers")
        return self._node

    def _doubt(self, node: Node) -> None:
        if node is self._node:
            self._watch.start()

    async def _look(self) -> bool:
        """Asks who is the primary, and whether it agrees."""
        address = await self._ask()
        node = self._node
        if node is None or node.address != address:
            node = self._make_node(address, greet=must_be_primary)
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            ((role, *_),) = await node.exchange([("ROLE",)], deadline)
            if role != b"master":
                raise NodeError(f"{node}: not a primary")
        except (NodeError, ValueError, TypeError) as error:
            if node is not self._node:
                await node.close()
            raise NodeError(str(error)) from error
        if node is not self._node:
            log.info("the primary of %s is %s", self._service, node)
            before, self._node = self._node, node
            if before is not None:
                await before.close()
        return True

    async def _ask(self) -> Address:
        """The address that most sentinels name.

        One alone may be behind, and name a primary that was replaced and has come back without what it had.
        """
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        deadline = asyncio.get_running_loop().time() + self._timeout
        asked = (sentinel.exchange([command], deadline) for sentinel in self._sentinels)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        votes = Counter(
            (answer[0][0].decode(), int(answer[0][1]))
            for answer in answers
            if isinstance(answer, list) and isinstance(answer[0], list)
        )
        for address, count in votes.most_common(1):
            if 2 * count > votes.total():
                return address
        raise NodeError(f"sentinels do not agree on a primary: {answers}")


async def must_be_primary(connection: Connection) -> None:
    """Refuses a server that is a replica: one that was demoted would answer reads from its past, and no write."""
    await connection.send_command("ROLE", check_health=False)
    role = await connection.read_response()
    if role[0] != b"master":
        raise RedisConnectionError("not a primary")


def is_read_only(reply: object) -> bool:
    """Whether a server says that it is a replica; from inside a script, older servers say so in their own words."""
    return isinstance(reply, ReadOnlyError) or (isinstance(reply, ResponseError) and "READONLY" in str(reply))


def wait(replicas: int, deadline: float) -> Command:
    """The command that follows writes: return when so many replicas have them, or in half of the time that is left.

    Servers notice that such a wait is over up to 100 ms late.
    """
    left = deadline - asyncio.get_running_loop().time()
    return "WAIT", replicas, max(1, int(left * 500))


def replicated(replies: list[Any], replicas: int) -> list[Any]:
    """Replies to writes without that to `wait`; an error in the place of each that too few replicas have."""
    *written, having = replies
    if isinstance(having, int) and having >= replicas:
        return written
    lacking = TooFewReplicasError(f"{having} replicas have the write: {replicas} asked for")
    return [reply if isinstance(reply, Exception) else lacking for reply in written]
