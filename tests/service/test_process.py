"""The whole server as a process of its own, as an operator meets it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.scorer import load_scorer
from service import launch
from service.__main__ import main
from service.server import bind
from service.settings import ConfigError, Settings
from service.stores import open_store

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """`python -m service`, and what it said at its start."""

    def __init__(self, settings: dict[str, str]) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUGUR_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env=environment | {"AUGUR_PORT": "0"} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        self.lines = [self.popen.stdout.readline() for _ in range(3)]
        self.url = self.lines[1].split()[1] if self.lines[1] else ""

    def end(self, seconds: float = 20) -> tuple[int, str]:
        out, errors = self.popen.communicate(timeout=seconds)
        return self.popen.returncode, out + errors


@contextmanager
def running(**settings: str) -> Iterator[Process]:
    process = Process({f"AUGUR_{name.upper()}": value for name, value in settings.items()})
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def test_a_server_starts_answers_and_leaves_in_order(artifact_folder: Path, data_folder: Path) -> None:
    seed = f"canonical:{data_folder}"
    with running(model=str(artifact_folder), seed=seed, linger_seconds="0.6", threads="1") as process:
        assert process.url, process.end()
        assert re.match(
            r"augur \S+: model tiny \S+ \(DIEN .*store memory:// .*29 users seeded.*1 threads", process.lines[0]
        )

        # The line to paste works as it stands.
        command = shlex.split(process.lines[2].removeprefix("try: "))
        assert command[0] == "curl"
        body = command[command.index("-d") + 1]
        with httpx.Client(base_url=process.url, headers={"content-type": "application/json"}) as client:
            answer = client.post("/v1/score", content=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["history_length"] > 0
            assert answer.json()["unknown_items"] == 0
            assert "server" not in answer.headers
            assert client.get("/readyz").status_code == 200

            process.popen.send_signal(signal.SIGTERM)
            # It goes on answering while those who route requests here take notice.
            deadline = time.monotonic() + 5
            while (ready := client.get("/readyz")).status_code == 200:
                assert time.monotonic() < deadline
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
            assert ready.headers["connection"] == "close"
            assert client.post("/v1/score", content=body).status_code == 200
        ended, output = process.end()
    assert ended == 0
    assert re.fullmatch(r"\S+ \S+ INFO augur: SIGTERM: readiness fails .*0.6 s more\n", output)


def test_ctrl_c_ends_at_once_and_a_store_that_is_away_does_not_stop_the_start(artifact_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
        store = f"redis://:secret@127.0.0.1:{taken.getsockname()[1]}/0"
        with running(model=str(artifact_folder), store=store, linger_seconds="60", host="localhost") as process:
            assert process.url, process.end()
            answer = httpx.post(f"{process.url}/v1/score", json={"user_id": "1", "item_ids": [100]})
            assert answer.json()["degraded"] == "store_unavailable"
            process.popen.send_signal(signal.SIGINT)
            code, output = process.end(5)
    assert code == 0
    assert "does not answer yet" in output
    assert "secret" not in output + "".join(process.lines)
    assert "Traceback" not in output


def test_a_request_in_flight_survives_the_end(artifact_folder: Path) -> None:
    with running(
        model=str(artifact_folder), linger_seconds="0", max_wait_us="700000", inline_candidates="0"
    ) as process:
        url = f"{process.url}/v1/score"

        async def scenario() -> httpx.Response:
            async with httpx.AsyncClient() as client:
                asked = asyncio.ensure_future(client.post(url, json={"user_id": "1", "item_ids": [100]}))
                await asyncio.sleep(0.3)
                process.popen.send_signal(signal.SIGTERM)
                return await asked

        assert asyncio.run(scenario()).status_code == 200
        assert process.end()[0] == 0


def test_what_is_not_done_in_time_is_told_so(artifact_folder: Path) -> None:
    """One request waits for a batch longer than the drain, another one never sends its whole body."""
    settings = {"linger_seconds": "0", "drain_seconds": "0.2", "max_wait_us": "1000000", "inline_candidates": "0"}
    with running(model=str(artifact_folder), **settings) as process:
        address = httpx.URL(process.url)
        head = "POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        body = '{"user_id": "1", "item_ids": [100]}'
        with (
            socket.create_connection((address.host, address.port)) as whole,
            socket.create_connection((address.host, address.port)) as half,
        ):
            whole.sendall((head.format(len(body)) + body).encode())
            half.sendall((head.format(len(body) + 1) + body).encode())
            time.sleep(0.2)
            process.popen.send_signal(signal.SIGTERM)
            for connection in (whole, half):
                connection.settimeout(10)
                answer = connection.makefile().read()
                assert answer.startswith("HTTP/1.1 503 ")
                assert '"code": "draining"' in answer
        assert process.end()[0] == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"AUGUR_PRT": "1"}, "AUGUR_PRT='1': no such setting"),
        ({"AUGUR_STORE": "mysql://h"}, "AUGUR_STORE='mysql://h': memory://"),
        ({"AUGUR_HOST": "no.such.host.invalid"}, "AUGUR_HOST='no.such.host.invalid'"),
        ({"AUGUR_MODEL": "/nowhere"}, "/nowhere"),
        ({"AUGUR_SEED": "csv:/nowhere"}, "csv"),
        ({"AUGUR_SEED": "canonical:/nowhere"}, "/nowhere"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line_and_status_2(
    settings: dict[str, str], says: str, artifact_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], {"AUGUR_MODEL": str(artifact_folder), "AUGUR_PORT": "0"} | settings) == 2
    error = capsys.readouterr().err
    assert error.startswith("augur: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_busy_port_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main([], {"AUGUR_MODEL": "/nowhere", "AUGUR_PORT": str(port)}) == 2
    assert capsys.readouterr().err == (
        f"augur: AUGUR_PORT={port}: cannot listen on 127.0.0.1: Address already in use\n"
    )


def test_a_process_says_the_same(artifact_folder: Path) -> None:
    with running(model=str(artifact_folder), window="none") as process:
        assert process.end() == (2, "augur: AUGUR_WINDOW='none': a whole number\n")


def test_help_lists_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"], {})
    assert ended.value.code == 0
    assert "AUGUR_STORE_TIMEOUT_MS" in capsys.readouterr().out


def test_the_address_is_written_as_an_address() -> None:
    with bind(Settings(port=0)) as listener:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", launch.url_of(listener))
    try:
        listener = bind(Settings(host="::1", port=0))
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert re.fullmatch(r"http://\[::1\]:\d+", launch.url_of(listener))


def test_without_a_data_set_the_request_to_try_is_one_all_the_same(artifact_folder: Path) -> None:
    assert '"user_id"' in launch.try_line("http://h", load_scorer(artifact_folder), None)


def test_without_uvloop_it_serves_and_says_what_to_expect(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert launch.loop_factory() is asyncio.SelectorEventLoop
    assert "uvloop is not installed" in caplog.text


def test_redis_can_be_seeded_too(redis_server: Any, data_folder: Path, artifact_folder: Path) -> None:
    settings = Settings(store=redis_server.url, store_timeout_ms=2000)
    seed = f"canonical:{data_folder}"
    with running(model=str(artifact_folder), store=redis_server.url, seed=seed) as process:
        assert "29 users seeded" in process.lines[0]

    async def read() -> Any:
        store = open_store(settings)
        try:
            return await store.histories(["1"])
        finally:
            await store.close()

    (found,) = asyncio.run(read())
    assert len(found) >= 12
