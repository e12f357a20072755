"""The native backend: C++ compiled for several instruction sets, of which the best that this CPU has is taken.

U users, N behaviours of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from torch import Tensor

from kernels.contract import CELLS, GruWeights, KernelInputError, check_lengths, check_values
from kernels.fused import Tables
from kernels.heads import HeadInputs, HeadWeights, check_head_values

try:
    _native: Any = importlib.import_module("kernels.native._native")
except ImportError as error:
    _native = None
    _missing = str(error)

_CELL_CODES = {cell: code for code, cell in enumerate(("gru", *CELLS))}


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    return None if _native else f"the C++ extension is not built ({_missing})"


def isas() -> tuple[str, ...]:
    """Those of baseline, avx2, avx512, avx512vnni, zen4, amx (neon on Arm) that build and CPU have, slowest first."""
    return tuple(_native.instruction_sets())


def isa() -> str:
    """The instruction set in use."""
    return str(_native.instruction_set())


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Uses an instruction set, in all threads, until the context ends. Raises KernelInputError unless in isas()."""
    before = isa()
    if not name or not _native.choose_instruction_set(name):
        raise KernelInputError(f"isa: {name!r} is none of {', '.join(isas())}")
    try:
        yield
    finally:
        _native.choose_instruction_set(before)


def fma_peak(threads: int = 1, milliseconds: float = 100.0) -> float:
    """Float32 multiply-adds per second that this machine was seen to do on so many threads, on vectors of isa()."""
    return float(_native.multiply_add_peak(threads, milliseconds / 1e3))


def _address(tensor: Tensor, kept: list[Tensor]) -> int:
    """Where the values lie, end to end; `kept` keeps a copy alive where one was needed."""
    tensor = tensor.contiguous()
    kept.append(tensor)
    return tensor.data_ptr()


def gru(inputs: Tensor, offsets: Tensor, weights: GruWeights, projected: bool, precision: str, threads: int) -> Tensor:
    """Interest states `[N, H]`."""
    kept: list[Tensor] = []
    hidden = weights.hidden
    out = inputs.new_empty(inputs.shape[0], hidden)
    done = _native.gru(
        _address(inputs, kept),
        inputs.shape[0],
        _address(offsets, kept),
        len(offsets) - 1,
        *(_address(each, kept) for each in weights),
        weights.w_input.shape[0],
        hidden,
        projected,
        precision == "fast",
        threads,
        out.data_ptr(),
    )
    if not done:
        _refuse(inputs.shape[0], offsets, weights)
    return out


def evolve(
    states: Tensor,
    offsets: Tensor,
    queries: Tensor,
    user_of: Tensor,
    weights: GruWeights,
    cell: str,
    precision: str,
    threads: int,
) -> Tensor:
    """Final interests `[C, H]`."""
    kept: list[Tensor] = []
    out = queries.new_empty(queries.shape)
    done = _native.evolve(
        _address(states, kept),
        states.shape[0],
        _address(offsets, kept),
        len(offsets) - 1,
        _address(queries, kept),
        _address(user_of, kept),
        len(user_of),
        *(_address(each, kept) for each in weights),
        weights.hidden,
        _CELL_CODES[cell],
        precision == "fast",
        threads,
        out.data_ptr(),
    )
    if not done:
        _refuse(states.shape[0], offsets, weights, user_of)
    return out


def _refuse(behaviors: int, offsets: Tensor, weights: GruWeights, user_of: Tensor | None = None) -> NoReturn:
    """Says which value the extension would not take."""
    check_values(behaviors, offsets, user_of, weights)
    raise KernelInputError("weights, offsets or user_of: changed by another thread within the call")


def attention(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, threads: int) -> Tensor:
    """Attention `[C, T]`."""
    check_values(states.shape[0], offsets, user_of)
    kept: list[Tensor] = []
    longest = int(offsets.diff().max()) if len(offsets) > 1 else 0
    out = queries.new_zeros(len(queries), longest)
    _native.attention(
        _address(states, kept),
        states.shape[1],
        _address(offsets, kept),
        len(offsets) - 1,
        _address(queries, kept),
        _address(user_of, kept),
        len(user_of),
        threads,
        longest,
        out.data_ptr(),
    )
    return out


