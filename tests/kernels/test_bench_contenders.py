"""Every contender that can run here gives what is due of it, and the command tells of all of them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import native
from kernels.bench import gpu, heads, ours, peers, torch_loops
from kernels.bench.__main__ import main
from kernels.bench.case import Case, Size, evolution, interest_states, last_states, random_case
from kernels.bench.contender import CannotRunError, Contender
from kernels.bench.rounds import Task, largest_error, measure
from kernels.bench.series import AXES, HEADLINE, Choice, axis_sizes, grid, tasks

SIZES = [Size(2, 3, 5, 8), Size(1, 1, 1, 8), Size(3, 20, 7, 32)]
COMPILED = "evolve-compiled"


def results_of(contenders: dict[str, Contender], size: Size, operation: str = "evolve") -> dict[str, bool | None]:
    with torch.inference_mode():
        return {one.name: one.correct for one in measure(Task(size, contenders, operation), repeats=1)}


@pytest.mark.parametrize("size", SIZES)
def test_loops_of_torch(size: Size) -> None:
    contenders = torch_loops.evolve_contenders(compiling=False)
    found = results_of(contenders, size)
    assert found == {name: None if name == COMPILED else True for name in contenders}
    found = results_of(torch_loops.gru_contenders(), size, "gru")
    assert found == dict.fromkeys(torch_loops.gru_contenders(), True)


@pytest.mark.parametrize("size", SIZES)
def test_ours(size: Size) -> None:
    here = () if native.unavailable() else native.isas()
    for contenders, operation in (
        (ours.evolve_contenders(ours.ISAS, [1, 2]), "evolve"),
        (ours.gru_contenders(ours.ISAS, [1, 2]), "gru"),
    ):
        found = results_of(contenders, size, operation)
        assert found == {name: True if each.isa in here else None for name, each in contenders.items()}
        assert {each.threads for name, each in contenders.items() if each.isa in here} == ({1, 2} if here else set())
        assert {each.tolerance for each in contenders.values()} == {5e-6, 2e-3}


@pytest.mark.parametrize("size", SIZES)
def test_heads(size: Size) -> None:
    here = () if native.unavailable() else native.isas()
    contenders = heads.contenders(ours.ISAS)
    found = results_of(contenders, size, "head")
    assert found == {name: True if each.isa is None or each.isa in here else None for name, each in contenders.items()}
    assert Task(size, contenders, "head").multiply_adds == size.users * size.candidates * (
        (54 + size.hidden) * 200 + 200 * 80 + 80
    )


@pytest.mark.skipif(native.unavailable() is not None, reason="the native extension is not built")
def test_the_instruction_set_is_the_one_of_the_name() -> None:
    before = native.isa()
    for name, contender in ours.evolve_contenders(native.isas(), [1]).items():
        prepared = contender.prepare(random_case(SIZES[0]))
        with prepared.around():
            assert native.isa() == contender.isa
            assert name == f"native-{contender.precision}-{native.isa()}"
        assert native.isa() == before


@pytest.mark.parametrize(("name", "module"), [("deepctr-torch", "deepctr_torch"), ("torch-rechub", "torch_rechub")])
@pytest.mark.parametrize("size", SIZES)
def test_public_diens(name: str, module: str, size: Size) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: the extra `peers` has it")
    contender = peers.contenders()[name]
    case = random_case(size)
    with torch.inference_mode():
        prepared = contender.prepare(case)
        scores, checked = prepared.call(), prepared.checked
        assert scores.flatten().shape == (size.users * size.candidates,)
        assert bool(((scores > 0) & (scores < 1)).all())
        assert checked is not None
        error = largest_error(checked(), contender.due(case))
        assert error is not None
        assert error < 5e-6
        another = case._replace(queries=case.queries.flip(1))
        other = largest_error(checked(), contender.due(another))
    if size.steps > 1:  # what is due depends on attention; over one step it is 1
        assert other is not None
        assert other > 1e-4
        assert len(torch.unique(scores)) > 1


def test_public_diens_that_are_not_installed_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for contender in peers.contenders().values():
        with pytest.raises(CannotRunError, match="the extra `peers` is not installed"):
            contender.prepare(random_case(SIZES[0]))


def test_a_gru_is_no_augru() -> None:
    """The truths differ, so that checking against the wrong one would be seen."""
    case = random_case(SIZES[0])
    truths = [evolution(case), last_states(case), evolution(peers.one_bias(case)), evolution(peers.no_inner_bias(case))]
    for number, one in enumerate(truths):
        for other in truths[:number]:
            error = largest_error(one, other)
            assert error is not None
            assert error > 1e-4


def test_last_states_are_of_the_candidates_own_user() -> None:
    case: Case = random_case(Size(3, 2, 4, 8))
    states = interest_states(case)
    assert torch.equal(last_states(case), states[[3, 3, 7, 7, 11, 11]])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the kernels themselves are checked")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_calls_of_triton_under_the_interpreter(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "_captured", lambda call: call)  # no graph without a GPU
    case = random_case(Size(2, 3, 4, 32))
    evolved, states = evolution(case), interest_states(case)
    for prepare, due in ((gpu.triton, evolved), (gpu.triton_graph, evolved), (gpu.triton_gru, states)):
        error = largest_error(prepare(precision)(case).call(), due)
        assert error is not None
        assert error < gpu.TOLERANCES[precision]


@pytest.mark.parametrize("tf32", [False, True])
def test_the_precision_of_cudnn_is_the_contenders_own(tf32: bool) -> None:
    case, before = random_case(SIZES[0]), torch.backends.cudnn.allow_tf32
    prepared = gpu.cudnn_gru(tf32, torch_loops.copied_gru)(case)
    with torch.inference_mode(), prepared.around():
        assert torch.backends.cudnn.allow_tf32 == tf32
        error = largest_error(prepared.call(), last_states(case))
    assert error is not None
    assert error < 5e-6
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_contenders_are_listed() -> None:
    contenders = gpu.evolve_contenders(compiling=True) | gpu.gru_contenders()
    assert {"triton-exact", "triton-fast-graph", "gpu-cudnn-gru"} <= set(contenders)
    for contender in contenders.values():
        with pytest.raises(CannotRunError, match="torch sees no GPU"):
            contender.prepare(random_case(SIZES[0]))
    listed = tasks(Choice(cases="headline"))
    assert len(listed) == 1
    assert set(gpu.evolve_contenders(False)) < set(listed[0].contenders)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("size", SIZES)
def test_on_a_gpu(size: Size) -> None:
    for contenders, operation in (
        (gpu.evolve_contenders(compiling=False), "evolve"),
        (gpu.gru_contenders(), "gru"),
    ):
        with torch.inference_mode():
            results = measure(Task(size, contenders, operation, "cuda"), repeats=1)
        assert all(one.correct for one in results if one.reason is None)
        assert {"triton-exact", "triton-fast"} <= {one.name for one in results if one.times}


def test_every_case_that_is_due_is_run_once() -> None:
    listed = [task for task in tasks(Choice(cases="all", patterns=("evolve-eager", "gru-*"))) if task.device == "cpu"]
    sizes = [task.size for task in listed if task.operation == "evolve"]
    assert len(set(sizes)) == len(sizes)
    for candidates in AXES["candidates"]:
        for steps in AXES["steps"]:
            for hidden in AXES["hidden"]:
                assert Size(1, candidates, steps, hidden) in sizes
    assert {Size(64, 200, 100, hidden) for hidden in AXES["hidden"]} <= set(sizes)
    assert {*axis_sizes(HEADLINE), *grid()} == set(sizes)
    assert [task.size.users for task in listed if task.operation == "gru"] == [64]
    growth = tasks(Choice(cases="growth", patterns=("evolve-*",)))
    assert {tuple(task.contenders) for task in growth if task.device == "cpu"} == {("evolve-eager",)}


SMALL = ["--users", "2", "--candidates", "3", "--steps", "4", "--hidden", "8", "--repeats", "1"]


def test_all_contenders_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    patterns = ("evolve-*", "torch-gru*", "native-*", "gpu-*", "triton-*")
    assert main([*SMALL, "--cases", "headline", "--contenders", *patterns]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])["results"]
    listed = tasks(Choice(cases="headline", patterns=patterns))
    assert [one["contender"] for one in found] == [name for task in listed for name in task.contenders]
    assert all(one["correct"] and one["median_ms"] > 0 for one in found if "not_run" not in one)
    for one in found:
        assert one["contender"] in out
        assert one.get("not_run", "") in out
    assert "--compile was not given" in out


def test_growth_along_every_axis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "bench.png"
    assert main([*SMALL, "--cases", "growth", "--contenders", "*-eager", "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    for axis in AXES:
        assert f"ms by {axis}, CPU" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(out.splitlines()[-1])["results"]
    sizes = {Size(*(one[name] for name in Size._fields)) for one in found if one["device"] == "cpu"}
    assert sizes == set(axis_sizes(Size(2, 3, 4, 8)))


def test_it_is_a_command() -> None:
    line = [sys.executable, "-m", "kernels.bench", *SMALL, "--cases", "headline", "--contenders", "evolve-eager"]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["results"][0]["contender"] == "evolve-eager"
    assert done.stderr == ""


def test_a_picture_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as refused:
        main([*SMALL, "--plot", "bench.png"])
    assert refused.value.code == 2
    assert "--plot: matplotlib is not installed" in capsys.readouterr().err
