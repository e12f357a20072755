"""One Redis server: a bounded set of connections, and the one way to speak over them.

What redis-py's own pool and client do around a command (retries, health checks, metrics, a timeout for each read) costs
more than the command; here a call is one write, one wait, and one bound on both. A connection is opened beside the call
that wants it, so that a handshake longer than a read's timeout still ends in a connection for the next read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from service.settings import ConfigError
from service.stores.url import Address, StoreUrl, redact

Command = tuple[bytes | str | int, ...]


class NodeError(Exception):
    """A server that did not answer: refused, hung up, or silent for too long."""


class Dialer:
    """Makes connections as a URL asks for them, to any address.

    Raises:
        ConfigError: certificates of the URL that cannot be used.
    """

    def __init__(self, url: StoreUrl, stated: str) -> None:
        self._options: dict[str, Any] = dict(url.options) | {"db": url.database, "protocol": 2, "socket_timeout": None}
        self._kind = SSLConnection if url.tls else Connection
        self._tls: Any = None
        if url.tls:
            # One for all connections: reading certificates takes milliseconds.
            self._tls = SSLConnection(**self._options).ssl_context
            try:
                self._tls.get()
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"AUGUR_STORE={redact(stated)!r}: certificates: {error}") from None

    def dial(self, address: Address, timeout: float) -> Connection:
        """A connection that is not open yet."""
        host, port = address
        made = self._kind(host=host, port=port, socket_connect_timeout=timeout, **self._options)
        if self._tls is not None:
            made.ssl_context = self._tls  # type: ignore[attr-defined]
        return made


class Node:
    """A server at one address.

    `failures` counts the calls in a row that it did not answer, `latest` is the deadline of the last call.

    Args:
        greet: what is asked over a new connection before it is used; raises what a server that is the wrong one should
            look like, a redis or operating system error.
    """

    def __init__(
        self,
        address: Address,
        dialer: Dialer,
        *,
        connections: int,
        connect_timeout: float,
        greet: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self.address = address
        self.failures = 0
        self.latest = 0.0
        self._dialer = dialer
        self._most = connections
        self._connect_timeout = connect_timeout
        self._greet = greet
        self._open = 0  # connections, those being opened included
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._opening = 0  # of those
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    def __str__(self) -> str:
        return "{}:{}".format(*self.address)

    async def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Sends commands in one write and reads a reply to each; an error reply stands in its place.

        Args:
            commands: each with its arguments.
            deadline: of the loop's clock, for all of it.

        Raises:
            NodeError: no whole answer. Commands may have been carried out or not.
        """
        self.latest = deadline
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        try:
            async with asyncio.timeout_at(deadline):
                replies = await self._talk(packed)
        except TimeoutError:
            self.failures += 1
            raise NodeError(f"{self}: no answer in time") from None
        except (RedisError, OSError) as error:
            self.failures += 1
            raise NodeError(f"{self}: {type(error).__name__}: {error}") from error
        self.failures = 0
        return replies

    async def close(self) -> None:
        """Lets go of connections; one in use is closed when its call ends."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_waiting(RedisConnectionError("closed"))
        while self._idle:
            self._drop(self._idle.pop())
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _talk(self, packed: Sequence[bytes]) -> list[Any]:
        connection = await self._take()
        try:
            await connection.send_packed_command(packed, check_health=False)
            replies: list[Any] = []
            for _ in packed:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            # An answer could still come over it, and would be taken for that to another question.
            self._drop(connection)
            raise
        if self._closed:
            self._drop(connection)
        else:
            self._give(connection)
        return replies

    async def _take(self) -> Connection:
        """The connection used last, so that those a burst opened rest; a new one if there is room; else one's turn."""
        if self._closed:
            raise RedisConnectionError("closed")
        while self._idle:
            connection = self._idle.pop()
            # Readable without a question: the server hung up.
            if not await connection.can_read():
                return connection
            self._drop(connection)
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._grow()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled() and not waiter.exception():
                self._give(waiter.result())
            raise

    def _give(self, connection: Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _fail_waiting(self, error: Exception) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _drop(self, connection: Connection) -> None:
        self._open -= 1
        self._hang_up(connection)
        self._grow()

    def _hang_up(self, connection: Connection) -> None:
        """Beside the call: TLS takes its leave in several steps."""
        task = asyncio.get_running_loop().create_task(_disconnect(connection))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _grow(self) -> None:
        """Opens one more connection if somebody waits for it and there is room."""
        if len(self._waiting) > self._opening and self._open < self._most and not self._closed:
            self._open += 1
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        connection = self._dialer.dial(self.address, self._connect_timeout)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
                if self._greet is not None:
                    await self._greet(connection)
        except BaseException as error:
            self._open -= 1
            self._opening -= 1
            self._hang_up(connection)
            if not isinstance(error, RedisError | OSError):  # a TimeoutError is one of the latter
                raise
            self._fail_waiting(error)
        else:
            self._opening -= 1
            self._give(connection)


async def _disconnect(connection: Connection) -> None:
    """Closes a connection; one whose peer does not take its leave is closed all the same."""
    try:
        await connection.disconnect()
    except (RedisError, OSError):
        await connection.disconnect(nowait=True)
