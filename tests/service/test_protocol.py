"""What is written to a connection, without a network: answers that are known whole, and the end of an idle one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvicorn
from service_parts import Wire
from uvicorn.server import ServerState

from service.connections import Limits
from service.protocol import WHOLE, Protocol

BODY = b'{"scores":[0.5]}'
LINES = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)), (b"x-request-id", b"a"))
HEAD = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%s: %s\r\n" % line for line in LINES)
ASKED = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Served:
    """A connection to an application that answers whole, or by `send` where `whole` is False."""

    def __init__(self, *, whole: bool = True, last: bool = False) -> None:
        self.sent: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wire = Wire()
        self.limits = Limits(receive_seconds=5, max_connections=1, idle_seconds=75)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self.gate.wait()
            if whole:
                self.sent.append(scope[WHOLE](HEAD, BODY, last))
                if self.sent[-1]:
                    return
            close = [(b"connection", b"close")] if last else []
            await send({"type": "http.response.start", "status": 200, "headers": [*LINES, *close]})
            await send({"type": "http.response.body", "body": BODY})

        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        config = uvicorn.Config(app, proxy_headers=False)
        self.protocol = Protocol(config=config, server_state=state, app_state={}, limits=self.limits)
        self.protocol.connection_made(self.wire)

    async def ask(self, request: bytes = ASKED) -> bytes:
        before = len(self.wire.written)
        self.protocol.data_received(request)
        for _ in range(20):
            await asyncio.sleep(0)
        return self.wire.written[before:]


def lines(answer: bytes) -> tuple[set[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return set(head.split(b"\r\n")), body


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("request_", [ASKED, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_an_answer_that_is_sent_whole_says_what_one_in_parts_says(request_: bytes, last: bool) -> None:
    async def scenario() -> None:
        whole, parts = Served(last=last), Served(whole=False, last=last)
        answers = [lines(await each.ask(request_)) for each in (whole, parts)]
        assert answers[0] == answers[1]
        assert answers[0][1] == BODY
        assert b"date: today" in answers[0][0]
        assert whole.wire.closed is parts.wire.closed is (last or request_ != ASKED)
        assert whole.wire.writes == 1
        assert whole.protocol.server_state.total_requests == 1

    asyncio.run(scenario())


def test_pipelined_requests_are_answered_one_by_one_and_whole() -> None:
    async def scenario() -> None:
        served = Served()
        served.gate.clear()
        assert await served.ask(ASKED * 3) == b""
        served.gate.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert served.wire.written.count(BODY) == 3
        assert served.sent == [True] * 3

    asyncio.run(scenario())


def test_a_client_that_takes_nothing_is_waited_for() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.pause_writing()
        assert await served.ask() == b""
        assert served.sent == [False]
        served.protocol.resume_writing()
        for _ in range(20):
            await asyncio.sleep(0)
        assert lines(served.wire.written)[1] == BODY

    asyncio.run(scenario())


def test_nothing_is_written_to_a_client_that_went() -> None:
    async def scenario() -> None:
        served = Served()
        served.gate.clear()
        await served.ask()
        served.protocol.connection_lost(None)
        served.gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert (served.sent, served.wire.written) == ([True], b"")

    asyncio.run(scenario())


def test_a_connection_is_ended_when_it_was_idle_for_long_after_its_last_answer() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol._idle_since -= 70
        await served.ask()
        now = time.monotonic()
        served.protocol.check(now + 70)
        assert not served.wire.closed
        served.protocol.check(now + 76)
        assert served.wire.closed
        assert served.limits.closed == {"idle": 1}

    asyncio.run(scenario())
