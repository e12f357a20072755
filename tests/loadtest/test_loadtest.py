"""The load on a real server, and what it makes of a server that answers wrongly."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from loadtest import __main__ as loadtest
from loadtest import servers
from loadtest.__main__ import main
from loadtest.servers import ServerError, own_server
from loadtest.traffic import DATA, Traffic, wrong, wrong_scores
from model.artifact import of_model, save_artifact
from model.config import ModelConfig
from model.data import open_data
from model.features import fit_schema
from model.zoo.dien import Dien
from service.wire import BehaviorsRequest, ScoreRequest

ROOT = Path(__file__).resolve().parents[2]

needs_locust = pytest.mark.skipif(
    find_spec("locust") is None and not os.environ.get("CI"), reason="locust is not installed"
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started has no settings but those of its test, and neither has a load."""
    for name in [name for name in os.environ if name.startswith(("AUGUR_", "LOADTEST_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture(scope="module")
def log() -> dict[str, np.ndarray]:
    table = pq.read_table(DATA / "impressions.parquet")
    return {name: table[name].to_numpy() for name in ("user_id", "item_id", "timestamp_ms", "tab", "hour", "long_view")}


def test_score_requests_are_what_users_were_shown(traffic: Traffic, log: dict[str, np.ndarray]) -> None:
    rows = len(log["user_id"])
    sizes = set()
    for row in [0, rows - 1, *(traffic.visit() for _ in range(300))]:
        body = traffic.score(row, ["tab", "hour"])
        ScoreRequest.model_validate(body)
        items = body["item_ids"]
        assert body["user_id"] == str(log["user_id"][row])
        assert body["context"] == {"tab": log["tab"][row], "hour": log["hour"][row]}
        sizes.add(len(items))
        assert len(set(items)) == len(items)
        # What the log says, found the plain way: the user's own first.
        own = log["item_id"][row:][log["user_id"][row:] == log["user_id"][row]].tolist()
        distinct = list(dict.fromkeys(own))
        assert items[: len(distinct)] == distinct[: len(items)]
        after = [log["item_id"][(row + step) % rows] for step in range(2000)]
        assert set(items[len(distinct) :]) <= set(after)
    assert min(sizes) >= 50
    assert max(sizes) <= 200
    assert len(sizes) > 75


def test_only_context_that_the_model_takes(traffic: Traffic) -> None:
    assert traffic.score(7, [])["context"] == {}
    assert list(traffic.score(7, ["hour", "weather"])["context"]) == ["hour"]


def test_behaviors_are_those_of_the_log_made_now(traffic: Traffic, log: dict[str, np.ndarray]) -> None:
    for row in (int(np.argmin(log["long_view"])), int(np.argmax(log["long_view"]))):
        before = time.time_ns() // 1_000_000
        body = traffic.behavior(row, ["click", "long_view"])
        BehaviorsRequest.model_validate(body)
        (event,) = body["events"]
        assert before <= event["timestamp_ms"] <= time.time_ns() // 1_000_000
        assert (event["user_id"], event["item_id"]) == (str(log["user_id"][row]), log["item_id"][row])
        assert event["action"] == ("long_view" if log["long_view"][row] else "click")
        assert "action" not in traffic.behavior(row, ["buy"])["events"][0]


def test_the_same_seed_asks_the_same() -> None:
    def asked(seed: int) -> list[Any]:
        one = Traffic(seed=seed)
        return [(one.score(one.visit(), ["tab"]), list(one.stay(1e4, 2.0)), one.below(3)) for _ in range(20)]

    assert asked(1) == asked(1) != asked(2)
    assert {number for *_, number in asked(1)} == {0, 1, 2}


@pytest.mark.parametrize(("speed", "longest"), [(36_000.0, 2.0), (1.0, 1e9), (1.0, 1.0)])
def test_a_stay_has_the_logs_own_gaps(
    speed: float, longest: float, traffic: Traffic, log: dict[str, np.ndarray]
) -> None:
    lengths = set()
    for _ in range(200):
        stay = list(traffic.stay(speed, longest))
        row = stay[0][0]
        own = [each for each in np.flatnonzero(log["user_id"] == log["user_id"][row]) if each >= row]
        assert [place for place, _ in stay] == own[: len(stay)]
        times = log["timestamp_ms"][own]
        real = [(after - before) / 1000 / speed for before, after in pairwise(times)]
        assert [gap for _, gap in stay[:-1]] == pytest.approx(real[: len(stay) - 1])
        assert stay[-1][1] == longest
        # It ended where the user did, or before a longer gap.
        assert len(stay) == len(own) or real[len(stay) - 1] > longest
        lengths.add(len(stay))
    assert len(lengths) > 3 or longest == 1.0


def test_some_gaps_of_the_log_are_shorter_than_an_answer(log: dict[str, np.ndarray]) -> None:
    """What makes requests of a user meet, at the usual speed: a gap below 10 ms."""
    turned = np.lexsort((log["timestamp_ms"], log["user_id"]))
    same = np.diff(log["user_id"][turned]) == 0
    gaps = np.diff(log["timestamp_ms"][turned])[same] / 36_000
    assert 0.03 < np.mean(gaps < 10) < 0.1


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (200, '{"scores": [0, 0.5, 1]}', None),
        (200, '{"scores": [0, 0.5]}', "not one score for each candidate"),
        (200, '{"scores": [0, 0.5, 1, 1]}', "not one score for each candidate"),
        (200, '{"scores": [0, 0.5, 1.01]}', "a score outside 0 to 1"),
        (200, '{"scores": [0, -0.01, 1]}', "a score outside 0 to 1"),
        (200, '{"scores": [0, NaN, 1]}', "a score outside 0 to 1"),
        (200, '{"scores": [0, "0.5", 1]}', "an answer of another shape: TypeError"),
        (200, '{"scores": null}', "an answer of another shape: TypeError"),
        (200, '{"ranking": []}', "an answer of another shape: KeyError"),
        (200, "", "an answer of another shape: JSONDecodeError"),
        (429, '{"scores": [0, 0.5, 1]}', "status 429"),
        (0, "", "status 0"),
    ],
)
def test_what_counts_as_wrong_scores(status: int, text: str, reason: str | None) -> None:
    assert wrong(status, text, lambda answer: wrong_scores(answer["scores"], 3)) == reason


@needs_locust
def test_the_shape_and_that_nothing_of_the_server_is_imported() -> None:
    # In a process of its own: locust patches the standard library of the one that imports it.
    program = (
        "import sys, json; from loadtest.locustfile import readers;"
        "shape = [readers(part / 100, 10, 3) for part in (0, 1, 15, 30, 59, 60, 74, 75, 99)];"
        "loaded = {name.partition('.')[0] for name in sys.modules} & {'kernels', 'model', 'starlette', 'torch'};"
        "print(json.dumps([shape, sorted(loaded)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    shape, loaded = json.loads(done.stdout)
    assert shape == [1, 1, 5, 10, 10, 30, 30, 10, 10]
    assert loaded == []


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights for the bundled catalogue."""
    torch.manual_seed(5)
    schema = fit_schema(open_data(f"kuairand:{DATA}"), max_history=8)
    folder = tmp_path_factory.mktemp("artifact") / "tiny"
    save_artifact(of_model("tiny", Dien(schema, ModelConfig(hidden=8, embedding=4, head=(8,))), schema, {}, {}), folder)
    return folder


@needs_locust
def test_a_real_server_passes(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"MODEL": str(artifact), "THREADS": "1", "LINGER_SECONDS": "0"}.items():
        monkeypatch.setenv(f"AUGUR_{name}", value)
    assert main(["--seconds", "5", "--users", "4", "--p99-ms", "5000", "--out", str(tmp_path)]) == 0
    counted = {row["Name"]: row for row in rows(tmp_path / "report_stats.csv")}
    assert int(counted["/v1/score"]["Request Count"]) > 0
    assert {row["Failure Count"] for row in counted.values()} == {"0"}
    assert "/v1/score" in (tmp_path / "report.html").read_text()
    printed = "".join(capfd.readouterr())
    assert "/v1/score" in printed
    assert re.search(r"^p99 of scores \d+ ms, at most 5000: kept$", printed, re.MULTILINE)
    assert "error rate 0, at most 0: kept" in printed
    said = (tmp_path / "server.log").read_text()
    assert "model tiny" in said
    assert "26981 users seeded" in said
    assert "SIGTERM" in said


# What the server answers to a route, and what locust is to say of it.
FAULTS = {
    "": None,
    "a score too few": ("/v1/score", "not one score for each candidate"),
    "an event lost": ("/v1/behaviors", "not every event accounted for"),
    "no room": ("/v1/score", "QueueFullError queue_full"),
    "not an answer": ("/v1/score", "AnswerError"),
}
SERVED = {
    **{"name": "one", "version": "1", "description": "", "architecture": "DIEN", "parameters": 1, "actions": ["click"]},
    **{"default_action": "click", "context_fields": ["tab"], "max_history": 9, "metrics": {}, "loaded_at": ""},
}
SCORED = {"model": "one", "version": "1", "history_length": 0, "unknown_items": 0, "degraded": None}


class Twin(ThreadingHTTPServer):
    """A server that answers by the contract, but for its scores and a fault; it knows which users it is answering."""

    daemon_threads = True

    def __init__(self, fault: str) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.fault = fault
        self.lock = threading.Lock()
        self.answering: Counter[str] = Counter()
        self.joined = 0
        self.posted: Counter[str] = Counter()
        self.other_users = 0
        self.histories: set[int] = set()

    def handle_error(self, *_: object) -> None:
        """Locust leaves without closing its connections."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Twin

    def do_GET(self) -> None:
        self._send({"models": [SERVED], "routes": {"weights": {"one": 1.0}, "shadows": {}}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        user = body["events"][0]["user_id"] if self.path == "/v1/behaviors" else body["user_id"]
        with self.server.lock:
            self.server.posted[self.path] += 1
            self.server.other_users += self.headers["x-user-id"] != user
        if self.path == "/v1/behaviors":
            accepted = int(self.server.fault != "an event lost")
            return self._send({"accepted": accepted, "duplicates": 0, "outside_window": 0})
        with self.server.lock:
            self.server.histories.add(len(body.get("history", ())))
            self.server.joined += self.server.answering[user]
            self.server.answering[user] += 1
        time.sleep(0.05)
        with self.server.lock:
            self.server.answering[user] -= 1
        if self.server.fault == "no room":
            return self._send({"error": {"code": "queue_full", "message": f"{time.time_ns()} wait"}}, 429)
        if self.server.fault == "not an answer":
            return self._send({"scores": None})
        return self._send(
            SCORED | {"scores": [0.5] * (len(body["item_ids"]) - (self.server.fault == "a score too few"))}
        )

    def _send(self, answer: object, status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def twin(fault: str = "") -> Iterator[Twin]:
    with Twin(fault) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


# Answers take 50 ms, and the log's gaps are so short that most of a user's requests meet.
@needs_locust
@pytest.mark.parametrize(
    ("fault", "options", "environment", "status"),
    [
        ("", ["--p99-ms", "5000"], {}, 0),
        ("", ["--p99-ms", "20"], {}, 1),
        ("", [], {"LOADTEST_P99_MS": "20"}, 1),
        ("a score too few", ["--p99-ms", "5000"], {}, 1),
        ("a score too few", ["--p99-ms", "5000", "--max-error-rate", "1"], {}, 0),
        ("an event lost", ["--p99-ms", "5000"], {}, 1),
        ("no room", ["--p99-ms", "5000"], {}, 1),
        ("not an answer", ["--p99-ms", "5000"], {}, 1),
    ],
)
def test_another_server_is_judged_by_its_answers_and_their_times(
    fault: str,
    options: list[str],
    environment: dict[str, str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    users = 8
    with twin(fault) as server:
        run = ["--url", server.url + "/", "--seconds", "4", "--users", str(users), "--spike", "1", "--speed", "1e6"]
        assert main([*run, "--history-length", "7", "--out", str(tmp_path), *options]) == status
        # Requests at one time for the same user.
        assert server.joined
        assert not server.other_users
        # A reader tells of something after every tenth page, wherever it began to count.
        assert abs(server.posted["/v1/behaviors"] - server.posted["/v1/score"] / 10) <= users
        assert server.posted["/v1/score"] > users
        assert server.histories == {7}
    failures = {row["Name"]: row["Error"] for row in rows(tmp_path / "report_failures.csv")}
    named = FAULTS[fault]
    assert list(failures) == ([named[0]] if named else [])
    assert all(reason == f"WrongAnswerError('{named and named[1]}')" for reason in failures.values())
    assert not (tmp_path / "server.log").exists()


@needs_locust
def test_a_server_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUGUR_THREADS", "many")
    assert main(["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "the server did not start" in said
    assert "AUGUR_THREADS='many'" in said


@needs_locust
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nowhere"])
def test_nobody_there(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "READY_SECONDS", 0.3)
    assert main(["--url", url, "--out", str(tmp_path)]) == 1
    assert f"{url}/readyz: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("on_term", "message"),
    [
        ("lambda *_: sys.exit(3)", "status 3, not 0"),
        ("signal.SIG_IGN", "status nothing in 0.5 s"),
    ],
)
def test_a_server_that_does_not_stop_in_order(
    on_term: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "STOP_SECONDS", 0.5)
    with twin() as server:
        program = f"import signal, sys, time; signal.signal(signal.SIGTERM, {on_term})\n"
        program += f"print('serving {server.url}', flush=True); time.sleep(60)"
        with (
            pytest.raises(ServerError, match=message),
            own_server(tmp_path / "log", [sys.executable, "-c", program]) as own,
        ):
            assert own.url == server.url


@pytest.mark.parametrize("option", ["--users", "--seconds"])
def test_nothing_below_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([option, "0"])
    assert refused.value.code == 2
    assert f"{option}: 0: a whole number, at least 1" in capsys.readouterr().err


@needs_locust
@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("--speed=0", "0: at least 1"),
        ("--max-error-rate=nan", "nan: at least 0"),
        ("--history-length=1.5", "whole number"),
    ],
)
def test_bounds_that_cannot_be_used(option: str, rule: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with twin() as server:
        assert main(["--url", server.url, "--out", str(tmp_path), option]) == 2
    assert rule in capfd.readouterr().err


def test_without_locust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loadtest, "find_spec", lambda name: None)
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "locust is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
