"""The process around the application: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.connections import Limits, sweep
from service.engine import Engine
from service.protocol import Protocol
from service.settings import ConfigError, Settings

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

log = logging.getLogger("augur")

# Longer than the usual 60 s of a proxy, so that it is never this side that closes a connection in the proxy's pool.
KEEP_ALIVE_SECONDS = 75
# What else is open: libraries, the store's connections, a model that is being loaded.
SPARE_FILES = 256


def bind(settings: Settings) -> socket.socket:
    """The socket to serve on, taken before the slow part of the start so that a busy port is told at once.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"AUGUR_HOST={settings.host!r}: {error.strerror}") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    allow_files(settings.max_connections)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(f"AUGUR_PORT={settings.port}: cannot listen on {settings.host}: {error.strerror}") from None
    return bound


def _has_terminal() -> bool:
    """Whether the process has a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def allow_files(connections: int) -> None:
    """Raises the number of files this process may open, as far as it is allowed to, to what connections take."""
    if resource is None:
        return
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            log.warning("AUGUR_MAX_CONNECTIONS=%d: only %d files may be open (ulimit -n)", connections, most)


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, and then leaves in order.

    SIGTERM: readiness fails at once and requests are still taken for `linger_seconds`, in which those who route
    requests here notice; then the listener closes and what is in flight gets `drain_seconds`. SIGINT, from a person at
    the keyboard, skips the first part. The process ends with status 0 either way.

    SIGHUP loads every model again; one from a terminal that closes is as SIGINT.
    """

    def __init__(self, app: FastAPI, settings: Settings, announce: Callable[[], None]) -> None:
        engine: Engine = app.state.engine
        closed = engine.batcher.tallies.closed
        limits = Limits(settings.receive_seconds, settings.max_connections, KEEP_ALIVE_SECONDS, closed)
        super().__init__(
            uvicorn.Config(
                app,
                # Called as the class is.
                http=functools.partial(Protocol, limits=limits),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + 1,
            )
        )
        self._engine = engine
        self._linger = settings.linger_seconds
        self._drain = settings.drain_seconds
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and says so."""
        await super().startup(sockets)
        self._sweep = asyncio.create_task(sweep(self.server_state.connections))
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finishes what is in flight; what is not done at the bound is answered too, with 503."""
        bound = asyncio.get_running_loop().call_later(self._drain, self._engine.batcher.refuse)
        for listener in sockets or ():
            await self._accept_rest(listener)
        await super().shutdown(sockets)
        bound.cancel()
        self._sweep.cancel()

    async def _accept_rest(self, listener: socket.socket) -> None:
        """Takes the connections that clients have made and nobody has accepted yet: closing would break them."""
        loop = asyncio.get_running_loop()
        protocol: Any = self.config.http_protocol_class
        factory = functools.partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        listener.listen(0)  # and as few more as can be
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            await loop.connect_accepted_socket(factory, connection)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals mean a tidy end here; uvicorn's own way would raise them again after it, and not end with 0."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_term, loop)
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        # Whoever starts it with nohup wants it to outlive the terminal.
        self._on_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGHUP)

    def _on_term(self, loop: asyncio.AbstractEventLoop) -> None:
        log.info("SIGTERM: readiness fails from now on, requests are taken for %g s more", self._linger)
        self._engine.drain()
        loop.call_later(self._linger, self._stop)

    def _on_interrupt(self) -> None:
        # A second one means now.
        self.force_exit = self.should_exit
        self._engine.drain()
        self._stop()

    def _on_hangup(self) -> None:
        """From an operator it means to load again; from a terminal that closes, that the person is gone."""
        if self._on_terminal and not _has_terminal():
            self._on_interrupt()
        else:
            self._engine.loader.request_reload()

    def _stop(self) -> None:
        self.should_exit = True