def pack_head(weights: HeadWeights) -> Any:
    """The extension's own copy of the weights."""
    kept: list[Tensor] = []
    return _native.pack_head(*_head_arguments(weights, kept))


def _head_arguments(weights: HeadWeights, kept: list[Tensor]) -> tuple[Any, ...]:
    return (
        [[_address(part, kept) for part in layer] for layer in weights.layers],
        [tuple(layer.weight.shape) for layer in weights.layers],
        _address(weights.output, kept),
        weights.output_bias.item(),
        weights.activation == "dice",
    )


def head(given: HeadInputs, weights: HeadWeights, packed: Any, threads: int) -> Tensor:
    """Logits `[C]`."""
    kept: list[Tensor] = []
    items, requests, final = given.items, given.requests, given.final
    count = final.shape[0]
    out = final.new_empty(count)
    done = _native.head(
        packed,
        _address(items, kept),
        _address(given.embeddings, kept),
        items.shape[0],
        _address(given.item_of, kept),
        _address(requests, kept),
        _address(given.factors, kept),
        requests.shape[0],
        _address(given.request_of, kept),
        _address(final, kept),
        count,
        given.embeddings.shape[1],
        threads,
        out.data_ptr(),
    )
    if not done:
        check_head_values(given)
        raise KernelInputError("item_of or request_of: changed by another thread within the call")
    return out


def fuse(
    tables: Tables, extractor: GruWeights, evolution: GruWeights, head: HeadWeights, cell: str, precision: str
) -> tuple[Any, list[Tensor]]:
    """What `kernels.fused.Fused` calls, and the tensors that have to outlive it."""
    kept: list[Tensor] = []
    actions, embeddings = tables.projected_actions, tables.action_embeddings
    sizes = [
        tables.projected.shape[0],
        0 if actions is None else actions.shape[0],
        evolution.hidden,
        tables.embeddings.shape[1],
        0 if embeddings is None else embeddings.shape[1],
        tables.targets.shape[1],
    ]
    made = _native.Fused(
        [0 if part is None else _address(part, kept) for part in tables],
        sizes,
        [_address(part, kept) for part in extractor],
        [_address(part, kept) for part in evolution],
        extractor.w_input.shape[0],
        _CELL_CODES[cell],
        precision == "fast",
        *_head_arguments(head, kept),
    )
    return made, kept


def scan(
    projected: Tensor,
    scale: Tensor,
    lengths: Tensor,
    w_recurrent: Tensor,
    bias_candidate: Tensor | None,
    cell: str,
    *,
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """States `[T, B, H]`, and what the way back needs where `keep`. On the caller's thread alone."""
    given: list[Tensor] = []
    steps, rows, width = projected.shape
    hidden = width // 3
    states = projected.new_empty(steps, rows, hidden)
    kept = (projected.new_empty(steps, rows, 4 * hidden),) if keep else ()
    done = _native.scan(
        [steps, rows, hidden],
        _address(projected, given),
        _address(scale, given),
        _address(lengths, given),
        _address(w_recurrent, given),
        0 if bias_candidate is None else _address(bias_candidate, given),
        cell == "agru",
        states.data_ptr(),
        kept[0].data_ptr() if kept else 0,
    )
    if not done:
        check_lengths(lengths, steps)
        raise KernelInputError("lengths: changed by another thread within the call")
    return states, kept


def scan_back(
    d_states: Tensor,
    scale: Tensor,
    lengths: Tensor,
    w_recurrent: Tensor,
    cell: str,
    states: Tensor,
    kept: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `projected`, `scale`, `w_recurrent` and `bias_candidate`."""
    given: list[Tensor] = []
    steps, rows, hidden = states.shape
    d_projected, d_scale = states.new_empty(steps, rows, 3 * hidden), states.new_empty(steps, rows)
    d_w_recurrent, d_bias_candidate = states.new_empty(hidden, 3 * hidden), states.new_empty(hidden)
    out = d_projected, d_scale, d_w_recurrent, d_bias_candidate
    _native.scan_back(
        [steps, rows, hidden],
        *(_address(part, given) for part in (scale, lengths, w_recurrent)),
        cell == "agru",
        *(_address(part, given) for part in (states, *kept, d_states)),
        *(part.data_ptr() for part in out),
    )
    return out
