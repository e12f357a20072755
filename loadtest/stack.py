"""`python -m loadtest.stack`: the composition of docker/ as processes on loopback, where there is no container engine.

Redis, scorers, and HAProxy with the configuration of docker/haproxy; only addresses are others. It needs redis-server,
redis-cli and haproxy, and runs until it is told to stop.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from loadtest.servers import ROOT, SERVER, START_SECONDS, STOP_SECONDS, ServerError, end_on_term, wait_until_ready
from loadtest.traffic import DATA

LOCALHOST = "127.0.0.1"
RIGHTS = ("+get", "+mget", "+set", "+del", "+evalsha", "+eval", "+ping", "+select", "+scan")
TOOLS = ("redis-server", "redis-cli", "haproxy")
PROXY = ROOT / "docker" / "haproxy" / "haproxy.cfg"
REDIS = ROOT / "docker" / "redis" / "redis.conf"
SCORER_LINE = re.compile(r"^    server (?P<name>\S+) (?P<address>\S+) id (?P<id>\d+)\n", re.MULTILINE)
# Nodes of a cluster trust each other, and the one who makes it, on a network of their own.
OPEN_CLUSTER = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "--cluster-enabled", "yes"]
SOON_SECONDS = 15.0  # for what is a matter of a second on a machine with a core to spare


def free_port() -> int:
    """A port that is free, and the one by which nodes of a cluster speak among themselves, too.

    None that the system gives to those who connect: it has to be free again after a restart.
    """
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind((LOCALHOST, port))
                bus.bind((LOCALHOST, port + 10_000))
            except OSError:
                continue
            return port
    raise ServerError("no free port")


def until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns when it has happened; a ServerError says what did not."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise ServerError(f"{what}: not within {seconds:g} s")
        time.sleep(0.03)


class Process:
    """A process with a log of its own."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
            )

    def listens(self, port: int) -> bool:
        """Whether a port is answered; a ServerError has the log of a process that ended instead."""
        if self.popen.poll() is not None:
            raise ServerError(f"{self.name} ended with status {self.popen.returncode}:\n{self.log.read_text()[-2000:]}")
        try:
            socket.create_connection((LOCALHOST, port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit status of a process that was told to stop, or was killed because it did not in time."""
        try:
            return self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


class Redis:
    """One server with the shipped configuration and its one user, or a cluster of primaries without replicas."""

    def __init__(self, folder: Path, primaries: int = 1) -> None:
        self._folder = folder
        self.ports = [free_port() for _ in range(primaries)]
        self._servers: list[Process] = []

    @property
    def url(self) -> str:
        """For AUGUR_STORE."""
        if len(self.ports) == 1:
            return f"redis://augur:loopback@{LOCALHOST}:{self.ports[0]}/0"
        return "redis+cluster://" + ",".join(f"{LOCALHOST}:{port}" for port in self.ports)

    def start(self) -> None:
        """Returns when it can be written to."""
        alone = len(self.ports) == 1
        for port in self.ports:
            folder = self._folder / f"redis-{port}"
            folder.mkdir()
            own = ["--port", str(port), "--bind", LOCALHOST, "--dir", str(folder)]
            own += user("loopback") if alone else OPEN_CLUSTER
            server = Process(f"redis-{port}", ["redis-server", str(REDIS), *own], self._folder, os.environ)
            self._servers.append(server)
        for server, port in zip(self._servers, self.ports, strict=True):
            until(lambda: server.listens(port), SOON_SECONDS, server.name)  # noqa: B023
        if not alone:
            self._join()

    def _join(self) -> None:
        nodes = [f"{LOCALHOST}:{port}" for port in self.ports]
        create = ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"]
        made = subprocess.run(create, capture_output=True, text=True, check=False, timeout=60)
        if made.returncode:
            raise ServerError(f"redis-cli --cluster create: {made.stdout[-1000:]}{made.stderr[-1000:]}")
        until(lambda: all(map(self._joined, self.ports)), SOON_SECONDS, "a cluster all of whose nodes are well")

    @staticmethod
    def _joined(port: int) -> bool:
        ask = ["redis-cli", "-p", str(port), "cluster", "info"]
        return "cluster_state:ok" in subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout

    def stop(self) -> None:
        """Without a last word to the disk: what it kept goes with its folder."""
        for server in self._servers:
            server.stop(signal.SIGKILL)


def user(password: str) -> list[str]:
    """Arguments of redis-server: the one user, with what a scorer needs, as in docker/compose.yaml."""
    return ["--user", "default", "off", "--user", "augur", "on", f">{password}", "~augur:1:*", *RIGHTS]


class Scorer:
    """One scorer on a port of its own, which it keeps over restarts."""

    def __init__(self, place: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.place, self.name = place, f"scorer-{place}"
        self.port = free_port()
        self._folder = folder
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("AUGUR_")}
        self._environment |= {"AUGUR_HOST": LOCALHOST, "AUGUR_PORT": str(self.port), **environment}
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Without the proxy."""
        return f"http://{LOCALHOST}:{self.port}"

    def start(self) -> None:
        """Does not wait."""
        self.process = Process(self.name, SERVER, self._folder, self._environment)

    def wait(self) -> None:
        """Returns when it is ready."""
        process = self.process
        if process is None:
            raise ServerError(f"{self.name} was not started")
        until(lambda: process.listens(self.port), START_SECONDS, self.name)
        wait_until_ready(self.url)

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """The exit status after a signal; None for one that does not run."""
        process, self.process = self.process, None
        return process.stop(number) if process is not None else None


class Proxy:
    """HAProxy with the shipped configuration but for addresses."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder
        self.port, self._metrics = port or free_port(), free_port()
        # A path that fits in the address of a socket, wherever the folder is.
        self._sockets = Path(tempfile.mkdtemp(prefix="augur-"))
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://{LOCALHOST}:{self.port}"

    def configuration(self, scorers: Sequence[Scorer]) -> str:
        """The shipped one with these scorers in the place of its own."""
        shipped = PROXY.read_text()
        lines = "".join(f"    server {each.name} {LOCALHOST}:{each.port} id {each.place}\n" for each in scorers)
        places = list(SCORER_LINE.finditer(shipped))
        text = shipped[: places[0].start()] + lines + shipped[places[-1].end() :]
        text = text.replace("bind :8000", f"bind {LOCALHOST}:{self.port}")
        text = text.replace("bind :8404", f"bind {LOCALHOST}:{self._metrics}")
        return text.replace("/tmp/haproxy.sock", str(self._sockets / "stats"))

    def start(self, scorers: Sequence[Scorer]) -> None:
        """Returns when it knows all of them to be ready."""
        file = self._folder / "haproxy.cfg"
        file.write_text(self.configuration(scorers))
        self._process = Process("haproxy", ["haproxy", "-W", "-db", "-f", str(file)], self._folder, os.environ)
        self._settle(scorers)

    def reload(self, scorers: Sequence[Scorer]) -> None:
        """Goes on with these scorers; returns when new connections are theirs."""
        if self._process is None:
            raise ServerError("haproxy was not started")
        before = self.workers()
        (self._folder / "haproxy.cfg").write_text(self.configuration(scorers))
        self._process.popen.send_signal(signal.SIGUSR2)
        until(lambda: self.workers() != before, SOON_SECONDS, "a reload of haproxy")
        self._settle(scorers)

    def _settle(self, scorers: Sequence[Scorer]) -> None:
        process, wanted = self._process, {each.name: "UP" for each in scorers}
        if process is None:
            raise ServerError("haproxy was not started")
        until(lambda: process.listens(self.port) and self.states() == wanted, SOON_SECONDS, f"{wanted} in haproxy")

    def workers(self) -> str:
        """The process that answers now."""
        return next((line for line in self.ask("show info").splitlines() if line.startswith("Pid:")), "")

    def states(self) -> dict[str, str]:
        """What it knows of each scorer: UP, DOWN, or on the way from one to the other."""
        rows = [line.split(",") for line in self.ask("show stat").splitlines() if line.startswith("scorers,")]
        # Ready is what was checked to be, not what is taken for it until the first check.
        checked = {row[1]: row[17] if row[36] == "L7OK" or row[17] != "UP" else "unchecked" for row in rows}
        return {name: state for name, state in checked.items() if name != "BACKEND"}

    def ask(self, command: str) -> str:
        """The answer of its own socket; nothing while there is none."""
        with socket.socket(socket.AF_UNIX) as speaker:
            speaker.settimeout(5)
            try:
                speaker.connect(str(self._sockets / "stats"))
                speaker.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: speaker.recv(65536), b"")).decode()
            except OSError:
                return ""

    def stop(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)


class Stack:
    """All of it, started; `scorers` are those that the proxy sends requests to."""

    def __init__(self, folder: Path, redis: Redis, proxy: Proxy, environment: Mapping[str, str]) -> None:
        self.folder, self.redis, self.proxy = folder, redis, proxy
        self.scorers: list[Scorer] = []
        self.started: list[Scorer] = []  # also those that the proxy does not know
        self._environment = {"AUGUR_STORE": redis.url, **environment}

    def scorer(self, place: int) -> Scorer:
        """A new scorer, started but unknown to the proxy."""
        made = Scorer(place, self.folder, self._environment)
        self.started.append(made)
        made.start()
        return made

    def add(self, scorer: Scorer) -> None:
        """From here on it has its share of the users."""
        scorer.wait()
        self.scorers.append(scorer)
        self.proxy.reload(self.scorers)

    def remove(self, scorer: Scorer) -> int | None:
        """Out of the proxy first, then told to stop; its exit status."""
        self.scorers.remove(scorer)
        self.proxy.reload(self.scorers)
        return scorer.stop()

    def restart(self, scorer: Scorer) -> int | None:
        """As an upgrade does: told to stop, started again; the exit status. Returns when the proxy uses it again."""
        status = scorer.stop()
        scorer.start()
        self.recovered(scorer)
        return status

    def recovered(self, scorer: Scorer) -> None:
        """Returns when a scorer that was started again has its users back."""
        scorer.wait()
        until(lambda: self.proxy.states()[scorer.name] == "UP", SOON_SECONDS, f"{scorer.name} in the proxy")


@contextmanager
def stack(
    folder: Path, *, scorers: int = 3, primaries: int = 1, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Redis, so many scorers and the proxy in front of them, all ready; logs are in `folder`.

    Raises ServerError for a part that is missing or does not start.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise ServerError(f"not installed: {', '.join(missing)}")
    with ExitStack() as ends:
        redis, proxy = Redis(folder, primaries), Proxy(folder, port)
        ends.callback(proxy.stop)
        ends.callback(redis.stop)
        redis.start()
        made = Stack(folder, redis, proxy, environment or {})
        ends.callback(_stop_all, made)
        made.scorers += [made.scorer(place + 1) for place in range(scorers)]
        for each in made.scorers:
            each.wait()
        proxy.start(made.scorers)
        yield made


def _stop_all(made: Stack) -> None:
    running = [each.process for each in made.started if each.process is not None]
    for process in running:
        process.popen.send_signal(signal.SIGINT)  # which does not linger
    for process in running:
        process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until told to stop. Returns 0, or 1 when a part is missing or does not start."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.stack", description="The composition, on loopback.")
    parser.add_argument("--scorers", type=int, default=3, help="how many (3)")
    parser.add_argument("--primaries", type=int, default=1, help="of Redis; 3 or more are a cluster (1)")
    parser.add_argument("--port", type=int, default=8000, help="of the proxy (8000)")
    parser.add_argument("--out", type=Path, default=Path("runs/stack"), help="folder of the logs (runs/stack)")
    chosen: Any = parser.parse_args(arguments)
    shutil.rmtree(chosen.out, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    try:
        with stack(
            chosen.out.resolve(), scorers=chosen.scorers, primaries=chosen.primaries, port=chosen.port
        ) as running:
            seed = [sys.executable, "-m", "service.seed", "--store", running.redis.url, "--data", f"kuairand:{DATA}"]
            subprocess.run(seed, cwd=ROOT, check=True)
            for each in running.scorers:
                print(f"{each.name} {each.url}")
            print(f"serving {running.proxy.url}", flush=True)
            signal.pause()
    except ServerError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
