"""The benchmark checks before it times, and a wrong contender ends it."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import bench
from kernels.bench import CONTENDERS, Case, Contender, largest_error, main, random_case, times_in_rounds

TINY = ["--users", "2", "--candidates", "3", "--steps", "5", "--hidden", "4", "--repeats", "2"]


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[dict[str, Any]]]:
    lines = capsys.readouterr().out.splitlines()
    return lines, json.loads(lines[-1])


@pytest.mark.parametrize("sizes", [[], ["--steps", "1", "--users", "1"], ["--candidates", "1", "--hidden", "1"]])
def test_every_contender_is_right_and_timed(
    sizes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, *sizes, "--json", str(tmp_path / "bench.json")]) == 0
    lines, found = printed(capsys)
    assert [one["contender"] for one in found] == list(CONTENDERS)
    assert all(one["correct"] and 0 <= one["largest_error"] <= bench.TOLERANCE for one in found)
    assert all(0 < one["least_ms"] <= one["median_ms"] and one["ratio"] > 0 for one in found)
    assert found[0]["ratio"] == 1
    assert {found[0][name] for name in ("threads", "repeats")} == {1, 2}
    assert json.loads((tmp_path / "bench.json").read_text()) == found
    for line, one in zip(lines[2:-1], found, strict=True):
        assert line.startswith(one["contender"])
        assert f"{one['median_ms']:.3f}" in line


def off_by(error: float) -> Callable[[Case], Callable[[], Tensor]]:
    return lambda case: lambda: bench.evolution(case).float() + error


def no_number(case: Case) -> Callable[[], Tensor]:
    return lambda: bench.evolution(case).float() * float("nan")


@pytest.mark.parametrize("wrong", [off_by(1e-5), no_number])
def test_a_wrong_contender_ends_it(
    wrong: Callable[[Case], Callable[[], Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = CONTENDERS | {"mistaken": Contender(wrong, bench.evolution, "wrong")}
    assert main([*TINY, "--json", str(tmp_path / "bench.json")], contenders) == 1
    shown = capsys.readouterr()
    assert "mistaken; nothing was timed" in shown.err
    found = json.loads(shown.out.splitlines()[-1])
    assert [one["correct"] for one in found] == [True, True, True, False]
    assert not any("median_ms" in one for one in found)


def test_one_row_is_not_compared_with_all() -> None:
    """As broadcasting would."""
    assert largest_error(torch.zeros(1, 4), torch.zeros(3, 4, dtype=torch.float64)) is None
    assert largest_error(torch.zeros(3, 4), torch.full((3, 4), 0.5, dtype=torch.float64)) == 0.5


def test_a_gru_is_no_augru() -> None:
    """The two truths differ, so that checking against the wrong one would be seen."""
    case = random_case(users=2, candidates=3, steps=5, hidden=4)
    error = largest_error(bench.last_states(case), bench.evolution(case))
    assert error is not None
    assert error > 100 * bench.TOLERANCE


def test_rounds_alternate() -> None:
    order: list[str] = []

    def call(name: str) -> Tensor:
        order.append(name)
        return torch.empty(0)

    times = times_in_rounds({name: partial(call, name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_the_threads_asked_for_are_used_and_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before, seen = torch.get_num_threads(), []

    def counting(case: Case) -> Callable[[], Tensor]:
        seen.append(torch.get_num_threads())
        return bench.shared(case)

    assert main([*TINY, "--threads", "2"], {"counting": Contender(counting, bench.evolution, "")}) == 0
    assert seen == [2]
    assert printed(capsys)[1][0]["threads"] == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("option", ["users", "candidates", "steps", "hidden", "threads", "repeats"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_nothing_below_one(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([f"--{option}={value}"])
    assert refused.value.code == 2
    assert f"--{option}: {value}: a whole number, at least 1" in capsys.readouterr().err
