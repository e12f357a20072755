"""Contenders on a GPU, and what the GPU could do at most.

U users, C candidates of all users, T steps, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kernels.backends import load_backend
from kernels.bench import torch_loops
from kernels.bench.case import Case, Size, interest_states, last_states
from kernels.bench.contender import FAST, TRITON_EXACT, CannotRunError, Contender, Prepared, cannot_run, refused
from kernels.contract import BackendUnavailableError
from kernels.ops import evolve, gru

TOLERANCES = {"exact": TRITON_EXACT, "fast": FAST}
CUDNN = (False, "", TRITON_EXACT), (True, "-tf32", FAST)
WARM_UP = 3

# 16-bit multiply-adds of the matrix units, in a cycle and multiprocessor, dense, by compute capability or architecture.
MATRIX_PER_CYCLE = {"8.0": 1024, "8.6": 256, "8.9": 512, "9.0": 2048, "10.0": 4096, "gfx942": 1024}
# Exponentials, reciprocals or tanh.approx in a cycle and multiprocessor.
SPECIAL_PER_CYCLE = 16


class Properties(Protocol):
    """What is read of `torch.cuda.get_device_properties`."""

    multi_processor_count: int
    clock_rate: int  # kHz
    memory_clock_rate: int  # kHz
    memory_bus_width: int  # bits


class Roofline(NamedTuple):
    """The least milliseconds that each resource of the device needs for `evolve`; the largest is the floor.

    It leaves out what bounds a small batch: T steps one after the other, of some hundreds of cycles each.
    """

    memory_ms: float
    activations_ms: float
    products_ms: float | None  # None for an architecture whose matrix units are not known here

    @property
    def floor_ms(self) -> float:
        """No kernel can be faster."""
        return max(self.memory_ms, self.activations_ms, self.products_ms or 0.0)


def roofline(size: Size, precision: str, properties: Properties, architecture: str) -> Roofline:
    """Arithmetic from the device's own figures, at its highest clock.

    Memory: states, queries and results once, in float32, at two transfers in a cycle of the memory's clock. Products:
    the recurrent one alone, three times in `exact` (one float32 product is three of 16 bits). Activations: for each
    candidate, step and hidden unit three of one instruction in `fast`, three of two in `exact`.
    """
    users, candidates, steps, hidden = size
    cycles = properties.multi_processor_count * properties.clock_rate  # in a millisecond
    behaviors, queries = users * steps, users * candidates
    in_a_ms = 2 * properties.memory_clock_rate * properties.memory_bus_width / 8
    gates = queries * steps * 3 * hidden
    parts, instructions = (3, 2) if precision == "exact" else (1, 1)
    matrix = MATRIX_PER_CYCLE.get(architecture)
    return Roofline(
        memory_ms=4 * hidden * (behaviors + 2 * queries) / in_a_ms,
        activations_ms=instructions * gates / (SPECIAL_PER_CYCLE * cycles),
        products_ms=None if matrix is None else parts * size.evolve_multiply_adds / (matrix * cycles),
    )


def architecture(properties: Any) -> str:
    """As in the table above."""
    if torch.version.hip:
        return str(properties.gcnArchName).split(":", 1)[0]
    return f"{properties.major}.{properties.minor}"


def no_gpu() -> str | None:
    """Why nothing of this can run here."""
    return None if torch.cuda.is_available() else "torch sees no GPU"


def triton(precision: str) -> Callable[[Case], Prepared]:
    """The public operation, its checks at the door included."""

    def prepare(case: Case) -> Prepared:
        load_backend("triton")
        return Prepared(lambda: evolve(*case, backend="triton", precision=precision))

    return prepare


def triton_gru(precision: str) -> Callable[[Case], Prepared]:
    """Likewise for interest states."""

    def prepare(case: Case) -> Prepared:
        load_backend("triton")
        inputs = case.states, case.offsets, case.weights
        return Prepared(lambda: gru(*inputs, backend="triton", precision=precision))

    return prepare


def triton_graph(precision: str) -> Callable[[Case], Prepared]:
    """The kernels alone, captured once and replayed: what is left when no call is launched from Python.

    The checks at the door look at values, which a capture does not allow, so the backend is called as the door does.
    """

    def prepare(case: Case) -> Prepared:
        backend = load_backend("triton")

        def call() -> Tensor:
            return backend.evolve(*case, cell="augru", precision=precision, threads=1)

        return Prepared(_captured(call))

    return prepare


def _captured(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = call()
    except RuntimeError as error:  # such as a host that must look at a value on the device
        raise refused("capture", error) from None

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def cudnn_gru(tf32: bool, prepare: Callable[[Case], Prepared]) -> Callable[[Case], Prepared]:
    """`torch.nn.GRU`, which is cuDNN's on such a device, or MIOpen's."""

    def precision() -> AbstractContextManager[object]:
        flags: AbstractContextManager[object] = torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32)
        return flags

    return lambda case: prepare(case)._replace(around=precision)


def gru_contenders() -> dict[str, Contender]:
    """Those for interest states."""
    found = {}
    for tf32, ending, tolerance in CUDNN:
        meaning = f"cuDNN's GRU{' in TF32' if tf32 else ''} over histories of one length"
        prepare = cudnn_gru(tf32, torch_loops.users_gru)
        found[f"gpu-cudnn-gru{ending}"] = Contender(prepare, meaning, due=interest_states, tolerance=tolerance)
    for precision, tolerance in TOLERANCES.items():
        found[f"triton-{precision}"] = Contender(
            triton_gru(precision),
            f"Triton, {precision}",
            due=interest_states,
            tolerance=tolerance,
            precision=precision,
            ours=True,
        )
    return {name: _refused(each) for name, each in found.items()}


def evolve_contenders(compiling: bool) -> dict[str, Contender]:
    """Those for interest evolution; without a GPU each says so."""
    left_out = cannot_run("--compile was not given: compiling 100 steps takes a minute or more")
    compiled = torch_loops.compiled if compiling else left_out
    less = "over the copies; less work: no attention, nor its gate"
    found = {
        "gpu-evolve-eager": Contender(
            torch_loops.eager, "eager torch, a user's projection shared", tolerance=TRITON_EXACT
        ),
        "gpu-evolve-compiled": Contender(compiled, "torch.compile of the shared loop", tolerance=TRITON_EXACT),
    }
    for tf32, ending, tolerance in CUDNN:
        prepare, meaning = cudnn_gru(tf32, torch_loops.copied_gru), f"cuDNN's GRU{' in TF32' if tf32 else ''} {less}"
        found[f"gpu-cudnn-gru{ending}"] = Contender(prepare, meaning, due=last_states, tolerance=tolerance)
    for precision, tolerance in TOLERANCES.items():
        for ending, prepared, how in (("", triton, ""), ("-graph", triton_graph, ", replay of a CUDA graph")):
            found[f"triton-{precision}{ending}"] = Contender(
                prepared(precision), f"Triton, {precision}{how}", tolerance=tolerance, precision=precision, ours=True
            )
    return {name: _refused(each) for name, each in found.items()}


def _refused(contender: Contender) -> Contender:
    """The contender, or its reason where there is no GPU or no Triton."""
    prepare = contender.prepare

    def guarded(case: Case) -> Prepared:
        reason = no_gpu()
        if reason:
            raise CannotRunError(reason)
        try:
            return prepare(case)
        except BackendUnavailableError as error:
            raise CannotRunError(str(error)) from None

    return replace(contender, prepare=guarded)
