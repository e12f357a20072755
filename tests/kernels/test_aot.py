"""Binaries compiled here for GPUs that are not here: what is counted in them, and what makes a kernel fail."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aot_variants import own_job

from kernels.aot.__main__ import TARGETS, jobs, main, unavailable
from kernels.aot.measure import Job, Measurement
from kernels.aot.workers import measure_all
from kernels.contract import PRECISIONS

needs_triton = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
NVIDIA, AMD = "cuda:90", "hip:gfx942"


def spilling(target: str) -> Job:
    """Too few registers for two products of 64 columns."""
    few = {"maxnreg": 40} if target == NVIDIA else {"llvm_fn_attrs": "amdgpu-num-vgpr=40"}
    return own_job(target, hidden=64, exact=True, more=few)


def spoiled(target: str) -> dict[str, Job]:
    return {
        "plain": own_job(target),
        "unrolled": own_job(target, unroll=4),
        "twice": own_job(target, exact=True),
        "four warps": own_job(target, num_warps=4),
        "no matrix": own_job(target, matrix=False),
        "no gates": own_job(target, gates="none"),
        "remarks": own_job(target, remarks=True),
        "spilling": spilling(target),
        "abort": own_job(target, kernel="abort"),
        "raise": own_job(target, kernel="raise"),
        "after all": own_job(target),
    }


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Measurement]:
    """Every job for both machines, with the interpreter asked for: it must not matter."""
    named = {(target, name): job for target in (NVIDIA, AMD) for name, job in spoiled(target).items()}
    named[NVIDIA, "no tanh"] = own_job(NVIDIA, form="tanh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        measured = measure_all(named.values())
    return dict(zip(named, measured, strict=True))


Found = dict[tuple[str, str], Measurement]


@needs_triton
@pytest.mark.parametrize("target", [NVIDIA, AMD])
def test_a_sound_kernel(target: str, found: Found) -> None:
    plain = found[target, "plain"]
    assert plain.failures == []
    assert (plain.spills, plain.local_bytes, plain.repeated_products) == (0, 0, 1)
    assert 16 < (plain.registers or 0) < 128
    assert (plain.shared_bytes or 0) >= 32 * 32 * 2 * (target == NVIDIA)
    assert plain.instructions_per_step == plain.instructions_per_step_per_16_candidates
    assert found[target, "after all"] == plain


@needs_triton
@pytest.mark.parametrize(
    ("target", "step"),
    # An element of 16 x 32 in each lane takes 2^x, an addition, a reciprocal; products: 32 x 16 x 32 in tiles.
    [(NVIDIA, 16 * (2 + 1) + 8), (AMD, 8 * (2 + 1) + 4)],
)
def test_no_fewer_instructions_than_the_step_must_have(target: str, step: int, found: Found) -> None:
    counted = found[target, "plain"].instructions_per_step
    assert counted
    assert step < counted < 8 * step


@needs_triton
def test_a_second_product_counts_as_what_it_is(found: Found) -> None:
    """Eight HMMA, sixteen multiplications by a half, eight conversions of pairs to float16."""
    once, twice = (found[NVIDIA, name].instructions_per_step for name in ("plain", "twice"))
    assert once
    assert twice
    assert twice - once == 8 + 16 + 8


@needs_triton
@pytest.mark.parametrize("target", [NVIDIA, AMD])
def test_unrolling_does_not_multiply_the_count(target: str, found: Found) -> None:
    """Four steps in a pass save the loop's own instructions, no more."""
    plain, unrolled = (found[target, name].instructions_per_step or 0 for name in ("plain", "unrolled"))
    assert 0.85 * plain < unrolled < plain


@needs_triton
def test_four_warps_share_the_columns_or_repeat_them(found: Found) -> None:
    """On NVIDIA each has eight of 32 columns; on AMD, in tiles of 16 rows, all do the same."""
    shared, repeated = found[NVIDIA, "four warps"], found[AMD, "four warps"]
    assert (shared.repeated_products, repeated.repeated_products) == (1, 4)
    assert repeated.instructions_per_step == found[AMD, "plain"].instructions_per_step
    for one in (shared, repeated):
        assert one.instructions_per_step
        assert one.instructions_per_step_per_16_candidates == one.instructions_per_step
        assert one.instructions_per_step_per_16_candidates_all_warps == 4 * one.instructions_per_step


