"""The benchmark checks before it times, a wrong contender ends it, and what it prints is what it found."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.bench import rounds
from kernels.bench.__main__ import main
from kernels.bench.case import Case, Size, evolution, random_case
from kernels.bench.contender import Contender, Prepared, cannot_run
from kernels.bench.rounds import Result, Task, largest_error, measure
from kernels.bench.series import Choice
from kernels.bench.torch_loops import eager, reference_evolve

TINY = Size(users=2, candidates=3, steps=5, hidden=8)
SIZES = ["--users", "2", "--candidates", "3", "--steps", "5", "--hidden", "8", "--repeats", "2"]


def off_by(error: float) -> Callable[[Case], Prepared]:
    return lambda case: Prepared(lambda: evolution(case).float() + error)


def no_number(case: Case) -> Prepared:
    return Prepared(lambda: evolution(case).float() * float("nan"))


def fewer_rows(case: Case) -> Prepared:
    return Prepared(lambda: evolution(case).float()[1:])


def right_but_times_another(case: Case) -> Prepared:
    return Prepared(lambda: torch.full((6,), float("inf")), lambda: evolution(case).float())


SOUND = {"eager": Contender(eager, "eager torch"), "reference": Contender(reference_evolve, "the reference")}


def only(contenders: dict[str, Contender]) -> Callable[[Choice], list[Task]]:
    return lambda choice: [Task(choice.size, contenders)]


def found_in(out: str) -> dict[str, Any]:
    last = out.splitlines()[-1]
    found: dict[str, Any] = json.loads(last)
    return found


def test_what_is_printed_is_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contenders = SOUND | {"absent": Contender(cannot_run("no such machine"), "elsewhere")}
    assert main([*SIZES, "--json", str(tmp_path / "bench.json")], only(contenders)) == 0
    out = capsys.readouterr().out
    found = found_in(out)
    assert json.loads((tmp_path / "bench.json").read_text()) == found
    assert set(found) == {"machine", "results", "targets"}
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["torch_threads"] == 1
    assert found["targets"] == []  # judged at the sizes of the headline alone
    assert "evolve, CPU: 2 users x 3 candidates x 5 steps, hidden 8\n" in out
    first, second, absent = found["results"]
    for one, name in ((first, "eager"), (second, "reference")):
        assert one["contender"] == name
        assert one["correct"]
        assert 0 <= one["largest_error"] <= one["tolerance"] == 5e-6
        assert 0 < one["least_ms"] <= one["median_ms"]
        assert one["rounds"] == 2
        assert one["calls_in_a_round"] >= 1
        assert one["than"] == "eager"
        assert one["times_faster"] > 0
        assert one["multiply_adds_per_second"] == pytest.approx(2 * 3 * 5 * 3 * 8 * 8 / one["median_ms"] * 1e3)
        assert any(line.startswith(name) and f"{one['median_ms']:.3f}" in line for line in out.splitlines())
    assert first["times_faster"] == first["times_faster_by_least"] == 1
    assert absent["not_run"] == "no such machine"
    assert "median_ms" not in absent
    assert "not run: absent (no such machine)" in out


@pytest.mark.parametrize("wrong", [off_by(1e-5), no_number, fewer_rows, right_but_times_another])
def test_a_wrong_contender_ends_it(
    wrong: Callable[[Case], Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cases(choice: Choice) -> list[Task]:
        mistaken = Task(choice.size, SOUND | {"mistaken": Contender(wrong, "wrong")})
        return [mistaken, Task(choice.size._replace(steps=6), SOUND)]

    assert main([*SIZES, "--json", str(tmp_path / "bench.json")], cases) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("mistaken: ")
    assert "5e-06 is allowed" in shown.err
    assert "was not timed" in shown.err
    found = found_in(shown.out)
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert [one["correct"] for one in found["results"]] == [True, True, False]  # and no second case
    assert not any("median_ms" in one for one in found["results"])


def test_each_contender_has_its_own_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    rough = Contender(off_by(1e-3), "rough")
    assert main(SIZES, only(SOUND | {"rough": replace(rough, tolerance=2e-3)})) == 0
    assert main(SIZES, only(SOUND | {"rough": rough})) == 1
    assert "rough: off by 1.0e-03" in capsys.readouterr().err


def test_one_row_is_not_compared_with_all() -> None:
    """As broadcasting would."""
    assert largest_error(torch.zeros(1, 4), torch.zeros(3, 4, dtype=torch.float64)) is None
    assert largest_error(torch.zeros(3, 4), torch.full((3, 4), 0.5, dtype=torch.float64)) == 0.5


def recording(order: list[str], name: str, case: Case, inside: Sequence[str] = ()) -> Prepared:
    class Inside(AbstractContextManager[object]):
        def __exit__(self, *exception: object) -> None:
            order.append(")")

        def __enter__(self) -> object:
            order.append("(")
            return self

    def call() -> Tensor:
        order.append(name)
        return evolution(case).float()

    return Prepared(call, around=Inside if name in inside else nullcontext)


def test_rounds_alternate_and_a_call_goes_before_those_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(rounds, "LEAST_MILLISECONDS", 1e-6)  # one call is enough
    contenders = {name: Contender(partial(recording, order, name, inside="b"), "") for name in "abc"}
    results = measure(Task(TINY, contenders), repeats=3)
    checked, calibrated, timed = "a(b)c", "aaaa(bbbb)cccc", "aa(bb)cc" + "(bb)ccaa" + "ccaa(bb)"
    assert "".join(order) == checked + calibrated + timed
    assert [len(result.times) for result in results] == [3, 3, 3]


@pytest.mark.parametrize(("milliseconds", "calls"), [(0.3, 7), (1.0, 2), (2.0, 1), (50.0, 1)])
def test_a_short_call_is_repeated_until_it_can_be_timed(
    milliseconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def prepare(case: Case) -> Prepared:
        due = evolution(case).float()

        def call() -> Tensor:
            now[0] += milliseconds / 1e3
            return due

        return Prepared(call)

    result = measure(Task(TINY, {"a": Contender(prepare, "")}), repeats=2)[0]
    assert result.calls == calls
    assert result.times == pytest.approx([milliseconds] * 2)


def test_a_long_case_has_the_least_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SECONDS", 0.0)
    assert [len(result.times) for result in measure(Task(TINY, SOUND), repeats=20)] == [rounds.LEAST_ROUNDS] * 2


def test_shares_and_ratios_are_of_the_same_rounds() -> None:
    task = Task(TINY, {name: Contender(eager, "", threads=1, ours=True) for name in "ab"})
    work = TINY.evolve_multiply_adds
    one = Result(task, "a", times=[1.0, 2.0, 4.0], peaks=[work * 1e4, work * 1e3, work * 1e3])
    other = Result(task, "b", times=[3.0, 4.0, 4.0])
    assert rounds.times_faster(one, other) == (2.0, 3.0)
    assert one.shares() == pytest.approx((0.25, 0.1))
    assert other.shares() is None


def test_peaks_are_measured_for_ours_on_their_own_threads() -> None:
    asked: list[int] = []

    def peak(threads: int) -> float:
        asked.append(threads)
        return 1e9 * threads

    ours = {f"{n}t": Contender(eager, "", threads=n, ours=True) for n in (1, 2)}
    theirs, one, two = measure(Task(TINY, {"eager": SOUND["eager"]} | ours), 2, peak)
    assert sorted(asked) == [1, 1, 2, 2]
    assert (theirs.peaks, one.peaks, two.peaks) == ([], [1e9, 1e9], [2e9, 2e9])


class Event:
    """A GPU's event by a clock that every call moves by 3 ms."""

    clock = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = float("nan")

    def record(self) -> None:
        self.at = Event.clock

    def synchronize(self) -> None:
        assert self.at == Event.clock  # the last call was waited for

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


