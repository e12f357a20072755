"""Recurrent layers of other libraries as ours: gates in the order u, r, c, where u lets the new state in.

I inputs, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import GruWeights
from model.convert.state import State


def torch_gru(state: State, prefix: str, inputs: int, hidden: int) -> GruWeights:
    """PyTorch's `nn.GRU` of one layer: rows r, z, n, and z keeps the old state, so that u = 1 - σ(z) = σ(-z)."""
    w_input = state.take(f"{prefix}weight_ih_l0", 3 * hidden, inputs)
    w_recurrent = state.take(f"{prefix}weight_hh_l0", 3 * hidden, hidden)
    bias, inner = (state.take(f"{prefix}bias_{part}_l0", 3 * hidden) for part in ("ih", "hh"))
    return _weights(w_input, w_recurrent, bias, inner, order=(1, 0, 2), signs=(-1, 1, 1))


def gated(w_input: Tensor, w_recurrent: Tensor, bias: Tensor, inner: Tensor, *, reset_first: bool) -> GruWeights:
    """A cell whose update gate lets the new state in, from its rows `[3H, I]`, `[3H, H]` and biases `[3H]` of both."""
    return _weights(w_input, w_recurrent, bias, inner, order=(1, 0, 2) if reset_first else (0, 1, 2), signs=(1, 1, 1))


def _weights(
    w_input: Tensor, w_recurrent: Tensor, bias: Tensor, inner: Tensor, order: tuple[int, ...], signs: tuple[int, ...]
) -> GruWeights:
    """Gates `order` of each, times `signs`. Both biases of a gate are one; the candidate's inner one stays apart."""
    hidden = w_recurrent.shape[1]
    outer = bias + torch.cat([inner[: 2 * hidden], torch.zeros(hidden, dtype=inner.dtype)])

    def gates(rows: Tensor) -> Tensor:
        parts = rows.chunk(3)
        return torch.cat([sign * parts[gate] for gate, sign in zip(order, signs, strict=True)])

    return GruWeights(gates(w_input).t(), gates(w_recurrent).t(), gates(outer), inner[2 * hidden :])
