"""A real server process whose models change while clients ask."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import model_versions as versions
import pytest
from test_process import ROOT, Process, running

ITEMS = list(range(100, 120))


class Clients:
    """Threads that ask without pause, each for a user of its own, until they are told to stop."""

    def __init__(self, url: str, users: int) -> None:
        self.seen: dict[str, list[str]] = {str(user): [] for user in range(users)}
        self.failures: list[str] = []
        self.slowest = 0.0
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(user,)) for user in self.seen]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, user: str) -> None:
        with httpx.Client(base_url=self._url) as client:
            while not self._stop.is_set():
                begun = time.perf_counter()
                answer = client.post("/v1/score", json={"user_id": user, "item_ids": ITEMS})
                self.slowest = max(self.slowest, time.perf_counter() - begun)
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    return
                self.seen[user].append(answer.json()["version"])

    def wait_for(self, version: str) -> None:
        """Until every user has seen it."""
        deadline = time.monotonic() + 20
        while not all(seen and seen[-1] == version for seen in self.seen.values()):
            assert not self.failures
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def folder(artifact_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(artifact_folder, tmp_path / "models" / "now")
    return tmp_path / "models" / "now"


def distinct(seen: list[str]) -> list[str]:
    """The versions in the order in which they were seen, each as often as it came back."""
    return [version for place, version in enumerate(seen) if place == 0 or version != seen[place - 1]]


def test_under_load_no_request_fails_and_versions_change_once_in_order(folder: Path) -> None:
    with running(model=str(folder)) as process, Clients(process.url, 4) as clients:
        first = httpx.get(f"{process.url}/v1/models").json()["models"][0]["version"]
        clients.wait_for(first)
        expected = [first]
        for step in (0.01, 0.02, 0.03):
            expected.append(versions.near(folder, folder, step))
            answer = httpx.post(f"{process.url}/v1/models/tiny/load", timeout=30)
            assert answer.status_code == 200, answer.text
            assert answer.json()["previous_version"] == expected[-2]
            assert answer.json()["comparison"]["recent"] == 32
            clients.wait_for(expected[-1])
            # A broken one in between changes nothing.
            versions.flip(folder)
            answer = httpx.post(f"{process.url}/v1/models/tiny/load", timeout=30)
            assert answer.json()["error"]["code"] == "model_rejected"
            versions.flip(folder)
    assert clients.failures == []
    assert [distinct(seen) for seen in clients.seen.values()] == [expected] * 4
    assert clients.slowest < 1.0


def lines_of(process: Process, count: int) -> Iterator[str]:
    assert process.popen.stderr is not None
    for _ in range(count):
        yield process.popen.stderr.readline()


def test_sighup_loads_every_model_again_and_says_what_came_of_it(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "models" / "other"
    shutil.copytree(folder, other)
    with running(models=f"a={folder},b={other}") as process, Clients(process.url, 2) as clients:
        old = httpx.get(f"{process.url}/v1/models").json()["models"][0]["version"]
        clients.wait_for(old)
        new = versions.near(folder, folder)
        versions.flip(other)
        process.popen.send_signal(signal.SIGHUP)
        first, second = lines_of(process, 2)
        assert f"INFO augur.models: model a: loaded {old} -> {new}" in first
        assert f"ERROR augur.models: model b: kept {old} because {other}/model.safetensors: sha256" in second
        clients.wait_for(new)
        process.popen.send_signal(signal.SIGTERM)
        # Still taking requests while it lingers: the clients meet no error before they stop.
        assert clients.failures == []
        clients._stop.set()
        assert process.end()[0] == 0


def test_a_terminal_that_closes_ends_the_server_and_a_signal_on_an_open_one_does_not(folder: Path) -> None:
    ours, theirs = os.openpty()
    environment = os.environ | {"AUGUR_PORT": "0", "AUGUR_MODEL": str(folder)}
    # The first process of a session takes the terminal over, and then becomes the server.
    lead = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-c", lead, sys.executable, "-m", "service"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdin=theirs, **pipes) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)][2].startswith("try: ")
        process.send_signal(signal.SIGHUP)
        assert "is the version on disk" in process.stderr.readline()
        os.close(ours)
        assert process.wait(20) == 0