def test_time_on_a_gpu_is_that_between_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(Event.clock))

    def call() -> Tensor:
        Event.clock += 3.0
        return torch.empty(0)

    assert rounds.device_events(call, 4) == 3.0
    assert waited == [0.0]  # an idle GPU at the start


def test_the_threads_asked_for_are_used_and_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before, seen = torch.get_num_threads(), []

    def counting(case: Case) -> Prepared:
        seen.append(torch.get_num_threads())
        return eager(case)

    assert main([*SIZES, "--threads", "2"], only({"counting": Contender(counting, "")})) == 0
    assert seen == [2]
    assert found_in(capsys.readouterr().out)["machine"]["torch_threads"] == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("option", ["users", "candidates", "steps", "hidden", "threads", "repeats"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_nothing_below_one(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([f"--{option}={value}"])
    assert refused.value.code == 2
    assert f"--{option}: {value}: a whole number, at least 1" in capsys.readouterr().err


def test_a_pattern_that_fits_nobody_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--contenders", "cobol-*"])
    assert refused.value.code == 2
    assert "no contender of these cases fits cobol-*" in capsys.readouterr().err


def test_cases_are_always_the_same() -> None:
    one, other = random_case(TINY), random_case(TINY)
    assert torch.equal(one.states, other.states)
    assert torch.equal(one.weights.w_recurrent, other.weights.w_recurrent)
    assert one.copies().shape == (6, 5, 8)
    assert torch.equal(one.copies()[4], one.states[5:])
