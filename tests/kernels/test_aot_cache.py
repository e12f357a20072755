"""Kernels compiled ahead are found by what a launch looks for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from kernels.triton.variants import Variant, gru, scale, variants

pytest.importorskip("triton")

from triton import knobs
from triton.backends.nvidia import driver as nvidia
from triton.runtime import driver
from triton.runtime.build import compile_so_from_file

from kernels.aot import cache
from kernels.triton.launch import function_of

SCALE = scale(32, "exact", "cuda")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Triton's."""
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    return tmp_path


def launched(variant: Variant, target: str, *arguments: torch.Tensor | int) -> None:
    """As `kernels.triton.launch.run` does it with tensors, but for the launch."""
    driver.set_active(cache.Absent(target))
    try:
        function = function_of(variant)
        function.device_caches.clear()
        function.run(*arguments, grid=(1,), warmup=True, **variant.constants, **variant.options)
        function.device_caches.clear()
    finally:
        driver._active = None


@pytest.mark.parametrize("rows", [1, 16, 37])
def test_a_launch_with_tensors_compiles_nothing_that_was_compiled_ahead(folder: Path, rows: int) -> None:
    assert cache.fill("cuda:90", [SCALE]) == 1
    before = sorted(folder.rglob("*"))
    assert any(file.suffix == ".cubin" for file in before)
    launched(SCALE, "cuda:90", torch.zeros(rows, 96), torch.zeros(rows + 1, 96), rows * 96)
    assert sorted(folder.rglob("*")) == before


def test_a_kernel_is_for_one_architecture_and_one_variant(folder: Path) -> None:
    cache.fill("cuda:90", [SCALE])
    before = len(list(folder.iterdir()))
    cache.fill("cuda:80", [SCALE])
    assert len(list(folder.iterdir())) == before + 1
    launched(scale(16, "exact", "cuda"), "cuda:90", torch.zeros(4, 48), torch.zeros(5, 48), 4 * 48)
    assert len(list(folder.iterdir())) == before + 2


def test_a_recurrent_kernel_is_found_too(folder: Path) -> None:
    variant = gru(16, "fast", "cuda", "throughput")
    cache.fill("cuda:86", [variant])
    before = len(list(folder.iterdir()))
    users, steps = 5, 40
    tensors = torch.zeros(steps + 1, 48), torch.zeros(users + 1, dtype=torch.int64), torch.arange(users)
    weights = torch.zeros(16, 48), torch.zeros(16)
    launched(variant, "cuda:86", *tensors, *weights, torch.zeros(steps, 16), users)
    assert len(list(folder.iterdir())) == before


def test_the_module_that_speaks_to_the_driver_is_compiled_without_one(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("gcc") is None:
        pytest.fail("no C compiler") if os.environ.get("CI") else pytest.skip("no C compiler")
    place = tmp_path_factory.mktemp("driver")
    cache.fill_launcher(place)
    (module,) = folder.rglob("*.so")
    assert module.name.startswith("cuda_utils.")
    assert not list(place.iterdir())
    # As Triton asks for it when it starts, where there is no compiler.
    monkeypatch.setattr(knobs.nvidia, "libcuda_path", str(place))
    monkeypatch.setenv("CC", "/nonexistent/cc")
    nvidia.library_dirs.cache_clear()
    nvidia.libcuda_dirs.cache_clear()
    found = compile_so_from_file(
        src_path=str(Path(nvidia.__file__).with_name("driver.c")),
        name="cuda_utils",
        library_dirs=nvidia.library_dirs(),
        include_dirs=nvidia.include_dirs,
        libraries=nvidia.libraries,
    )
    nvidia.library_dirs.cache_clear()
    nvidia.libcuda_dirs.cache_clear()
    assert Path(found) == module


def test_the_command_says_what_it_compiled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache.main(["--target", "cuda:80", "--hidden", "16", "--precision", "fast"]) == 0
    kernels = len(list(folder.rglob("*.cubin")))
    assert kernels == len(list(variants(16, "fast", "cuda:80", cells=("augru",))))
    assert capsys.readouterr().out == f"cuda:80: {kernels} kernels\n"
