"""HTTP/1.1 as uvicorn speaks it, patiently (`connections.py`), and with less around an answer.

An answer that is known whole goes to the socket as it is: an application finds `WHOLE` in the scope and may use it in
place of `send`, which looks at every header and writes head and body apart. The rest is written once a turn of the
event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from service.connections import PatientProtocol

WHOLE = "augur.whole"  # of a scope: (head, body, last) -> whether it was sent


class JoinedWrites:
    """A transport that sends what is written within one turn of the event loop at once.

    The head and the body of an answer come apart, and each would be a call of the operating system.
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

    def write_now(self, data: bytes) -> None:
        """Behind what is held."""
        if self._held:
            self._held.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Sends what is held, and closes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():  # the client may have gone within the turn
            self._transport.write(b"".join(held))


class Protocol(PatientProtocol):
    """What serves a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the transport over."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport)))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._served = cycle  # one after the other
        cycle.scope[WHOLE] = self._send_whole
        self.tasks.add(self.loop.create_task(self._run(cycle, app)))

    async def _run(self, cycle: Any, app: Any) -> None:
        try:
            await cycle.run_asgi(app)
        finally:  # here, since a callback would take one more turn of the event loop
            self.tasks.discard(asyncio.current_task())

    def _send_whole(self, head: bytes, body: bytes, last: bool) -> bool:
        """Sends an answer, of whose head every line is ended; after the `last` one the connection is closed.

        False where nothing was sent, since part of it was before or since the client takes nothing now: `send` waits.
        """
        cycle: Any = self._served
        if cycle.response_started or (self.flow.write_paused and not cycle.disconnected):
            return False
        cycle.response_started = cycle.response_complete = True
        if cycle.disconnected:
            return True
        lines = [head, *(b"%s: %s\r\n" % pair for pair in cycle.default_headers)]
        if last or not cycle.keep_alive:
            cycle.keep_alive = False
            lines.append(b"connection: close\r\n")
        self.transport.write_now(b"".join((*lines, b"\r\n", body)))  # type: ignore[attr-defined]
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True
