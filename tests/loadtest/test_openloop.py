"""`python -m loadtest.openloop` against real servers: what it prints, writes and returns."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_server import toy_server

from loadtest import servers
from loadtest.openloop import __main__ as openloop
from loadtest.openloop import machine, options, sweep
from loadtest.openloop.__main__ import main
from loadtest.openloop.options import parse
from loadtest.openloop.sweep import Capacity
from loadtest.openloop.target import Target, TargetError
from loadtest.openloop.worker import Workers
from loadtest.report import tables

TOY = f"python {Path(__file__).with_name('toy_server.py')} --port {{port}}"
SHORT = ["--duration", "0.5", "--warmup", "0.1", "--users", "5", "--candidates", "3", "--repeats", "1"]


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "ftp://x"], "argument --url: ftp://x: an address as http://127.0.0.1:8000"),
        (["--url", "http://x:99999"], "argument --url: http://x:99999: an address"),
        (["--url", "http://x/v1"], "argument --url: http://x/v1: an address"),
        (["--rate", "0"], "argument --rate: 0: a number above 0"),
        (["--rate", "inf"], "argument --rate: inf: a number above 0"),
        (["--duration", "nan"], "argument --duration: nan: a number above 0"),
        (["--warmup", "-1"], "argument --warmup: -1: a number at least 0"),
        (["--adjacency", "1"], "argument --adjacency: 1: a number from 0 to 0.95"),
        (["--mix", "x"], "argument --mix: x: a number from 0 to 0.99"),
        (["--repeats", "0"], "argument --repeats: 0: a whole number, at least 1"),
        (["--workers", "65"], "argument --workers: 65: a whole number, from 1 to 64"),
        (["--candidates", "few"], "argument --candidates: few: a whole number, from 1 to 100000"),
        (["--serve", "'"], "argument --serve: ': No closing quotation"),
        (["--serve", " "], "argument --serve: a command, not nothing"),
        (["--server-cpus", "0,9999"], "argument --server-cpus: 0,9999: numbers of cores among"),
        ([], "--url or --serve: one of the two"),
        (["--url", "http://x", "--serve", "x"], "--url or --serve: one of the two"),
        (["--serve", "x", "--compare", "http://x", "--compare-command", "x"], "--compare and --compare-command: one"),
        (["--serve", "x", "--pid", "1"], "--pid: only with --url"),
        (["--serve", "x", "--history-length", "1", "--stored-length", "1"], "--history-length and --stored-length: a"),
        (["--serve", "x", "--arrivals", "replay", "--mix", "0.1"], "--arrivals replay: a log has its own arrivals"),
        (["--serve", "x", "--strangers"], "--strangers: only with --adjacency"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"error: {said}" in fails(arguments, capsys)


def test_linux_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux" in fails(["--serve", "x"], capsys)


def test_options_become_a_load_and_a_bound() -> None:
    chosen = parse(["--serve", "python x", "--candidates", "real", "--server-cpus", "0"])
    assert (chosen.serve[0], chosen.candidates, chosen.server_cpus) == (sys.executable, None, [0])
    assert options.bound_of(chosen) is None
    bounds = [
        (["--sweep"], (50, 0)),
        (["--sweep", "--p99-ms", "7", "--max-error-rate", "0.1"], (7, 0.1)),
        (["--p99-ms", "7"], (7, 1)),
        (["--max-error-rate", "0"], (float("inf"), 0)),
    ]
    for more, expected in bounds:
        bound = options.bound_of(parse(["--serve", "x", *more]))
        assert bound is not None
        assert (bound.p99_ms, bound.error_rate) == expected


def test_two_servers_in_turn_with_all_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timing = "queue;dur=0.5,store;dur=0.25,compute;dur=4"
    files = [tmp_path / name for name in ("x.json", "x.npz", "x.html")]
    arguments = ["--serve", f"{TOY} --service-ms 2 --timing {timing} --metrics", "--compare-command"]
    arguments += [f"{TOY} --service-ms 20", *SHORT, "--repeats", "2", "--rate", "25", "--probe-rate", "10"]
    arguments += ["--large-rate", "2", "--mix", "0.1", "--history-length", "4", "--large-candidates", "9"]
    arguments += ["--json", str(files[0]), "--samples", str(files[1]), "--report", str(files[2])]
    assert main([*arguments, "--server-cpus", str(min(os.sched_getaffinity(0)))]) == 0
    said = capsys.readouterr().out
    found = json.loads(files[0].read_text())
    check_document(found)
    for part in (
        "first",
        "second",
        "model toy, digest 7",
        "offered/s",
        "large",
        "probe",
        "note: client and server share",
    ):
        assert part in said
    with np.load(files[1]) as raw:
        assert set(raw) == {"first_0", "first_1", "second_0", "second_1"}
        score = raw["first_0"][raw["first_0"]["kind"] == 0]
        assert len(score) == found["servers"][0]["runs"][0]["kinds"]["score"]["requests"]
        assert raw["first_0"]["intended"].min() >= 0.1
    page = files[2].read_text()
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]+)">', page)
    assert [name for name, _ in pictures] == [
        "latency by percentile",
        "parts of the server&#x27;s time",
        "augur_batch_candidates",
    ]
    assert all(b"</svg>" in base64.b64decode(data) for _, data in pictures)
    assert "second by first" in page
    assert "http" not in re.sub(r'src="data[^"]*"', "", page).replace("http://127.0.0.1", "")


def check_document(found: dict[str, Any]) -> None:
    first, second = found["servers"]
    assert first["model"]["name"] == "toy"
    assert first["shares_the_machine"]
    run = first["runs"][0]
    assert run["kinds"]["score"]["parts"]["compute"]["mean"] == 4
    assert set(run["kinds"]) == {"score", "behaviors", "large", "probe"}
    assert sum(run["batches"]["augur_batch_candidates"].values()) > 0
    assert run["server_cpu_ms"] > 0
    assert run["memory"][0][1] > 2**20
    assert found["ratios"]["p50 ms"]["median"] > 2
    assert second["runs"][0]["batches"] == {}
    # The same repeat of both had the same arrivals.
    assert run["kinds"]["score"]["requests"] == second["runs"][0]["kinds"]["score"]["requests"]
    assert {"cpu", "cores", "python", "packages"} <= set(found["machine"])
    assert found["load"]["content"]["history"] == 4


def test_a_sweep_of_a_server_with_a_known_service_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests of 10 ms one after the other are 100 a second; their queue passes 100 ms at about nine tenths of it."""
    monkeypatch.setattr(openloop, "TRY_SECONDS", 0.6)
    monkeypatch.setattr(sweep, "CLOSE", 1.3)
    monkeypatch.setattr(sweep, "LONGEST", 1.0)
    file, page = tmp_path / "openloop.json", tmp_path / "x.html"
    arguments = ["--serve", f"{TOY} --service-ms 10", *SHORT, "--duration", "1", "--sweep", "--p99-ms", "100"]
    assert main([*arguments, "--rate", "40", "--json", str(file), "--report", str(page)]) == 0
    (rate,) = json.loads(file.read_text())["servers"][0]["capacities"]
    assert 30 < rate < 110  # short runs on a busy machine
    said = capsys.readouterr()
    assert f"capacity {rate:.1f} requests/s" in said.out
    assert "confirm" in said.err
    assert "latency against offered rate" in page.read_text()
    assert "work against offered rate" in page.read_text()
    _, known, tried = tables.openloop(tmp_path)
    assert known.rows[0] == ("capacity of each repeat, requests/s", tables.shown(rate))
    points = json.loads(file.read_text())["servers"][0]["sweeps"][0]["points"]
    assert [row[-1] for row in tried.rows] == [
        point["broken"] or "kept" for point in sorted(points, key=lambda point: point["rate"])
    ]


