"""Launching: the device code loaded for the machine or for the interpreter, and the one place that calls a kernel."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels.triton.variants import MOST_SHARED_MEMORY, Variant

# Programs that are few enough to be given more warps, where nobody can be asked for the number of multiprocessors.
ASSUMED_MULTIPROCESSORS = 64


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not torch.cuda.is_available() and not interpreting():
        return "there is no GPU, and TRITON_INTERPRET is not set"
    return None


def interpreting() -> bool:
    """Whether kernels are to run in Triton's interpreter (TRITON_INTERPRET=1), at this moment."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


@cache
def device_code(interpreted: bool) -> ModuleType:
    """`kernels.triton.device`, its functions compiled or interpreted.

    `triton.jit` decides by TRITON_INTERPRET when it decorates. The file is therefore executed once for each answer, so
    that a process can do both, whatever the variable was when it started.
    """
    from triton import knobs

    spec = importlib.util.find_spec("kernels.triton.device")
    if spec is None or spec.loader is None:
        raise ImportError("kernels.triton.device")
    module = importlib.util.module_from_spec(spec)
    with knobs.runtime.scope():
        knobs.runtime.interpret = interpreted
        spec.loader.exec_module(module)
    if interpreted:
        _call_plainly(module)
    return module


def _call_plainly(module: ModuleType) -> None:
    """Let interpreted kernels call the functions of their module as plain functions.

    The interpreter would replace the whole language anew for every such call, which takes nearly all of its time; for
    the kernel it has been replaced already. A function that goes to `tl.reduce` is wanted as it is.
    """
    from triton.runtime.interpreter import InterpretedFunction

    for name, value in list(vars(module).items()):
        if isinstance(value, InterpretedFunction) and not name.endswith(("_kernel", "_reduced")):
            setattr(module, name, value.rewrite())


def function_of(variant: Variant) -> Any:
    """The `triton.jit` function of a variant."""
    return getattr(device_code(variant.machine == "plain"), f"{variant.kernel}_kernel")


def machine_of(tensor: Tensor) -> str:
    """Which instructions the kernels may use for this tensor."""
    if interpreting():
        return "plain"
    return "hip" if torch.version.hip else "cuda"


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cpu":
        return ASSUMED_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def shape_of(programs: int, device: torch.device) -> str:
    """The launch shape by rule: "latency" where every program can have a multiprocessor to itself."""
    return "latency" if programs <= _multiprocessors(device) else "throughput"


@cache
def shared_memory_of(device: torch.device) -> int:
    """Bytes of shared memory that one program may have on this device."""
    if device.type == "cpu":
        return MOST_SHARED_MEMORY
    from triton.runtime import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    return int(driver.active.utils.get_device_properties(index)["max_shared_mem"])


def run(variant: Variant, grid: tuple[int, ...], *arguments: Tensor | float) -> None:
    """Launch a variant on the current stream of the tensors' device."""
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    function = function_of(variant)
    options = {} if variant.machine == "plain" else variant.options
    with torch.cuda.device(first.device) if first.is_cuda else torch.no_grad():
        function[grid](*arguments, **variant.constants, **options)


def aligned(tensor: Tensor) -> Tensor:
    """Contiguous and at a multiple of 16 bytes, which the compiled variants take for granted."""
    tensor = tensor.detach().contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor
