"""The GPU backend: fused recurrent layers in Triton, for NVIDIA and AMD.

U users, N behaviours of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden,
P = H padded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.contract import PRECISIONS, GruWeights, check_values
from kernels.reference import head, pack_head
from kernels.triton import variants
from kernels.triton.launch import aligned, machine_of, run, shape_of, shared_memory_of, unavailable
from kernels.triton.variants import BLOCK, SHAPES, Variant, padded_width

# The head is three matrix products and what stands between them, which torch does on a GPU: no kernel of ours is there.
__all__ = ["attention", "evolve", "gru", "head", "pack_head", "unavailable", "warm_up"]


def gru(
    inputs: Tensor,
    offsets: Tensor,
    weights: GruWeights,
    projected: bool,
    precision: str,
    threads: int,
    *,
    shape: str | None = None,
) -> Tensor:
    """Interest states `[N, H]`; see `kernels.gru`. `threads` means nothing here; `shape` overrides the launch rule."""
    check_values(inputs.shape[0], offsets, weights=weights)
    hidden, users = weights.hidden, len(offsets) - 1
    out = inputs.new_empty(inputs.shape[0], hidden)
    if not out.numel():
        return out
    machine, programs = machine_of(inputs), _blocks(users)
    if projected:
        x = _scaled(inputs, hidden, precision, machine)
    else:
        x = _projected(inputs, weights, precision, machine, with_bias=True)
    order = torch.argsort(offsets.diff(), descending=True)
    shape = shape or shape_of(programs, inputs.device)
    variant = variants.gru(hidden, precision, machine, shape, shared_memory_of(inputs.device))
    own = (_recurrent(weights, variant, precision), aligned(weights.bias_candidate))
    run(variant, (programs,), x, aligned(offsets), order, *own, out, users)
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
    *,
    shape: str | None = None,
) -> Tensor:
    """Final interests `[C, H]`; see `kernels.evolve`, and for `threads` and `shape` our `gru`."""
    check_values(states.shape[0], offsets, user_of, weights)
    out = queries.new_empty(queries.shape)
    if not out.numel():
        return out
    hidden, machine = weights.hidden, machine_of(states)
    order, table, rows, _ = _plan(offsets, user_of, states.shape[0])
    x = _projected(states, weights, precision, machine, with_bias=cell != "aigru")
    scores = out.new_empty(rows, BLOCK)
    programs = len(table)
    shape = shape or shape_of(programs, states.device)
    memory = shared_memory_of(states.device)
    variant = variants.evolve(hidden, precision, machine, shape, memory, cell=cell)
    inputs = (aligned(states), x, aligned(queries), order, table)
    own = (_recurrent(weights, variant, precision), aligned(weights.bias), aligned(weights.bias_candidate))
    run(variant, (programs,), *inputs, *own, scores, out)
    return out


def attention(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, threads: int) -> Tensor:
    """Attention `[C, T]`; see `kernels.attention`."""
    check_values(states.shape[0], offsets, user_of)
    if not len(user_of):
        return queries.new_empty(0, int(offsets.diff().max()) if len(offsets) > 1 else 0)
    order, table, _, longest = _plan(offsets, user_of, states.shape[0])
    out = queries.new_empty(len(queries), longest)
    if out.numel():
        variant = variants.attention(states.shape[1], machine_of(states))
        run(variant, (len(table),), aligned(states), aligned(queries), order, table, out, longest)
    return out


def warm_up(
    hidden: int,
    *,
    device: torch.device | str,
    cells: tuple[str, ...] = ("augru",),
    precisions: tuple[str, ...] = PRECISIONS,
    inputs: int | None = None,
) -> None:
    """Compile and load everything that calls with this hidden size can meet, so that no request waits for a compiler.

    That is `kernels.triton.variants.variants` for each of `precisions`.
    """
    width = inputs or hidden
    made = torch.zeros(2, width, device=device)
    weights = GruWeights(
        made.new_zeros(width, 3 * hidden),
        made.new_zeros(hidden, 3 * hidden),
        made.new_zeros(3 * hidden),
        made.new_zeros(hidden),
    )
    states, queries = made.new_zeros(2, hidden), made.new_zeros(1, hidden)
    offsets, user_of = torch.tensor([0, 2], device=device), torch.zeros(1, dtype=torch.int64, device=device)
    attention(states, offsets, queries, user_of, 1)
    own = weights._replace(w_input=weights.w_recurrent)
    for precision in precisions:
        for shape in SHAPES:
            gru(made, offsets, weights, False, precision, 1, shape=shape)
            gru(made.new_zeros(2, 3 * hidden), offsets, weights, True, precision, 1, shape=shape)
            for cell in cells:
                evolve(states, offsets, queries, user_of, own, cell, precision, 1, shape=shape)


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _projected(inputs: Tensor, weights: GruWeights, precision: str, machine: str, *, with_bias: bool) -> Tensor:
    """The input projection in the kernels' own form, `[N + 1, 3P]`: scaled, padded, and a row to read ahead."""
    (rows, width), padded = inputs.shape, padded_width(weights.hidden)
    out = inputs.new_empty(rows + 1, 3 * padded)
    variant = variants.project(weights.hidden, precision, machine, with_bias=with_bias)
    constants = variant.constants
    grid = (-(-rows // constants["block_rows"]), 3 * padded // constants["block_columns"])
    if rows:
        run(variant, grid, aligned(inputs), aligned(weights.w_input), aligned(weights.bias), out, rows, width)
    return out


def _recurrent(weights: GruWeights, variant: Variant, precision: str) -> Tensor:
    """The recurrent weights as `variant` reads them."""
    w = aligned(weights.w_recurrent)
    if not variant.splits:
        return w
    padded = padded_width(weights.hidden)
    out = w.new_empty(2, 3, padded, padded, dtype=torch.float16)
    split = variants.split(weights.hidden, precision, variant.machine)
    run(split, (3 * padded * padded // split.constants["block_elements"],), w, out)
    return out


def _scaled(projected: Tensor, hidden: int, precision: str, machine: str) -> Tensor:
    """The caller's projection in the form of `_projected`."""
    rows, padded = projected.shape[0], padded_width(hidden)
    out = projected.new_empty(rows + 1, 3 * padded)
    variant = variants.scale(hidden, precision, machine)
    elements = rows * 3 * padded
    run(variant, (-(-elements // variant.constants["block_elements"]),), aligned(projected), out, elements)
    return out


def _plan(offsets: Tensor, user_of: Tensor, behaviors: int) -> tuple[Tensor, Tensor, int, int]:
    """Candidates by user, the table of blocks of `evolve_kernel`, rows of scratch, and T.

    With one user nothing is asked of the device: the plan follows from the sizes, and is made on the host.
    """
    device = offsets.device
    if len(offsets) == 2:
        offsets, user_of = torch.tensor([0, behaviors]), torch.zeros(len(user_of), dtype=torch.int64)
    lengths = offsets.diff()
    order = torch.argsort(user_of, stable=True)
    counts = torch.zeros_like(lengths).scatter_add_(0, user_of, torch.ones_like(user_of))
    blocks = (counts + BLOCK - 1) // BLOCK
    total, rows, longest = torch.stack([blocks.sum(), (blocks * (lengths + 1)).sum(), lengths.max()]).tolist()
    user = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), blocks, output_size=total)
    number = torch.arange(total, device=user.device) - (blocks.cumsum(0) - blocks)[user]
    first = (counts.cumsum(0) - counts)[user] + number * BLOCK
    there = (counts[user] - number * BLOCK).clamp(max=BLOCK)
    scratch = (lengths[user] + 1).cumsum(0) - (lengths[user] + 1)
    table = torch.stack([offsets[user], lengths[user], first, there, scratch], 1)
    return order.to(device), table.to(device), rows, longest
