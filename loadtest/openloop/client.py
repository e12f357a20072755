"""The client: sends each request when it is due, on connections that are kept, and notes what became of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import httptools
import numpy as np
import numpy.typing as npt

from loadtest.openloop.alarm import Alarm
from loadtest.openloop.samples import NO_CONNECTION, PARTS, SAMPLE, TIMED_OUT, WRONG_ANSWER, Samples
from loadtest.openloop.schedule import Places, Times
from loadtest.traffic import wrong, wrong_scores

CHECKED_EVERY = 10  # one answer in so many is read whole; the client's time is the server's loss on one machine
LOOK_SECONDS = 0.02  # between looks for what has timed out
PART = re.compile(rb"(\w+)[^,]*?;\s*dur=([0-9.]+)")
DEGRADED = re.compile(rb'"degraded":\s*"')
UNKNOWN = (float("nan"),) * len(PARTS)


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker sends in one run."""

    host: str
    port: int
    data: list[bytes]  # different requests
    expected: list[int]  # scores in the answer to each; 0: not looked at
    times: Times  # [N] seconds after `begin`
    kinds: npt.NDArray[np.int8]  # [N]
    places: Places  # [N] in `data`
    begin: float  # of `time.monotonic`
    timeout: float = 10.0
    connections: int = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job."""

    samples: Samples
    connections: int  # opened, those that replaced others among them
    waited: int  # requests that were due while every connection allowed was busy


class Connection(asyncio.Protocol):
    """One connection, with one request on it at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.request = -1  # its place in the job; -1: none
        self._timing = UNKNOWN
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = transport  # type: ignore[assignment]
        self._client.opened()
        self._client.is_free(self)

    def send(self, request: int, data: bytes) -> None:
        """Gives a request to the socket."""
        self.request = request
        self._timing = UNKNOWN
        self._body.clear()
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """From the parser."""
        if name.lower() == b"server-timing":
            parts = {part.decode(): float(took) for part, took in PART.findall(value)}
            self._timing = tuple(parts.get(part, float("nan")) for part in PARTS)

    def on_body(self, body: bytes) -> None:
        """From the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """From the parser."""
        request, self.request = self.request, -1
        if request < 0:  # an answer to nothing that was asked
            self.abort()
            return
        self._client.answered(request, self._parser.get_status_code(), bytes(self._body), self._timing)
        if self._parser.should_keep_alive():
            self._client.is_free(self)
        else:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """From asyncio."""
        self._transport = None
        self._client.lost(self)


class Client:
    """Runs one job on an event loop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._samples = np.zeros(len(job.times), dtype=SAMPLE)
        self._samples["kind"], self._samples["intended"] = job.kinds, job.times
        for name in ("sent", "done", *PARTS):
            self._samples[name] = np.nan
        self._times: list[float] = job.times.tolist()
        self._finished = bytearray(len(job.times))
        self._left = len(job.times)
        self._next = self._oldest = 0
        self._idle: list[Connection] = []
        self._busy: dict[int, Connection] = {}
        self._waiting: deque[int] = deque()
        self._open = self._opened = self._waited = self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    async def run(self) -> Outcome:
        """Returns when every request has been answered or given up."""
        with Alarm(self._loop, self._due) as self._alarm:
            self._due()
            self._look()
            if self._left:
                await self._over.wait()
        for connection in [*self._idle, *self._busy.values()]:
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return Outcome(self._samples, self._opened, self._waited)

    def now(self) -> float:
        """Seconds after the start."""
        return time.monotonic() - self._job.begin

    def _due(self) -> None:
        """Sends all that is due and sets the alarm for what comes next."""
        while self._next < len(self._times) and self._times[self._next] <= self.now():
            self._dispatch(self._next)
            self._next += 1
        if self._next < len(self._times):
            self._alarm.set(self._job.begin + self._times[self._next])

    def _dispatch(self, request: int) -> None:
        if self._idle:
            self._send(self._idle.pop(), request)
            return
        self._waiting.append(request)
        if not self._open_one():
            self._waited += 1

    def _open_one(self) -> bool:
        """Begins to open a connection, if one more is allowed."""
        if self._open + self._opening >= self._job.connections:
            return False
        self._opening += 1
        task = self._loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: Connection(self), self._job.host, self._job.port)
        except OSError:
            self._opening -= 1
            self._drop_given_up()
            if self._waiting:
                self._finish(self._waiting.popleft(), NO_CONNECTION)
            if self._waiting:
                self._open_one()

    def _drop_given_up(self) -> None:
        while self._waiting and self._finished[self._waiting[0]]:
            self._waiting.popleft()

    def is_free(self, connection: Connection) -> None:
        """A connection is new, or has had its answer: it takes what waits longest, or waits itself."""
        self._drop_given_up()
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def opened(self) -> None:
        """A connection is new."""
        self._opening -= 1
        self._open += 1
        self._opened += 1

    def _send(self, connection: Connection, request: int) -> None:
        self._busy[request] = connection
        self._samples["sent"][request] = self.now()
        connection.send(request, self._job.data[self._job.places[request]])

    def answered(self, request: int, status: int, body: bytes, timing: tuple[float, ...]) -> None:
        """The answer to a request is whole."""
        if self._finished[request]:  # given up a moment ago
            return
        self._finish(request, status)
        sample: Any = self._samples[request]
        sample["queue"], sample["store"], sample["compute"] = timing
        sample["degraded"] = status == 200 and DEGRADED.search(body) is not None
        expected = self._job.expected[self._job.places[request]]
        if expected and status == 200 and request % CHECKED_EVERY == 0:
            text = body.decode("utf-8", "replace")
            if wrong(status, text, lambda answer: wrong_scores(answer["scores"], expected)) is not None:
                sample["status"] = WRONG_ANSWER

    def lost(self, connection: Connection) -> None:
        """A connection is closed, by either side."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.request >= 0 and not self._finished[connection.request]:
            self._finish(connection.request, NO_CONNECTION)
        self._drop_given_up()
        if self._waiting:  # perhaps for this one
            self._open_one()

    def _finish(self, request: int, status: int) -> None:
        self._finished[request] = True
        self._busy.pop(request, None)
        self._samples["done"][request] = self.now()
        self._samples["status"][request] = status
        self._left -= 1
        if not self._left:
            self._over.set()

    def _look(self) -> None:
        """Gives up what was due longer ago than the timeout."""
        bound = self.now() - self._job.timeout
        while self._oldest < self._next and (self._finished[self._oldest] or self._times[self._oldest] < bound):
            if not self._finished[self._oldest]:
                connection = self._busy.get(self._oldest)
                self._finish(self._oldest, TIMED_OUT)
                if connection is not None:
                    connection.abort()
            self._oldest += 1
        if self._left:
            self._loop.call_later(LOOK_SECONDS, self._look)
