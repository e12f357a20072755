"""How long a connection may take and how many there may be: what keeps slow and idle clients from using all there is.

A request has `AUGUR_RECEIVE_SECONDS` from its first byte to its last, an answer as long to be taken. There is no timer
for each request: a request leaves the time it began, and a sweep looks through the connections twice a second.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import errors

log = logging.getLogger("augur.http")

SWEEP_SECONDS = 0.5
MAX_HEAD_BYTES = 65_536
# How many connections are looked at for one that is idle. Most are, on a server that is not under attack.
LOOKED_AT = 64
# After the listener has closed: for requests that were on their way.
PARTING_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections share."""

    receive_seconds: float
    max_connections: int
    idle_seconds: float  # without a request
    closed: Counter[str] = field(default_factory=Counter)  # by reason


class PatientProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to its patience."""

    def __init__(self, *args: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._idle_since = time.monotonic()
        self._begun: float | None = None  # when the request began that is being received
        self._in_head = False
        self._head_bytes = 0
        self._full: float | None = None  # since when something waits to be taken

    @property
    def idle(self) -> bool:
        """No request is being received, served or answered."""
        return self._begun is None and not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the transport over, if there is room for one more."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._make_room()

    def _make_room(self) -> None:
        some = itertools.islice(self.connections, LOOKED_AT)
        for other in some:
            if other is not self and isinstance(other, PatientProtocol) and other.idle:
                other.end("idle")
                return
        most = self._limits.max_connections
        self.end("limit", errors.TooManyConnectionsError(f"{most} connections are open (AUGUR_MAX_CONNECTIONS)"))

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                message = f"a request line and headers of more than {MAX_HEAD_BYTES} bytes: at most that"
                self.end("head", errors.HeadTooLargeError(message))

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._begun = time.monotonic()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """The end of its head."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Its last byte."""
        self._begun = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The end of an answer. uvicorn would set a timer here, and stop it at the next request."""
        self._idle_since = time.monotonic()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets an answer in our form."""
        self.end("malformed", errors.MalformedRequestError(msg.rstrip(".").lower()))

    def end(self, reason: str, error: errors.AugurError | None = None) -> None:
        """Closes the connection, with an error if nothing else is under way that it would be taken for."""
        if self.transport.is_closing():
            return
        self._limits.closed[reason] += 1
        if error is not None and self._can_tell():
            self.transport.write(raw(error))
        self.transport.close()

    def _can_tell(self) -> bool:
        cycle = self.cycle
        return not self.pipeline and (
            cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)
        )

    def check(self, now: float) -> None:
        """Ends the connection if its time is up."""
        limit = self._limits.receive_seconds
        if not self.transport.get_write_buffer_size():
            self._full = None
        elif self._full is None:
            self._full = now
        elif now - self._full > limit:
            self._limits.closed["slow_reader"] += 1
            self.transport.abort()
            return
        if self.flow.read_paused:
            # It is this side that does not read.
            self._begun = None if self._begun is None else now
        elif self._begun is not None and now - self._begun > limit:
            message = f"the request was not whole within {limit:g} s (AUGUR_RECEIVE_SECONDS)"
            self.end("slow_request", errors.SlowRequestError(message))
        elif self.idle and now - self._idle_since > self._limits.idle_seconds:
            self.end("idle")

    def shutdown(self) -> None:
        """The server stops: a request that is served or on its way is answered first."""
        if self.idle:
            self.loop.call_later(PARTING_SECONDS, self._part)
        elif self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()

    def _part(self) -> None:
        if self.idle and not self.transport.is_closing():
            self.transport.close()


def raw(error: errors.AugurError) -> bytes:
    """An error as the bytes of an answer, for where no application answers."""
    response = errors.to_response(error)
    lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", bytes(response.body)])


async def sweep(connections: set[Any]) -> None:
    """Looks through the connections, without end."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = time.monotonic()
        for connection in list(connections):
            try:
                connection.check(now)
            except Exception:
                log.exception("the check of a connection failed")
