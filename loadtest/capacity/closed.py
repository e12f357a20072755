"""What a request costs the server's processor: on a few connections, each asking again when it is answered.

No pauses and so no cold processor: what is compared is work. An open loop at a low rate, as in the other parts, adds to
that what waking up costs, of either server.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

from loadtest.openloop import machine
from loadtest.openloop.run import Bench
from loadtest.openloop.target import TargetError

LENGTH = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)
COMPUTED = "augur_lanes_busy_seconds_total"


@dataclass(frozen=True, slots=True)
class Spent:
    """What one request took, in ms, over a span."""

    rate: float  # requests/s
    cpu_ms: float | None  # server CPU; None of a server whose process is not known
    model_ms: float  # of it computing; 0 of a server that does not say

    @property
    def outside_ms(self) -> float | None:
        """The rest."""
        return None if self.cpu_ms is None else self.cpu_ms - self.model_ms


def closed(bench: Bench, connections: int, seconds: float, warmup: float, cpus: Collection[int] = ()) -> Spent:
    """Measures after a warm-up, from this thread, on some cores if they are named.

    Raises TargetError when an answer is not 200 or the server goes away.
    """
    with _on(cpus), _Conversations(bench, connections) as talk:
        talk.run(warmup)
        before, cpu = _computed(bench), _cpu(bench)
        talk.answers = 0
        begun = time.monotonic()
        talk.run(seconds)
        wall = time.monotonic() - begun
        answers = talk.answers
        used = _cpu(bench)
        model = _computed(bench) - before
    ms = None if cpu is None or used is None else (used - cpu) * 1000 / answers
    return Spent(answers / wall, ms, model * 1000 / answers)


def _cpu(bench: Bench) -> float | None:
    pid = bench.target.pid
    return None if pid is None else machine.cpu_seconds(machine.tree(pid))


def _computed(bench: Bench) -> float:
    """Seconds that the server has computed so far."""
    return sum(value for _, value in bench.target.metrics().get(COMPUTED, []))


@contextmanager
def _on(cpus: Collection[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass
class _Conversations:
    """Connections, of which each has one request under way."""

    bench: Bench
    connections: int
    answers: int = 0
    _open: dict[int, socket.socket] = field(default_factory=dict)
    _read: dict[int, bytes] = field(default_factory=dict)

    def __enter__(self) -> _Conversations:
        self._requests = cycle(self.bench.scores)
        self._poll = select.epoll()
        try:
            for _ in range(self.connections):
                connection = socket.create_connection(self.bench.target.address, 10)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open[connection.fileno()] = connection
                self._poll.register(connection, select.EPOLLIN)
                self._ask(connection.fileno())
        except OSError as error:
            self.__exit__()
            raise TargetError(f"{self.bench.target.url}: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        for connection in self._open.values():
            connection.close()

    def run(self, seconds: float) -> None:
        """Goes on for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for place, _ in self._poll.poll(1):
                self._hear(place)

    def _ask(self, place: int) -> None:
        self._read[place] = b""
        self._open[place].sendall(next(self._requests))

    def _hear(self, place: int) -> None:
        try:
            more = self._open[place].recv(65536)
        except OSError as error:
            raise TargetError(f"{self.bench.target.url}: {error}") from error
        self._read[place] += more
        head, end, body = self._read[place].partition(b"\r\n\r\n")
        if not more or (end and not head.startswith(b"HTTP/1.1 200 ")):
            said = (head or b"the connection was closed").split(b"\r\n")[0].decode("latin-1")
            raise TargetError(f"{self.bench.target.url}: {said}")
        length = LENGTH.search(head + b"\r\n") if end else None
        if length is not None and len(body) >= int(length[1]):
            self.answers += 1
            self._ask(place)
