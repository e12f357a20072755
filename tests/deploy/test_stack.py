"""`python -m loadtest.stack`: one scorer, the Redis of the composition with its one user, and the proxy."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_parts import Client, need

from loadtest import stack

ROOT = Path(__file__).resolve().parents[2]


def test_it_serves_the_bundled_users_until_it_is_told_to_stop(tmp_path: Path) -> None:
    need(stack.TOOLS)
    port = stack.free_port()
    command = [sys.executable, "-m", "loadtest.stack", "--scorers", "1", "--port", str(port), "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            said = ""
            while "serving" not in said and (line := running.stdout.readline()):
                said += line
            assert f"serving http://127.0.0.1:{port}" in said
            client = Client(port)
            status, body, home = client.ask("POST", "/v1/score", {"user_id": "712", "item_ids": [5239]}, "712")
            client.close()
            assert (status, body["history_length"], body["degraded"], home) == (200, 43, None, "scorer-1")
            (scorer,) = re.findall(r"scorer-1 http://127.0.0.1:(\d+)", said)
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 128 + signal.SIGTERM
            # Nothing is left behind.
            for each in (port, int(scorer)):
                with pytest.raises(ConnectionRefusedError):
                    Client(each).ask("GET", "/livez")
        finally:
            running.kill()


def test_a_tool_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stack.main(["--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "loadtest: not installed: redis-server, redis-cli, haproxy\n"
