"""Servers of a load test's own: started, waited for, pinned to cores if asked, and told to stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

from loadtest.traffic import DATA

ROOT = Path(__file__).resolve().parents[1]
SERVER = (sys.executable, "-m", "service")
START_SECONDS = 120.0
READY_SECONDS = 10.0
STOP_SECONDS = 30.0


class ServerError(RuntimeError):
    """A server that did not start, does not answer, or did not stop in order."""


class OwnServer(NamedTuple):
    """A server that was started here."""

    url: str
    pid: int


def end_on_term() -> None:
    """From here on SIGTERM ends this process by way of its context managers: no server is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def own_server(
    log: Path,
    command: Sequence[str] = SERVER,
    *,
    cpus: Collection[int] = (),
    endings: Collection[int] = (0,),
    environment: dict[str, str] | None = None,
) -> Iterator[OwnServer]:
    """A server that is ready, and is told to stop at the end.

    Settings come from the environment, as for any server, but for the address; without AUGUR_SEED it has the bundled
    users. `{port}` in the command becomes a free port; without it the server is to say `serving http://...` itself.
    `endings` are the exit statuses that count as an orderly end. Raises ServerError for a server that does not start or
    does not end in order.
    """
    port = _free_port() if any("{port}" in part for part in command) else 0
    command = [part.replace("{port}", str(port)) for part in command]
    settings = {"AUGUR_SEED": f"kuairand:{DATA}"} | os.environ | (environment or {})
    settings |= {"AUGUR_HOST": "127.0.0.1", "AUGUR_PORT": str(port)}
    with log.open("w") as output:
        try:
            with pinned(cpus):
                server = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise ServerError(f"{command[0]}: {error.strerror}") from None
    try:
        yield OwnServer(_address(server, log, f"http://127.0.0.1:{port}" if port else None), server.pid)
    finally:
        status = _stop(server)
    if status not in endings:
        raise ServerError(f"the server answered SIGTERM with status {status}, not 0; see {log}")


@contextmanager
def pinned(cpus: Collection[int]) -> Iterator[None]:
    """Processes that are started inside run on these cores alone, from their first moment; on any without."""
    if not cpus:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _stop(server: subprocess.Popen[bytes]) -> int | str:
    """The exit status after SIGTERM."""
    server.terminate()
    try:
        return server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return f"nothing in {STOP_SECONDS:g} s"


def _address(server: subprocess.Popen[bytes], log: Path, known: str | None) -> str:
    """Where it listens, once it is ready."""
    begin = time.monotonic()
    while not (url := known if known and _listens(known) else _said(log)):
        if server.poll() is not None or time.monotonic() - begin > START_SECONDS:
            raise ServerError(f"the server did not start; it said:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    wait_until_ready(url)
    return url


def _said(log: Path) -> str | None:
    said = re.search(r"^serving (http://\S+)", log.read_text(), re.MULTILINE)
    return said[1] if said else None


def _listens(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until_ready(url: str) -> None:
    """Returns when /readyz answers 200. Raises ServerError when it does not in time, or `url` is none."""
    # No proxy of the environment is to stand between the two.
    opener = build_opener(ProxyHandler({}))
    begin = time.monotonic()
    while True:
        try:
            with opener.open(f"{url}/readyz", timeout=2):
                return
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() - begin > READY_SECONDS:
                raise ServerError(f"{url}/readyz: {error}") from None
        time.sleep(0.2)
