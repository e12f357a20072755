"""The examples against a server with the bundled model and users, as `make serve` starts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from faulty_peer import Handler, Seen, faulty, forward
from nbclient import NotebookClient
from process_parts import ROOT, running

from service.client import AugurClient, StoredEvent

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "what_if.ipynb"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(seed="kuairand:data/kuairand_pure", threads="1") as process:
        assert process.url, process.end()
        yield process.url


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def run(name: str, *arguments: object, status: int = 0) -> str:
    ended = subprocess.run(command(name, *arguments), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_a_feed_is_ranked_anew(url: str) -> None:
    def order(user: str) -> list[tuple[int, int, float]]:
        title, _, *rows = run("rerank_feed.py", "--url", url, "--user", user).splitlines()
        assert re.fullmatch(r"kuairand \w+, from \d+ behaviours", title)
        return [(int(old), int(item), float(score)) for _, old, item, score, *_ in map(str.split, rows)]

    first, second = order("712"), order("3063")
    assert sorted(old for old, _, _ in first) == list(range(1, 13))
    assert [score for *_, score in first] == sorted((score for *_, score in first), reverse=True)
    assert [item for _, item, _ in first] != [item for _, item, _ in second]
    with AugurClient(url, timeout=20) as client:
        best = client.score("712", [item for _, item, _ in first], context={"tab": 1}).scores
    assert [score for *_, score in first] == pytest.approx(best, abs=1e-4)


def test_what_the_examples_say_when_they_cannot(url: str, tmp_path: Path) -> None:
    for name in ("rerank_feed.py", "ingest_events.py"):
        assert "--url" in run(name, "--help")
    assert "no scores: http://127.0.0.1:1: no connection" in run(
        "rerank_feed.py", "--url", "http://127.0.0.1:1", status=1
    )
    assert "a name, =, and a whole number" in run("rerank_feed.py", "--context", "tab", status=2)
    assert "1 to 1000" in run("ingest_events.py", "events", "--batch", "0", status=2)
    events = tmp_path / "events.jsonl"
    assert "stopped: [Errno 2]" in run("ingest_events.py", events, "--url", url, status=1)
    events.touch()
    events.with_name("events.jsonl.offset").write_text('{"offset": 7, "dead_letters": 0}')
    assert "offset 7 is beyond the end" in run("ingest_events.py", events, "--url", url, status=1)


def line_of(place: int) -> bytes:
    event: dict[str, Any] = {"user_id": f"stream {place % 3}", "item_id": place, "timestamp_ms": 1000 + place}
    if place % 2:
        event |= {"action": "click", "event_id": f"own {place}"}
    return json.dumps(event).encode() + b"\n"


# In the place of events, by where they stand: what is no event, and what the server refuses.
BAD = {
    3: b"\xff\n",
    11: b'{"user_id": "1"}\n',
    25: b'{"user_id": 1, "item_id": 1, "timestamp_ms": 1}\n',
    33: b'{"user_id": "\\ud800", "item_id": 1, "timestamp_ms": 1}\n',
    34: b'{"user_id": "1", "item_id": 1, "timestamp_ms": -1}\n',
    36: b"[" * 100_000 + b"\n",
}


def test_a_stream_survives_a_kill_without_loss_or_repetition(url: str, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    lines = [BAD.get(place, line_of(place)) for place in range(60)]
    unfinished = line_of(60)
    events.write_bytes(b"".join(lines) + unfinished[:10])
    served, over = threading.Event(), threading.Event()

    def served_and_never_answered(handler: Handler, seen: Seen) -> None:
        handler.ask_behind(seen)
        served.set()
        over.wait(60)

    arguments = (events, "--batch", 10, "--timeout", 60)
    with faulty(url) as peer:
        # The second batch has a line that is no event, and is stored; its consumer never hears of it.
        peer.fail(forward, served_and_never_answered)
        consumer = subprocess.Popen(command("ingest_events.py", *arguments, "--url", peer.url))
        try:
            assert served.wait(60)
        finally:
            consumer.kill()
            consumer.wait()
            over.set()
    committed = json.loads(events.with_name("events.jsonl.offset").read_text())
    assert committed["offset"] == sum(map(len, lines[:10]))
    # What a kill between the two files leaves.
    dead = events.with_name("events.jsonl.dead")
    with dead.open("ab") as file:
        file.write(b'{"offset": 5, "err')

    good = len(lines) - len(BAD)
    said = run("ingest_events.py", *arguments, "--url", url)
    assert f"accepted {good - 9 - 9}, duplicates 9, outside the window 0, dead letters {len(BAD) - 1}\n" in said
    letters = [json.loads(each) for each in dead.read_bytes().splitlines()]
    assert [each["offset"] for each in letters] == [sum(map(len, lines[:place])) for place in sorted(BAD)]
    assert [each["error"].partition(":")[0] for each in letters][1:5] == [
        "an object of user_id, item_id, timestamp_ms and no more than action, event_id",
        "events[0].user_id=1",
        "the body has one half of a surrogate pair, which is no character",
        "events[0].timestamp_ms=-1",
    ]

    # The unfinished line is taken when it is whole, and nothing twice.
    with events.open("ab") as file:
        file.write(unfinished[10:])
    assert "accepted 1, duplicates 0" in run("ingest_events.py", *arguments, "--url", url)
    assert "accepted 0, duplicates 0" in run("ingest_events.py", *arguments, "--url", url)
    with AugurClient(url, timeout=20) as client:
        for user in range(3):
            expected = tuple(
                StoredEvent(place, 1000 + place, "click" if place % 2 else None)
                for place in range(user, 61, 3)
                if place not in BAD
            )
            assert client.behaviors(f"stream {user}").events == expected


def test_the_notebook_runs_and_is_kept_without_outputs(url: str) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    (parameters,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = parameters.source.replace("http://127.0.0.1:8000", url)
    assert url in parameters.source
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    printed = "".join(output.text for cell in cells for output in cell.outputs)
    assert len(re.findall(r"^ +\d+ 0\.\d{4}$", printed, re.MULTILINE)) == 6
    assert len(re.findall(r"without item", printed)) == 5
    changes = re.findall(r"-> 0\.\d{4}  ([+-]0\.\d{4})$", printed, re.MULTILINE)
    assert len(changes) == 6
    assert {"+0.0000", "-0.0000"}.isdisjoint(changes[-1:])