def test_sweeps_of_two_servers_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = iter([100.0, 50.0])
    monkeypatch.setattr(openloop, "sweep", lambda *_: Capacity(next(swept)))
    with toy_server() as (_, url), Workers(1) as workers:
        chosen = parse(["--url", url, "--compare", url, "--sweep", "--repeats", "1", "--users", "2"])
        targets = [Target(url), Target(url)]
        _, found = openloop.measure(chosen, targets, workers)
    assert found == {"capacity": {"median": 0.5, "least": 0.5, "greatest": 0.5}}


def test_a_sweep_that_finds_nothing_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(openloop, "TRY_SECONDS", 0.5)
    monkeypatch.setattr(sweep, "LOWEST_RATE", 9)
    with toy_server(service_ms=30) as (_, url):
        arguments = ["--url", url, "--sweep", "--rate", "10", "--p99-ms", "1", *SHORT, "--arrivals", "replay"]
        assert main(arguments) == 1
    assert "FAILED: server: no rate kept the bound" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("thresholds", "failure"),
    [
        ([], None),
        (["--max-error-rate", "0.9", "--p99-ms", "9000"], None),
        (["--max-error-rate", "0.1"], "429), at most 10.00%"),
        (["--p99-ms", "0.001"], "ms, at most 0.001 ms"),
    ],
)
def test_thresholds_make_the_status(
    thresholds: list[str], failure: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with toy_server(status=429, anonymous=True) as (toy, url):
        arguments = ["--url", url, "--rate", "60", *SHORT, *thresholds, "--pid", str(os.getpid())]
        assert main([*arguments, "--stored-length", "6"]) == (1 if failure else 0)
        told = [body for _, path, body in toy.seen if path == "/v1/behaviors"]
    assert sum(len(body["events"]) for body in told) == 30
    said = capsys.readouterr().out
    assert "model unknown" in said
    assert " 429" in said
    assert ("FAILED" in said) == bool(failure)
    assert (failure or "") in said


def test_replay_and_companions(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    with toy_server() as (toy, url):
        assert main(["--url", url, "--rate", "40", *SHORT, "--arrivals", "replay"]) == 0
        assert len({body["user_id"] for _, path, body in toy.seen if path == "/v1/score"}) > 5
        arguments = ["--url", url, "--rate", "300", *SHORT, "--adjacency", "0.9", "--connections", "1"]
        assert main([*arguments, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert 0.7 < found["servers"][0]["runs"][0]["adjacency"] < 1
    assert any("waited for a connection" in remark for remark in found["remarks"])


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(servers, "READY_SECONDS", 0.1)
    assert main(["--url", "http://127.0.0.1:1"]) == 1
    assert "loadtest.openloop: http://127.0.0.1:1/readyz: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [("/no/such/command", "/no/such/command: No such file"), ("python -c print(7)", "did not start; it said:\n7")],
)
def test_a_server_that_does_not_start(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--serve", command]) == 1
    assert said in capsys.readouterr().err


def test_no_server_is_left_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    toy = TOY.replace("{port}", str(port))
    command = [sys.executable, "-m", "loadtest.openloop", "--serve", f"{toy} --said", "--duration", "60"]
    load = subprocess.Popen(command, cwd=servers.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    while not servers._listens(f"http://127.0.0.1:{port}") and time.monotonic() - begin < 30:
        time.sleep(0.05)
    load.terminate()
    assert load.wait(30) == 128 + signal.SIGTERM
    assert not servers._listens(f"http://127.0.0.1:{port}")


def test_a_server_that_takes_no_behaviours(capsys: pytest.CaptureFixture[str]) -> None:
    with toy_server(deaf=True) as (_, url):
        assert main(["--url", url, *SHORT, "--stored-length", "1"]) == 1
    assert "/v1/behaviors: HTTP Error 503" in capsys.readouterr().err


def test_a_server_that_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    with toy_server() as (_, url):
        pass
    with pytest.raises(TargetError, match="/v1/models"):
        Target(url).model()


def test_a_report_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(openloop, "find_spec", lambda name: None)
    assert main(["--serve", "x", "--report", "x.html"]) == 2
    assert "--report needs matplotlib" in capsys.readouterr().err


BURNS = """
import threading, time
def burn():
    while time.thread_time() < 0.1: pass
each = [threading.Thread(target=burn) for _ in range(2)]
[one.start() for one in each]; [one.join() for one in each]
for _ in range(2):
    print(time.process_time(), flush=True)
    input()
"""


def test_the_cpu_of_a_process_is_by_its_own_clock_and_of_all_its_threads() -> None:
    with subprocess.Popen([sys.executable, "-c", BURNS], stdin=-1, stdout=-1, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = float(process.stdout.readline())
        told = machine.cpu_seconds([process.pid])
        process.stdin.write("\n")
        after = float(process.stdout.readline())
        process.stdin.write("\n")
    assert 0.2 <= before <= told <= after


def test_what_linux_knows_of_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = os.getpid()
    assert mine in machine.tree(os.getppid())
    assert machine.cpu_seconds([mine]) > 0
    assert machine.resident_bytes([mine]) > 2**20
    assert machine.cpu_seconds([2**22 + 1]) == machine.resident_bytes([2**22 + 1]) == 0
    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package", "numpy"))
    assert list(machine.describe()["packages"]) == ["numpy"]
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine.describe()["cpu"]