@needs_triton
@pytest.mark.parametrize(
    ("target", "name", "said"),
    [
        (NVIDIA, "no matrix", "no loop with matrix instructions"),
        (AMD, "no matrix", "no loop with matrix instructions"),
        (NVIDIA, "no gates", "no MUFU.EX2 in the time loop"),
        (AMD, "no gates", "no v_exp_f32 in the time loop"),
        (NVIDIA, "no tanh", "no MUFU.TANH in the time loop"),
        (NVIDIA, "remarks", "the compiler says: a remark of the compiler"),
        (AMD, "remarks", "the compiler says: a remark of the compiler"),
        (NVIDIA, "raise", "does not compile: RuntimeError: no such kernel"),
        (NVIDIA, "abort", "the compiler ended with status 9"),
        (AMD, "abort", "the compiler ended with status 9"),
    ],
)
def test_what_makes_a_kernel_fail(target: str, name: str, said: str, found: Found) -> None:
    assert said in found[target, name].failures


@needs_triton
@pytest.mark.parametrize("target", [NVIDIA, AMD])
def test_a_spilling_kernel_fails(target: str, found: Found) -> None:
    spilled = found[target, "spilling"]
    assert spilled.spills
    assert spilled.local_bytes
    (failure,) = spilled.failures
    what = "bytes" if target == NVIDIA else "registers"
    said = re.fullmatch(
        rf"spills (\d+) {what}, takes (\d+) bytes of local memory, has (\d+) instructions on it", failure
    )
    assert said
    assert (int(said[1]), int(said[2])) == (spilled.spills, spilled.local_bytes)
    assert int(said[3]) > 0
    if target == NVIDIA:
        assert (spilled.spill_store_bytes or 0) + (spilled.spill_load_bytes or 0) == spilled.spills


def planned(*own: Job) -> Any:
    def plan(targets: Sequence[str], hiddens: Sequence[int], precisions: Sequence[str]) -> list[Job]:
        return list(own)

    return plan


@pytest.fixture
def one_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process for two kernels: it takes longer to start than to compile them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@needs_triton
@pytest.mark.usefixtures("one_compiler")
def test_the_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "aot.json"
    assert main(["--json", str(file)], planned(own_job(AMD), own_job(AMD, num_warps=2))) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    head, *rows = shown.out.splitlines()[:3]
    assert head.split()[:8] == ["kernel", "target", "precision", "hidden", "warps", "registers", "spills", "local"]
    written = json.loads(file.read_text())
    assert [one["num_warps"] for one in written] == [1, 2]
    for row, one in zip(rows, written, strict=True):
        assert row.split()[:5] == ["gru", AMD, "fast", "32", str(one["num_warps"])]
        assert row.split()[5] == str(one["registers"])
        assert one["instructions_per_step_per_16_candidates"] > 0
    assert "2 kernels compiled and read in" in shown.out


@needs_triton
@pytest.mark.usefixtures("one_compiler")
def test_a_failure_is_told_and_ends_in_status_1(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "aot.json"
    assert main(["--json", str(file)], planned(own_job(AMD), own_job(AMD, matrix=False))) == 1
    said = "failed: gru hip:gfx942 fast hidden 32 warps 1: no loop with matrix instructions\n"
    assert capfd.readouterr().err == said
    assert [len(one["failures"]) for one in json.loads(file.read_text())] == [0, 1]


def test_without_triton(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert main([]) == 2
    assert capsys.readouterr().err == "python -m kernels.aot: triton is not installed\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "cuda:abc"], "argument --target: cuda:abc: none of cuda:80, "),
        (["--target", "hip:foo"], "argument --target: hip:foo: none of cuda:80, "),
        (["--target", "cuda:90", "cuda:81"], "argument --target: cuda:81: none of "),
        (["--target", ""], "argument --target: : none of "),
        (["--hidden", "129"], "argument --hidden: 129: a whole number from 1 to 128"),
        (["--hidden", "0"], "argument --hidden: 0: a whole number from 1 to 128"),
        (["--hidden", "many"], "argument --hidden: many: a whole number from 1 to 128"),
        (["--precision", "half"], "argument --precision: invalid choice: 'half'"),
        (["--json", "/no/such/folder/f"], "argument --json: /no/such/folder/f: not a file in a folder that exists"),
    ],
)
def test_bad_options(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(options)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_every_kernel_is_compiled_for_every_target_once() -> None:
    planned_jobs = jobs(TARGETS, [32, 108], PRECISIONS)
    assert {job.target for job in planned_jobs} == set(TARGETS)
    assert {job.variant.kernel for job in planned_jobs} >= {"project", "gru", "attention", "evolve"}
    named = {(job.target, job.kernel, job.variant.constants["hidden"], job.precision, job.variant.num_warps): job
             for job in planned_jobs}  # fmt: skip
    assert len(named) == len(planned_jobs)
    cells = {job.kernel for job in planned_jobs if job.variant.kernel == "evolve"}
    assert cells == {f"evolve-{name}" for name in ("augru", "agru", "aigru")}
