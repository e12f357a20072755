"""Connections, kept open between calls, and what their failures are to a caller."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

import httpcore

from service.client.errors import AugurError, DeadlineExceededError, UnreachableError
from service.client.exchange import Answer, Request

# The server closes what was idle for 75 s; a proxy may do so earlier, which is noticed before the next use.
IDLE_SECONDS = 60.0
# Bytes handed over at a time, of which the deadline is looked at in between.
PIECE = 16_384

FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol)
NEVER_SENT = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.LocalProtocolError,
    httpcore.UnsupportedProtocol,
)


def pool_options(connections: int, ssl_context: SSLContext | None) -> dict[str, Any]:
    """What both kinds of pool take."""
    if connections < 1:
        raise ValueError(f"connections={connections}: 1 or more")
    return {
        "ssl_context": ssl_context,
        "max_connections": connections,
        "max_keepalive_connections": connections,
        "keepalive_expiry": IDLE_SECONDS,
    }


class Address:
    """Where requests go."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = parts.scheme.encode(), (parts.hostname or "").encode(), parts.port
        self._host = parts.netloc

    def of(self, request: Request) -> tuple[httpcore.URL, list[tuple[str, str]]]:
        """The address of a request, and its headers."""
        scheme, host, port = self._place
        url = httpcore.URL(scheme=scheme, host=host, port=port, target=request.target.encode())
        return url, [("host", self._host), *request.headers.items()]


def answer(response: httpcore.Response) -> Answer:
    """A response that was read to its end."""
    names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(response.status, names, response.content)


def failure(error: Exception, url: str) -> AugurError:
    """What a failure of a connection is to a caller."""
    sent = not isinstance(error, NEVER_SENT)
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        what = "no answer" if sent else "no connection"
        return DeadlineExceededError(f"{what} in time", code="deadline_exceeded", may_have_acted=sent)
    what = "the connection broke" if sent else "no connection"
    reason = str(error) or type(error).__name__
    return UnreachableError(f"{url}: {what} ({reason})", code="unreachable", may_have_acted=sent)


class DeadlineBackend(httpcore.NetworkBackend):
    """Sockets on which every timeout is a time of `time.monotonic`, so that many small steps take no longer than one.

    Looking up a name is the operating system's, and takes what it takes.
    """

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first address of a name that takes the connection."""
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _addresses(host, port):
            try:
                left = _left(timeout, httpcore.ConnectTimeout)
                return DeadlineStream(self._inner.connect_tcp(address, port, left, local_address, socket_options or ()))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class DeadlineStream(httpcore.NetworkStream):
    """A connection of `DeadlineBackend`."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived."""
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of it."""
        for begin in range(0, len(buffer), PIECE):
            self._inner.write(buffer[begin : begin + PIECE], _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """The end of it."""
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted."""
        left = _left(timeout, httpcore.ConnectTimeout)
        return DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        """Of the connection beneath."""
        return self._inner.get_extra_info(info)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    return [str(address[4][0]) for address in found]


def _left(deadline: float | None, late: type[Exception]) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise late("the deadline passed")
    return left
