"""Clients that take their time, spoken for with bare sockets."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from process_parts import Process, running
from service_parts import Wire
from uvicorn.server import ServerState

from service import connections, protocol, server
from service.connections import MAX_HEAD_BYTES, Limits, PatientProtocol

BODY = b'{"user_id": "1", "item_ids": [100]}'
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
WHOLE = HEAD % len(BODY) + BODY


@pytest.fixture(scope="module")
def process(artifact_folder: Path) -> Iterator[Process]:
    settings = {"receive_seconds": "1", "max_connections": "12", "linger_seconds": "0", "lanes": "1"}
    with running(model=str(artifact_folder), **settings) as running_process:
        yield running_process
        running_process.popen.terminate()
        code, output = running_process.end()
    assert code == 0
    assert "Traceback" not in output


def connect(process: Process) -> socket.socket:
    address = httpx.URL(process.url)
    connection = socket.create_connection((address.host, address.port), 10)
    connection.settimeout(10)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes."""
    content = b""
    try:
        while more := connection.recv(65536):
            content += more
    except ConnectionResetError:
        pass
    return content


def error_in(content: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = content.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"content-type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]


def closed_counts(process: Process) -> dict[str, float]:
    lines = httpx.get(f"{process.url}/metrics").text.splitlines()
    prefix = 'augur_connections_closed_total{reason="'
    found = [line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix)]
    return {reason: float(count) for reason, count in found}


@pytest.mark.parametrize("start", [b"", WHOLE[:20], WHOLE[:-20]], ids=["head", "later in the head", "body"])
def test_a_request_that_comes_a_byte_at_a_time_is_ended(process: Process, start: bytes) -> None:
    with closing(connect(process)) as slow:
        slow.sendall(start)
        begun = time.monotonic()
        rest = iter(WHOLE[len(start) :])
        slow.settimeout(0.2)
        answer = b""
        while not answer:
            assert time.monotonic() - begun < 5
            slow.sendall(bytes([next(rest)]))
            try:
                answer = slow.recv(65536)
            except TimeoutError:
                continue
        assert 0.8 < time.monotonic() - begun < 3
        status, error = error_in(answer)
        assert (status, error["code"]) == (408, "slow_request")
        assert "AUGUR_RECEIVE_SECONDS" in error["message"]
        slow.settimeout(5)
        assert read_all(slow) == b""
    assert closed_counts(process)["slow_request"] >= 1


def test_a_client_that_stops_within_a_request_is_ended(process: Process) -> None:
    with closing(connect(process)) as slow:
        slow.sendall(WHOLE + WHOLE[:30])
        answers = read_all(slow)
    assert answers.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answers


def test_a_quick_client_keeps_its_connection_far_longer(process: Process) -> None:
    with closing(connect(process)) as patient:
        for _ in range(3):
            patient.sendall(WHOLE)
            assert patient.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.9)


def test_pipelined_requests_are_answered_in_turn(process: Process) -> None:
    with closing(connect(process)) as client:
        client.sendall(WHOLE * 20)
        content = b""
        while content.count(b"HTTP/1.1 200") < 20 or not content.endswith(b"}"):
            content += client.recv(65536)
        assert content.count(b'"scores"') == 20


