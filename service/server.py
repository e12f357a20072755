"""The process around the application: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.engine import Engine
from service.settings import ConfigError, Settings

log = logging.getLogger("augur")

# Longer than the usual 60 s of a proxy, so that it is never this side that closes a connection in the proxy's pool.
KEEP_ALIVE_SECONDS = 75


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


class JoinedWrites:
    """A transport that sends what is written within one turn of the event loop at once.

    The head and the body of an answer come apart, and each would be a call of the operating system: a third of what the
    server costs at a small request.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Held until the turn ends."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Sends what is held, and closes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held:
            self._transport.write(b"".join(held))


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, in fewer writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the transport over."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport)))


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, and then leaves in order.

    SIGTERM: readiness fails at once and requests are still taken for `linger_seconds`, in which those who route
    requests here notice; then the listener closes and what is in flight gets `drain_seconds`. SIGINT, from a person at
    the keyboard, skips the first part. The process ends with status 0 either way.

    SIGHUP loads every model again; one from a terminal that closes is as SIGINT.
    """

    def __init__(self, app: FastAPI, settings: Settings, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + 1,
            )
        )
        self._engine: Engine = app.state.engine
        self._linger = settings.linger_seconds
        self._drain = settings.drain_seconds
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and says so."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finishes what is in flight; what is not done at the bound is answered too, with 503."""
        bound = asyncio.get_running_loop().call_later(self._drain, self._engine.batcher.refuse)
        await super().shutdown(sockets)
        bound.cancel()

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
