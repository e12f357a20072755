"""The report of all measurements: two cheap parts for real, one that fails, and what is not run again."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest import servers
from loadtest.report import __main__ as report
from loadtest.report import tables
from loadtest.report.__main__ import main
from loadtest.report.parts import PARTS, Part
from loadtest.report.running import OUTPUT, RECORD, known

pytestmark = pytest.mark.usefixtures("unwatched_processes")
TOY = f"python {Path(__file__).with_name('toy_server.py')} --port {{port}} --service-ms 2 --metrics"
TOY += " --timing queue;dur=0.5,compute;dur=1"
NAMED = {part.name: part for part in PARTS}
SMALL = ("--candidates", "2", "--steps", "3", "--repeats", "1", "--cases", "headline")
KERNELS = replace(NAMED["kernels"], quick=(*SMALL, "--contenders", "native-exact-baseline", "evolve-reference"))
ADJACENT = replace(
    NAMED["adjacency-50"],
    quick=("--duration", "0.5", "--warmup", "0.1", "--users", "5", "--repeats", "2", "--serve", TOY, "--rate", "60"),
)
WRONG = replace(NAMED["adjacency-90"], quick=("--rate", "none"))


def test_parts_are_run_once_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, options = (KERNELS, ADJACENT, WRONG), ["--quick", "--out", str(tmp_path)]
    assert main(options, parts) == 1
    said = capsys.readouterr().out
    assert re.match(r"3 parts, about \d minutes\n", said)
    assert "2/3 adjacency-50: done in" in said
    assert "3/3 adjacency-90: FAILED, status 2" in said
    assert "argument --rate: none: a number above 0" in said.rpartition("adjacency-90 FAILED, status 2: ")[2]
    text, page = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    check_markdown(text, tmp_path)
    assert page.count("<img") >= 4
    assert not re.search(r'src="(?!data:)', page)
    assert "none: a number above 0" in page

    # What is there is not run again; what failed is.
    before = known(KERNELS, tmp_path)
    assert main([*options, "--parts", "kernels"], parts) == 0
    assert "0 parts, about 0 minutes; kernels is there\n" in capsys.readouterr().out
    assert known(KERNELS, tmp_path) == before
    assert main([*options, "--parts", "adjacency-90"], parts) == 1
    assert "1 parts" in capsys.readouterr().out


def check_markdown(text: str, out: Path) -> None:
    found = json.loads((out / "kernels" / "bench.json").read_text())["results"]
    timed = next(one for one in found if one["contender"] == "evolve-reference")
    assert f"| {tables.shown(timed['median_ms'])} | {tables.shown(timed['least_ms'])} | 1.00 |" in text
    run = json.loads((out / "adjacency-50" / "openloop.json").read_text())["servers"][0]["summary"]
    assert f"| {run['score']['p99']['median']:.2f} |" in text
    assert "| queue, mean ms | 0.5 (0.5 to 0.5) |" in text
    for line in ("| model | kuairand, digest ", "Client and server share the machine", "status 2", "--rate none"):
        assert line in text
    for name in re.findall(r"!\[[^]]*]\(([^)]*)\)", text):
        assert (out / name).stat().st_size > 1000
    assert "![bench](kernels/bench.png)" in text


def test_kernels_for_gpus_are_a_row_each(tmp_path: Path) -> None:
    one = {"kernel": "gru", "target": "cuda:90", "precision": "exact", "num_warps": 4, "registers": 89, "spills": 0}
    one |= {"local_bytes": 0, "shared_bytes": 17408, "instructions_per_step_per_16_candidates": 154.5}
    scale = one | {"kernel": "scale", "instructions_per_step_per_16_candidates": None}
    (tmp_path / "aot.json").write_text(json.dumps([one, scale]))
    (table,) = tables.compiled(tmp_path)
    assert table.rows[0] == ["gru", "cuda:90", "exact", "4", "154.5", "89", "0", "0", "17408"]
    assert table.rows[1][4] == ""


def test_growth_is_a_row_for_each_size(tmp_path: Path) -> None:
    case = {"operation": "evolve", "device": "cpu", "users": 1, "candidates": 200, "steps": 100, "hidden": 32}
    timed = {"contender": "a", "meaning": "A", "median_ms": 2.0, "least_ms": 1.5, "times_faster": 1.0, "than": "a"}
    timed |= {"largest_error": 1e-7, "share_of_peak": 0.5, "share_of_peak_by_best": 0.6}
    results = [case | timed, case | {"contender": "b", "meaning": "B", "not_run": "no GPU"}]
    results += [case | {"candidates": 20} | timed, case | {"operation": "head"} | timed]
    missed = {"what": "w", "target": 5.0, "measured": None, "best": None, "reason": "no GPU", "met": None}
    (tmp_path / "bench.json").write_text(json.dumps({"results": results, "targets": [missed]}))
    headline, head, growth, targets = tables.kernels(tmp_path)
    assert headline.rows == [("`a` (A)", "2", "1.5", "1.00", "50% (60%)", "1.0e-07")]
    assert headline.note == "Not run: b (no GPU)"
    assert head.header[0] == "`head`, CPU, 1 x 200 x 100, hidden 32"
    assert growth.rows == [("1 x 20", "100", "32", "2"), ("1 x 200", "100", "32", "2")]
    assert targets.rows[0][-1] == "not measured: no GPU"


def test_another_command_is_another_measurement_and_so_is_one_asked_for_again(tmp_path: Path) -> None:
    part = Part("p", "P", ("-c", "print(1)"), lambda folder: [], 1, ("x",))
    assert main(["--quick", "--out", str(tmp_path)], [part]) == 0
    ran = known(part, tmp_path)
    assert ran is not None
    assert ran.command == ["python", "-c", "print(1)", "x"]
    assert (tmp_path / "p" / OUTPUT).read_text() == "1\n"
    (tmp_path / "p" / OUTPUT).write_text("2\n")
    assert main(["--quick", "--out", str(tmp_path)], [part]) == 0
    assert (tmp_path / "p" / OUTPUT).read_text() == "2\n"
    assert main(["--quick", "--out", str(tmp_path), "--again", "p"], [part]) == 0
    assert (tmp_path / "p" / OUTPUT).read_text() == "1\n"
    assert main(["--out", str(tmp_path)], [part]) == 0
    assert json.loads((tmp_path / "p" / RECORD).read_text())["command"] == ["python", "-c", "print(1)"]


def test_no_part_is_left_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.report", "--parts", "readers", "--out", str(tmp_path)]
    going = subprocess.Popen(command, cwd=servers.ROOT, stdout=subprocess.DEVNULL)
    while not (tmp_path / "readers" / "server.log").exists():
        time.sleep(0.05)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(going.pid)], capture_output=True, text=True, check=True
    )
    going.terminate()
    assert going.wait(60) == 128 + signal.SIGTERM
    for pid in children.stdout.split():
        assert not Path(f"/proc/{pid}").exists()
    assert known(NAMED["readers"], tmp_path) is None


@pytest.mark.parametrize("option", ["--parts", "--again"])
def test_a_wrong_part_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, "ladder,tower"])
    assert ended.value.code == 2
    assert f"argument {option}: tower: none of kernels, " in capsys.readouterr().err


def test_matplotlib_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    assert main([]) == 2
    assert "needs matplotlib" in capsys.readouterr().err