def test_a_client_that_does_not_read_its_answers_is_ended(process: Process) -> None:
    with closing(connect(process)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n"
        before = closed_counts(process).get("slow_reader", 0)
        deaf.sendall(asked * 8)
        deadline = time.monotonic() + 8
        while closed_counts(process).get("slow_reader", 0) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("piece", [b"x-%d: " + b"y" * 1000 + b"\r\n", b"y" * 1000])
def test_a_head_without_end_is_ended(process: Process, piece: bytes) -> None:
    with closing(connect(process)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nx: ")
        try:
            for number in range(10 * MAX_HEAD_BYTES // 1000):
                client.sendall(piece % number if b"%d" in piece else piece)
        except (ConnectionResetError, BrokenPipeError):
            pass
        answer = read_all(client)
        if answer:  # a reset may overtake it
            assert error_in(answer)[1]["code"] == "head_too_large"
    assert closed_counts(process)["head"] >= 1


def test_what_is_not_http_is_told_so_in_our_form(process: Process) -> None:
    with closing(connect(process)) as client:
        client.sendall(b"hello\r\n\r\n")
        status, error = error_in(read_all(client))
    assert (status, error["code"]) == (400, "malformed_request")


def test_an_idle_connection_gives_way_and_busy_ones_do_not(process: Process) -> None:
    idle = [connect(process) for _ in range(12)]
    for each in idle:
        each.sendall(WHOLE)
        assert each.recv(65536).startswith(b"HTTP/1.1 200")
    # Probes are let in all the same.
    assert httpx.get(f"{process.url}/livez").status_code == 200
    assert closed_counts(process)["idle"] >= 1
    for each in idle:
        each.close()

    time.sleep(0.2)
    busy = [connect(process) for _ in range(12)]
    for each in busy:
        each.sendall(WHOLE[:-1])
    time.sleep(0.2)
    with closing(connect(process)) as one_more:
        status, error = error_in(read_all(one_more))
    assert (status, error["code"]) == (503, "too_many_connections")
    for each in busy:
        each.sendall(WHOLE[-1:])
        assert each.recv(65536).startswith(b"HTTP/1.1 200")
        each.close()


def test_as_many_files_may_be_open_as_connections_take(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 1000))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: set_to.append(limits))
    server.allow_files(500)
    assert set_to == [(756, 1000)]
    assert not caplog.text
    server.allow_files(5000)
    assert set_to[1] == (1000, 1000)
    assert "AUGUR_MAX_CONNECTIONS=5000: only 1000 files may be open" in caplog.text
    monkeypatch.setattr(server, "resource", None)
    server.allow_files(500)
    assert len(set_to) == 2


def test_nothing_is_written_to_a_client_that_went_within_the_turn() -> None:
    class Transport:
        closing, written = False, b""

        def is_closing(self) -> bool:
            return self.closing

        def write(self, data: bytes) -> None:
            self.written += data

    async def scenario() -> tuple[bytes, bytes]:
        stays, goes = Transport(), Transport()
        for transport in (stays, goes):
            joined = protocol.JoinedWrites(transport)  # type: ignore[arg-type]
            joined.write(b"a")
            joined.write(b"b")
        goes.closing = True
        await asyncio.sleep(0)
        return stays.written, goes.written

    assert asyncio.run(scenario()) == (b"ab", b"")


def test_a_connection_that_never_asks_is_ended_once() -> None:
    async def scenario() -> None:
        async def nothing(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError

        config = uvicorn.Config(nothing)
        limits = Limits(receive_seconds=5, max_connections=1, idle_seconds=75)
        made = PatientProtocol(config=config, server_state=ServerState(), app_state={}, limits=limits)
        transport = Wire()
        made.connection_made(transport)
        now = time.monotonic()
        made.check(now + 70)
        assert not transport.closed
        made.check(now + 80)
        assert transport.closed
        made.end("idle")
        assert limits.closed == {"idle": 1}

    asyncio.run(scenario())


def test_what_this_side_does_not_read_is_not_held_against_the_client() -> None:
    async def scenario() -> None:
        async def waits(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()

        limits = Limits(receive_seconds=5, max_connections=1, idle_seconds=75)
        made = PatientProtocol(config=uvicorn.Config(waits), server_state=ServerState(), app_state={}, limits=limits)
        transport = Wire()
        made.connection_made(transport)
        made.data_received(HEAD % 1_000_000 + b"x" * 100_000)
        now = time.monotonic()
        assert made.flow.read_paused
        made.check(now + 10)
        assert not transport.closed
        made.flow.resume_reading()
        made.check(now + 14)
        assert not transport.closed
        made.check(now + 16)
        assert transport.closed
        assert transport.written.startswith(b"HTTP/1.1 408")
        for task in made.tasks:
            task.cancel()

    asyncio.run(scenario())


def test_the_sweep_outlives_a_fault(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        checked = 0

        def check(self, now: float) -> None:
            self.checked += 1
            raise ValueError("broken")

    async def scenario() -> int:
        broken = Broken()
        task = asyncio.create_task(connections.sweep({broken}))
        await asyncio.sleep(0.1)
        task.cancel()
        return broken.checked

    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.01)
    assert asyncio.run(scenario()) > 1
    assert "the check of a connection failed" in caplog.text
