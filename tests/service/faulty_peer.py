"""A proxy in front of a server that fails as told: a real peer on a real socket."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


Fault = Callable[["Handler", Seen], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Peer

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, body)
        with self.server.lock:
            self.server.seen.append(seen)
            fault = self.server.faults.popleft() if self.server.faults else forward
        fault(self, seen)

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

    def send_error(self, *args: Any, **more: Any) -> None:
        """Never of its own accord: a client that speaks no HTTP fails its test."""
        raise AssertionError(args)

    def log_message(self, *_: Any) -> None:
        pass

    def ask_behind(self, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.behind, timeout=20)
        headers = {name: value for name, value in seen.headers.items() if name not in (*HOP_BY_HOP, "host")}
        connection.request(seen.method, seen.path, seen.body or None, headers)
        response = connection.getresponse()
        answer = response.status, response.getheaders(), response.read()
        connection.close()
        return answer

    def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in (*HOP_BY_HOP, "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def forward(handler: Handler, seen: Seen) -> None:
    handler.reply(*handler.ask_behind(seen))


def cut(handler: Handler, _: Seen) -> None:
    """The connection ends before anybody behind has heard of the request."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_after(handler: Handler, seen: Seen) -> None:
    """The request is served, its answer is lost."""
    handler.ask_behind(seen)
    cut(handler, seen)


def cut_within(handler: Handler, seen: Seen) -> None:
    """The answer breaks off."""
    status, _, content = handler.ask_behind(seen)
    handler.wfile.write(b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n" % (status, len(content)))
    handler.wfile.write(content[: len(content) // 2])
    cut(handler, seen)


def refuse(status: int, content: bytes, **headers: str) -> Fault:
    """An answer of the peer's own."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return lambda handler, _: handler.reply(status, named, content)


def drip(handler: Handler, seen: Seen) -> None:
    """An answer of which a byte comes often enough that nobody would call the connection idle; cut after 5 s."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nx-slow: ")
    for _ in range(100):
        if handler.server.stopped.wait(0.05):
            break
        handler.wfile.write(b".")
    cut(handler, seen)


class Peer(ThreadingHTTPServer):
    """Faults happen to the next requests in turn; after them all is forwarded."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = urlsplit(url).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: deque[Fault] = deque()
        self.seen: list[Seen] = []
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: Any) -> None:
        """A client may leave."""

    def fail(self, *faults: Fault) -> None:
        """From now on; what was seen so far is forgotten."""
        with self.lock:
            self.faults, self.seen = deque(faults), []


@contextmanager
def faulty(url: str) -> Iterator[Peer]:
    peer = Peer(url)
    thread = threading.Thread(target=peer.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield peer
    finally:
        peer.stopped.set()
        peer.shutdown()
        thread.join()
        peer.server_close()
