"""`python -m kernels.aot.cache`: GPU kernels compiled into Triton's cache, with no GPU, for a server that has one.

They go where TRITON_CACHE_DIR says, under the keys that a launch looks for: every one is made by the call that a launch
makes, up to the launch itself. A key has Triton's version, the kernels' source, the architecture and its assembler in
it, so a cache serves the Triton that filled it. The module by which Triton speaks to the driver is compiled too, which
takes a C compiler here, and none where the cache is used.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kernels.contract import PRECISIONS
from kernels.triton.launch import function_of
from kernels.triton.variants import Variant, variants

TARGETS = ("cuda:80", "cuda:86", "cuda:89", "cuda:90", "cuda:100")
WARP_SIZE = 32
A_NUMBER = 17  # of the numbers that kernels take: none is compiled for


class Absent:
    """Stands in for the driver of a GPU of one architecture, as far as compiling asks one."""

    def __init__(self, target: str) -> None:
        from triton.backends.compiler import GPUTarget

        machine, _, architecture = target.partition(":")
        self._target = GPUTarget(machine, int(architecture), WARP_SIZE)

    def get_current_target(self) -> Any:
        """What to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """The place of the only one."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """The default one."""
        return 0


def fill(target: str, wanted: Iterable[Variant]) -> int:
    """Compiles variants for a target, "cuda:90", but for what the cache has; how many there are."""
    from triton.runtime import driver
    from triton.runtime.jit import MockTensor

    count, active = 0, driver._active
    driver.set_active(Absent(target))
    try:
        for variant in wanted:
            function = function_of(variant)
            function.device_caches.clear()  # of the target before
            kinds = [kind for kind in variant.signature.values() if kind != "constexpr"]
            arguments = [MockTensor(kind[1:]) if kind.startswith("*") else A_NUMBER for kind in kinds]
            function.run(*arguments, grid=(1,), warmup=True, **variant.constants, **variant.options)
            function.device_caches.clear()
            count += 1
    finally:
        driver._active = active
    return count


def fill_launcher(folder: Path) -> None:
    """Compiles the module by which Triton speaks to NVIDIA's driver, against a library that has its name alone.

    A launch finds it if TRITON_LIBCUDA_PATH is `folder`, which has to be writable: the library is there meanwhile.
    """
    from triton.backends.nvidia import driver
    from triton.runtime.build import compile_so_from_file

    library = folder / "libcuda.so.1"
    command = [shutil.which("gcc") or "cc", "-shared", "-Wl,-soname,libcuda.so.1", "-x", "c", os.devnull]
    subprocess.run([*command, "-o", str(library)], check=True)
    try:
        compile_so_from_file(
            src_path=str(Path(driver.__file__).with_name("driver.c")),
            name="cuda_utils",
            library_dirs=[driver.libdevice_dir, str(folder)],
            include_dirs=driver.include_dirs,
            libraries=driver.libraries,
        )
    finally:
        library.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills the cache and says with how much. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m kernels.aot.cache", description="GPU kernels, compiled ahead.")
    parser.add_argument("--target", nargs="+", default=TARGETS, choices=TARGETS, help=f"({' '.join(TARGETS)})")
    parser.add_argument("--hidden", nargs="+", type=int, default=[32], help="hidden sizes (32)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="(both)")
    parser.add_argument("--launcher", type=Path, metavar="FOLDER", help="also the module that speaks to the driver")
    chosen = parser.parse_args(arguments)
    for target in chosen.target:
        plan = [
            each
            for hidden in chosen.hidden
            for precision in chosen.precision
            for each in variants(hidden, precision, target, cells=("augru",))
        ]
        print(f"{target}: {fill(target, plan)} kernels", flush=True)
    if chosen.launcher:
        fill_launcher(chosen.launcher)
    return 0


if __name__ == "__main__":
    sys.exit(main())
