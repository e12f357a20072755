"""A server that is told to stop under load: no client that follows `Connection: close` loses a request."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest
from process_parts import running

pytestmark = pytest.mark.usefixtures("unwatched_processes")
BODY = b'{"user_id": "%d", "item_ids": [100, 101, 102]}'
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Client:
    """Sends one request after the other on a kept connection, and a new one when it is told to close the old one."""

    def __init__(self, url: str, number: int) -> None:
        address = httpx.URL(url)
        self._host, self._port = address.host, address.port
        body = BODY % number
        self._request = HEAD % len(body) + body
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        """Until nobody listens any more, which is how a client learns that a server is gone."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                return
            try:
                await self._use(reader, writer)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.outcomes[f"lost: {type(error).__name__}"] += 1
            finally:
                writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.outcomes[head.split()[1].decode()] += 1
            if b"connection: close" in head:
                self.outcomes["told to close"] += 1
                return


@pytest.mark.parametrize("linger", ["0.3", "0"])
def test_no_request_is_lost(artifact_folder: Path, linger: str) -> None:
    with running(model=str(artifact_folder), linger_seconds=linger, drain_seconds="5") as process:

        async def scenario() -> Counter[str]:
            clients = [Client(process.url, number) for number in range(24)]
            running_clients = [asyncio.ensure_future(each.run()) for each in clients]
            await asyncio.sleep(1)
            process.popen.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*running_clients), 20)
            return sum((each.outcomes for each in clients), Counter())

        outcomes = asyncio.run(scenario())
        ended, output = process.end()
    assert ended == 0
    assert set(outcomes) == {"200", "told to close"}, outcomes
    assert outcomes["200"] > 100
    assert "ERROR" not in output
