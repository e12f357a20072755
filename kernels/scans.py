"""The recurrence of training: every state of padded rows, with gradients.

T steps, B rows, H hidden.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.backends import load_backend, resolve_backend
from kernels.contract import check_choice, check_scan


class Body(Protocol):
    """What computes a scan. Shapes, dtypes and devices have passed the checks; strides are its own business."""

    def scan(
        self,
        projected: Tensor,
        scale: Tensor,
        lengths: Tensor,
        w_recurrent: Tensor,
        bias_candidate: Tensor | None,
        cell: str,
        *,
        keep: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """States, and what `scan_back` wants to have kept. Raises KernelInputError for lengths out of range."""

    def scan_back(
        self,
        d_states: Tensor,
        scale: Tensor,
        lengths: Tensor,
        w_recurrent: Tensor,
        cell: str,
        states: Tensor,
        kept: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of `projected`, `scale`, `w_recurrent` and `bias_candidate`."""


def scan(
    projected: Tensor,
    scale: Tensor,
    lengths: Tensor,
    w_recurrent: Tensor,
    bias_candidate: Tensor | None = None,
    *,
    cell: str = "augru",
    backend: str = "auto",
) -> Tensor:
    """States after every step, `[T, B, H]`, of an AUGRU or AGRU (DIEN eq. 2-5, 13, 15); past its length a row keeps its
    last state. Differentiable once, in all tensors but `lengths`.

    `projected [T, B, 3H]` are inputs @ w_input + bias, gates in the order u, r, c; `lengths int64 [B]`. `scale [T, B]`
    multiplies the update gate (AUGRU) or replaces it (AGRU), so a plain GRU is an AUGRU whose scale is 1. It must be 0
    past the lengths, and its gradient there is nobody's. `w_recurrent [H, 3H]`; `bias_candidate [H]` is inside the
    reset product, None for none. Rows may come in any order.

    `backend` is native or reference; "auto" is native for float32 on the CPU, as `resolve_backend` has it, else
    reference. Native runs on the caller's thread alone.

    Raises KernelInputError naming the argument and the rule, BackendUnavailableError for a backend that cannot run.
    """
    check_scan(projected, scale, lengths, w_recurrent, bias_candidate, cell)
    body = _body(backend, projected)
    given = projected, scale, lengths, w_recurrent, bias_candidate
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in given):
        return cast(Tensor, _Scan.apply(*given, cell, body))  # type: ignore[no-untyped-call]
    return body.scan(*given, cell, keep=False)[0]


def _body(backend: str, projected: Tensor) -> Body:
    check_choice("backend", backend, ("auto", "native", "reference"))
    device = projected.device.type
    unmade = backend == "auto" and device != "cpu"  # GPUs have no scan of their own
    return cast(Body, load_backend("reference" if unmade else resolve_backend(backend, device, projected.dtype)))


class _Scan(torch.autograd.Function):
    """A body's scan with its gradient written out: autograd would keep and walk a dozen small tensors a step."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        scale: Tensor,
        lengths: Tensor,
        w_recurrent: Tensor,
        bias_candidate: Tensor | None,
        cell: str,
        body: Body,
    ) -> Tensor:
        states, kept = body.scan(projected, scale, lengths, w_recurrent, bias_candidate, cell, keep=True)
        ctx.save_for_backward(scale, lengths, w_recurrent, states, *kept)
        ctx.cell, ctx.body = cell, body
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor | None, ...]:
        scale, lengths, w_recurrent, states, *kept = ctx.saved_tensors
        d_projected, d_scale, d_w_recurrent, d_bias_candidate = ctx.body.scan_back(
            d_states, scale, lengths, w_recurrent, ctx.cell, states, tuple(kept)
        )
        inner = d_bias_candidate if ctx.needs_input_grad[4] else None
        return d_projected, d_scale, None, d_w_recurrent, inner, None, None
