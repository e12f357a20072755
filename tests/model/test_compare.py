"""A real comparison on made-up data: stopped by failures and kills, gone on with, and reported."""

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_data import SMALL, call, complaint, write_impressions

from model.artifact import load_artifact
from model.batches import Batcher
from model.compare.__main__ import run
from model.compare.cells import RESULT
from model.compare.pool import LOCK
from model.compare.results import read_results
from model.compare.statistics import estimate, paired, t_quantile
from model.data import TEST, open_data
from model.metrics import measure
from model.training import predict

pytestmark = pytest.mark.usefixtures("unwatched_processes")
ROOT = Path(__file__).parents[2]
NAMES = ("base", "din")
TRAINING = (*SMALL[:-2], "--batch-size", "64", "--epochs", "3", "--learning-rate", "0.02", "--checkpoint-seconds", "0")


def options(data: str, out: Path, *more: str) -> list[str]:
    return ["--data", data, "--models", ",".join(NAMES), "--seeds", "2", "--out", str(out), *more, "--", *TRAINING]


def running(words: list[str]) -> subprocess.Popen[str]:
    line = [sys.executable, "-W", "ignore", "-m", "model.compare", *words]
    return subprocess.Popen(line, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def learnt(out: Path) -> dict[str, Any]:
    """All of the results that training decides."""
    variants = json.loads((out / "results.json").read_text())["variants"]
    told = ("seed", "metrics")
    return {
        name: [[cell[part] for part in told] + [cell["training"]["curve"]] for cell in one["cells"]]
        for name, one in variants.items()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_impressions(tmp_path_factory.mktemp("data") / "logs")


@pytest.fixture(scope="module")
def blocked(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A comparison in which one cell cannot write its artifact; its exit status, and what it says on stderr."""
    out = tmp_path_factory.mktemp("compared") / "out"
    place = out / "cells" / "din" / "seed-1" / "model"
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        status = call(run, *options(data, out))
    return out, status, told.getvalue()


def test_a_failing_cell_is_told_and_the_others_go_on(blocked: tuple[Path, int, str]) -> None:
    out, status, told = blocked
    assert status == 1
    assert "din seed 1: exit status 2; the end of " in told
    assert f"\n    error: {out}/cells/din/seed-1/model: is a file; an artifact is a folder\n" in told
    assert told.splitlines()[-1] == "failed: din seed 1: exit status 2"
    assert [one for one, *_ in learnt(out)["base"]] == [0, 1]
    assert [one for one, *_ in learnt(out)["din"]] == [0]
    assert read_results(out / "results.json").document["failed"] == {"din seed 1": "exit status 2"}
    assert "DIN (1 of 2 seeds)" in (out / "table.md").read_text()


@pytest.fixture(scope="module")
def whole(data: str, blocked: tuple[Path, int, str]) -> Path:
    """The same comparison gone on with, nothing in the way any more."""
    out, *_ = blocked
    kept = {file: file.stat().st_mtime_ns for file in out.glob(f"cells/*/*/{RESULT}")}
    (out / "cells" / "din" / "seed-1" / "model").unlink()
    assert call(run, *options(data, out)) == 0
    assert len(kept) == 3
    assert all(file.stat().st_mtime_ns == moment for file, moment in kept.items())  # only the missing one is trained
    return out


def test_results_hold_what_was_measured(whole: Path, data: str) -> None:
    document = read_results(whole / "results.json").document
    assert document["failed"] == {}
    assert document["machine"]["cores"] == os.cpu_count()
    assert document["data"]["description"] == open_data(data).description
    assert set(document["variants"]) == set(NAMES)
    for name, one in document["variants"].items():
        artifact = load_artifact(whole / "cells" / name / "seed-0" / "model")
        assert one["parameters"] == artifact.parameters
        assert one["settings"]["model"] == artifact.config.model == name
        assert one["settings"]["epochs"] == 3
        assert artifact.training["settings"]["seed"] == 0
        batcher = Batcher(open_data(data), artifact.schema, TEST)
        shown = batcher.impressions
        due = measure(
            shown.user_ids, shown.clicks, predict(artifact.model(), batcher, next(artifact.model().parameters()).device)
        )
        assert one["cells"][0]["metrics"]["test"] == pytest.approx(due, abs=1e-4)
        assert [point["step"] for point in one["cells"][0]["training"]["curve"]][-1] == one["cells"][0]["training"][
            "steps"
        ]
        micros = one["serving"]["us_per_candidate"]
        assert 0 < micros["least"] <= micros["median"]
        assert one["serving"]["behaviors"] == 8  # as many as the model takes in
    seeds = [cell["metrics"]["test"]["auc"] for cell in document["variants"]["base"]["cells"]]
    assert seeds[0] != seeds[1]


def test_of_a_finished_cell_no_more_is_kept_than_is_needed(whole: Path) -> None:
    for name in NAMES:
        parts = {"settings.json", "result.json", "log.txt"}
        assert {part.name for part in (whole / "cells" / name / "seed-0").iterdir()} == parts | {"model"}
        assert {part.name for part in (whole / "cells" / name / "seed-1").iterdir()} == parts


def test_the_table_says_what_the_results_hold(whole: Path) -> None:
    comparison = read_results(whole / "results.json")
    base, din = comparison.rows(comparison.studies[0])
    lines = {
        line.split(" | ")[0].strip("| "): line.split(" | ") for line in (whole / "table.md").read_text().splitlines()
    }
    aucs = {row.name: [cell["metrics"]["test"]["auc"] for cell in row.cells] for row in (base, din)}
    assert "| parameters | training CPU s | serving µs |" in (whole / "table.md").read_text()
    for row in (base, din):
        mean, deviation = np.mean(aucs[row.name]), np.std(aucs[row.name], ddof=1)
        assert lines[row.name][1] == f"{mean:.4f} ± {deviation:.4f}".replace("0.", ".")
        assert lines[row.name][7] == f"{row.variant['parameters']:,}"
        took = [cell["training"]["cpu_seconds"] for cell in row.cells]
        assert min(took) > 0
        assert lines[row.name][8] == f"{np.mean(took):.0f}"
    assert lines["BaseModel"][2] == "reference"
    gaps = np.subtract(aucs["DIN"], aucs["BaseModel"])
    found = [float(part) for part in re.findall(r"[+-]\d*\.\d{4}", lines["DIN"][2])]
    half = 12.7062 * gaps.std(ddof=1) / np.sqrt(2)
    assert found == pytest.approx([gaps.mean(), gaps.mean() - half, gaps.mean() + half], abs=6e-5)


def test_every_picture_of_the_page_is_there(whole: Path) -> None:
    files = re.findall(r"!\[.*\]\((.*)\)", (whole / "table.md").read_text())
    assert files == [f"logs-models-{name}.png" for name in ("auc", "curves", "cost")]
    for file in files:
        with Image.open(whole / file) as image:
            assert image.width >= 800
            assert len(image.getcolors(1 << 24) or ()) > 50


def test_a_killed_comparison_goes_on_to_the_same_results(data: str, whole: Path, tmp_path: Path) -> None:
    words = options(data, tmp_path, "--models", "base", "--seeds", "1")
    killed = running(words)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cells/*/*/run/checkpoint.pt")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert call(run, *words) == 0
    assert learnt(tmp_path)["base"] == learnt(whole)["base"][:1]
    logs = [file.read_text() for file in tmp_path.glob("cells/*/*/log.txt")]
    assert any("--resume" in log for log in logs)


def test_other_settings_or_data_are_not_reused(
    data: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(run, capsys, *options(data, whole), "--hidden", "7")
    assert "base/seed-0: trained with hidden=6 where it is 7 now; remove it, or name another --out" in line
    shutil.copytree(whole, tmp_path / "out")
    folder = tmp_path / "logs"
    other = write_impressions(folder, seed=1)
    for file in (tmp_path / "out").glob("cells/*/*/settings.json"):
        file.write_text(file.read_text().replace(data, other))
    assert "trained with data_digest=" in complaint(run, capsys, *options(other, tmp_path / "out"))


def test_results_of_several_data_sets_make_one_page(whole: Path, tmp_path: Path) -> None:
    other = json.loads((whole / "results.json").read_text())
    other["data"]["name"] = "amazon:shared/amazon_beauty"
    (tmp_path / "beauty.json").write_text(json.dumps(other))
    assert call(run, "--report", whole / "results.json", tmp_path / "beauty.json", "--out", tmp_path) == 0
    page = (tmp_path / "table.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## logs", "## beauty"]
    assert (tmp_path / "beauty-models-auc.png").exists()


def test_results_from_before_cpu_seconds_are_read(whole: Path, tmp_path: Path) -> None:
    older = json.loads((whole / "results.json").read_text())
    for cell in older["variants"]["din"]["cells"]:
        del cell["training"]["cpu_seconds"]
    (tmp_path / "results.json").write_text(json.dumps(older))
    assert call(run, "--report", tmp_path / "results.json", "--out", tmp_path) == 0
    page = (tmp_path / "table.md").read_text()
    assert "| training s |" in page
    seconds = [cell["training"]["seconds"] for cell in older["variants"]["base"]["cells"]]
    (line,) = (line for line in page.splitlines() if line.startswith("| BaseModel "))
    assert line.split(" | ")[8] == f"{np.mean(seconds):.0f}"


def test_two_results_of_one_name_are_refused(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = (whole / "results.json", whole / "results.json", "--out", tmp_path)
    assert "report: two results called 'logs'; rename" in complaint(run, capsys, "--report", *twice)
    line = complaint(run, capsys, "--page", tmp_path / "page.md", "--out", tmp_path)
    assert "page: filled in from results; --report names them" in line


def test_the_grid_can_be_looked_at(data: str, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = options(data, whole)
    words[words.index("--seeds") + 1] = "3"
    assert call(run, "--list", *words) == 0
    told = capsys.readouterr().out
    assert re.search(r"^  BaseModel +base +2 of 3 finished, \d+ s each$", told, re.MULTILINE)
    assert "6 cells, 2 to train: " in told
    assert call(run, "--list", "--studies", "all", "--data", data) == 0
    told = capsys.readouterr().out
    assert "AIGRU" in told
    assert "prefixes" not in told  # asks of sequences


def test_ctrl_c_ends_all_and_says_how_to_go_on(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def press() -> None:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("cells/*/*/run/checkpoint.pt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    assert call(run, *options(data, tmp_path, "--models", "base")) == 130
    thread.join()
    err = capsys.readouterr().err
    assert re.fullmatch(r"stopped with \d of 2 cells; the same command goes on", err.splitlines()[-1])
    assert "Traceback" not in err
    assert list(tmp_path.glob("cells/*/*/run/checkpoint.pt"))
    with (tmp_path / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no training holds it any more


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--studies", "moods"), "studies=moods: one of all, models"),
        (("--studies", "prefixes"), "studies=prefixes: canonical:"),
        (("--models", "lstm"), "models=lstm: one of all, base"),
        (("--seeds", "0"), "seeds=0: at least 1"),
        (("--", "--epochs", "0"), "epochs=0: at least 1"),
        (("--", "--colour", "blue"), "unrecognized arguments: --colour blue"),
    ],
)
def test_a_bad_line_is_refused_before_any_work(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], rule: str
) -> None:
    assert rule in complaint(run, capsys, "--data", data, "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    # Student's t, two-sided 95 %, from printed tables.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423), (120, 1.9799)],
)
def test_t_quantiles(freedom: int, quantile: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(quantile, abs=5e-5)


def test_the_paired_interval_by_hand() -> None:
    # Differences 1, 2, 3, 4, 5: mean 3, deviation √2.5, half-width 2.7764 · √2.5 / √5 = 1.9632.
    values, reference = {0: 2.0, 1: 4.0, 2: 6.0, 3: 8.0, 4: 10.0, 9: 99.0}, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}
    found = paired(values, reference)
    assert found is not None
    assert found == pytest.approx((3.0, 2.5**0.5, 1.0368, 4.9632, 5), abs=1e-4)
    assert found.told_from_zero
    assert not estimate([-1.0, 2.0]).told_from_zero
    assert paired({0: 1.0}, {1: 1.0}) is None
    alone = estimate([4.0])
    assert (alone.mean, alone.seeds, alone.told_from_zero) == (4.0, 1, False)
