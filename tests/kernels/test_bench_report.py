"""The judged ratios, the tables of growth, the picture and the roofline, from results made up by hand."""

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from matplotlib import image

from kernels.bench import ours, report
from kernels.bench.case import Size
from kernels.bench.contender import Contender
from kernels.bench.gpu import roofline
from kernels.bench.plot import plot
from kernels.bench.rounds import Result, Task
from kernels.bench.series import HEADLINE
from kernels.bench.targets import judge
from kernels.bench.torch_loops import eager

ISA = ours.isa_in_use() or "baseline"
EXACT, FAST, TWO = f"native-exact-{ISA}", f"native-fast-{ISA}", f"native-exact-{ISA}-2t"


def contender(name: str) -> Contender:
    if not name.startswith("native"):
        return Contender(eager, "theirs")
    _, precision, isa, *threads = name.split("-")
    number = int(threads[0][:-1]) if threads else 1
    return Contender(eager, "ours", threads=number, isa=isa, precision=precision, ours=True)


def results_of(size: Size, times: dict[str, float], peak: float = 1.0) -> list[Result]:
    """Three rounds of the same time; `peak` in multiples of what the work in 1 ms takes."""
    task = Task(size, {name: contender(name) for name in times})
    found = []
    for name, ms in times.items():
        peaks = [task.multiply_adds * 1e3 * peak] * 3 if task.contenders[name].ours else []
        found.append(Result(task, name, largest_error=0.0, calls=1, times=[ms] * 3, peaks=peaks))
    return found


TIMES = {
    "evolve-eager": 6.0,
    "deepctr-torch": 36.0,
    "torch-rechub": 24.0,
    EXACT: 1.0,
    FAST: 0.5,
    "native-exact-avx2": 2.5 if ISA != "avx2" else 1.0,
    TWO: 0.625,
}


def test_targets_are_met_or_not() -> None:
    judged = {one.what: one for one in judge(results_of(HEADLINE, TIMES, peak=1.6), torch_threads=1)}
    assert [(one.target, one.measured, one.met) for one in judged.values()] == [
        (5.0, 6.0, True),
        (30.0, 36.0, True),
        (30.0, 24.0, False),
        (0.6, pytest.approx(0.625), True),
        (1.4, 2.0, True),
        (3.0, 2.4 if ISA != "avx2" else 6.0, ISA == "avx2"),
        (1.8, pytest.approx(1.6), False),
    ]
    lines = report.judged_lines(judged.values()).splitlines()
    assert lines[1].split()[:4] == ["5", "6.00", "(6.00)", "met:"]
    assert lines[3].split()[:5] == ["30", "24.00", "(24.00)", "NOT", "met:"]


def test_what_was_not_measured_is_neither_met_nor_not() -> None:
    times = {name: ms for name, ms in TIMES.items() if name not in (TWO, "deepctr-torch")}
    results = results_of(HEADLINE, times | {"deepctr-torch": 1.0})
    results[-1].times, results[-1].largest_error, results[-1].reason = [], None, "not installed"
    for result in results:
        result.peaks = []
    judged = judge(results, torch_threads=1)
    reasons = [one.reason for one in judged if one.met is None]
    assert reasons == ["deepctr-torch: not installed", "no peak was measured", f"{TWO} was not asked for"]
    assert report.judged_lines(judged).count("not measured") == 3


def test_targets_are_for_the_headline_on_one_thread() -> None:
    results = results_of(HEADLINE, TIMES)
    assert judge(results, torch_threads=2) == []
    assert judge(results_of(HEADLINE._replace(steps=50), TIMES), torch_threads=1) == []
    results[0].largest_error = 1.0
    assert judge(results, torch_threads=1) == []


def growing() -> list[Result]:
    found = results_of(HEADLINE, TIMES)
    for candidates, ms in ((1, 0.1), (20, 0.3), (2048, 9.0)):
        found += results_of(HEADLINE._replace(candidates=candidates), {"evolve-eager": 10 * ms, EXACT: ms})
    return found


def test_growth_is_along_one_axis_at_a_time() -> None:
    found = growing() + results_of(Size(1, 20, 50, 32), {EXACT: 99.0})
    points = report.growth(found, "candidates", HEADLINE)
    assert points[EXACT] == [(1, 0.1), (20, 0.3), (200, 1.0), (2048, 9.0)]
    assert set(points) == {"evolve-eager", EXACT}  # one point is no growth
    assert report.growth(found, "steps", HEADLINE) == {}
    assert report.threads_growth(found, HEADLINE) == {EXACT: [(1, 1.0), (2, 0.625)]}
    text = report.growth_tables(found, HEADLINE)
    assert text.splitlines()[0].split() == ["ms", "by", "candidates,", "CPU", "1", "20", "200", "2048"]
    assert text.splitlines()[2].split() == [EXACT, "0.100", "0.300", "1.000", "9.000"]
    assert "ms by threads, CPU" in text
    assert "steps" not in text


def test_the_picture_shows_all_panels(tmp_path: Path) -> None:
    plot(growing(), HEADLINE, tmp_path / "bench.png")
    start = (tmp_path / "bench.png").read_bytes()[:24]
    width, height = struct.unpack(">II", start[16:24])
    pixels = image.imread(tmp_path / "bench.png")[..., :3]
    assert pixels.shape[:2] == (height, width)
    assert width > 1200
    coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 0.3
    left, right = coloured[:, : width // 3], coloured[:, 2 * width // 3 :]
    assert left[: height // 2].any()  # growth with candidates
    assert right[height // 2 :].any()  # bars
    assert not right[: height // 2].any()  # growth with users was not measured


@dataclass
class Card:
    """Round figures: 100 multiprocessors at 1 GHz, 1 GHz of memory clock on 4,000 bits."""

    multi_processor_count: int = 100
    clock_rate: int = 1_000_000
    memory_clock_rate: int = 1_000_000
    memory_bus_width: int = 4_000


def test_roofline_is_arithmetic() -> None:
    size = Size(users=2, candidates=50, steps=10, hidden=32)
    fast = roofline(size, "fast", Card(), "9.0")
    # 20 states, 100 queries and 100 results of 128 bytes, at 2 x 1e6 x 500 bytes in a millisecond
    assert fast.memory_ms == pytest.approx(220 * 128 / 1e9)
    # 100 candidates x 10 steps x 96 gates, at 16 x 100 x 1e6 in a millisecond
    assert fast.activations_ms == pytest.approx(96_000 / 1.6e9)
    # 100 x 10 x 32 x 96 multiply-adds, at 2048 x 100 x 1e6 in a millisecond
    assert fast.products_ms == pytest.approx(3_072_000 / 2.048e11)
    assert fast.floor_ms == fast.activations_ms
    exact = roofline(size, "exact", Card(), "9.0")
    assert exact.activations_ms == 2 * fast.activations_ms
    assert exact.products_ms == pytest.approx(3 * 3_072_000 / 2.048e11)
    assert roofline(size, "fast", Card(), "gfx9999").products_ms is None
