"""The layers that every model of the project is built from.

B rows, T steps (first, for the scan walks them), H hidden, I inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kernels import GruWeights
from kernels.reference import step


class Dice(nn.Module):
    """Data-adaptive activation (DIN eq. 3): p·s + (1 - p)·α·s, p = σ((s - E[s]) / √(Var[s] + ε)).

    Batch statistics in training, moving ones in inference, so that a score never depends on its neighbours.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.05, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.momentum, self.epsilon = momentum, epsilon

    def forward(self, s: Tensor) -> Tensor:
        """`[B, width]` to the same shape."""
        s = s.to(self.mean.dtype)  # mixed precision gives 16 bits, too few for statistics
        if self.training and len(s):  # without a row there is no statistic: all histories of a batch may be empty
            variance, mean = torch.var_mean(s, dim=0, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        else:
            mean, variance = self.mean, self.variance
        p = torch.sigmoid((s - mean) * torch.rsqrt(variance + self.epsilon))
        return s * (self.alpha + p * (1 - self.alpha))


def activation(name: str, width: int) -> nn.Module:
    """Dice or PReLU (one slope for each unit) of a layer's width."""
    return Dice(width) if name == "dice" else nn.PReLU(width)


class Gru(nn.Module):
    """A recurrent layer scanned over fixed-length, masked steps: GRU, AUGRU or AGRU (DIEN eq. 2-5, 13, 15).

    Parameters are those of `kernels.GruWeights`. `inner_bias` gives it `bias_candidate`, b' of
    c = tanh(W i + b + r∘(U h + b')), as `nn.GRU` has, at zero to begin with; the paper's form is without.
    """

    bias_candidate: nn.Parameter | None

    def __init__(self, inputs: int, hidden: int, *, inner_bias: bool = False) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)
        self.w_input = nn.Parameter(torch.empty(inputs, 3 * hidden).uniform_(-bound, bound))
        self.w_recurrent = nn.Parameter(torch.empty(hidden, 3 * hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(3 * hidden))
        self.register_parameter("bias_candidate", nn.Parameter(torch.zeros(hidden)) if inner_bias else None)

    def weights(self) -> GruWeights:
        """The weights as the kernels take them."""
        own = self.bias_candidate
        inner = self.bias.new_zeros(self.w_recurrent.shape[0]) if own is None else own
        return GruWeights(self.w_input, self.w_recurrent, self.bias, inner)

    def forward(self, inputs: Tensor, scale: Tensor, lengths: Tensor, cell: str = "augru") -> Tensor:
        """States after every step, `[T, B, H]`, from `inputs [T, B, I]`; past its length a row keeps its last state.

        `scale [T, B]` multiplies the update gate (AUGRU) or replaces it (AGRU) and must be 0 past the lengths: a plain
        GRU is an AUGRU whose scale is 1 on real steps.
        """
        projected = inputs @ self.w_input + self.bias
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            with torch.autocast(projected.device.type, enabled=False):  # mixed precision leaves the recurrence alone
                own = self.w_recurrent, self.bias_candidate
                return MaskedScan.apply(projected, scale, lengths, *own, cell)  # type: ignore[no-any-return,no-untyped-call]
        weights = self.weights()
        state = projected.new_zeros(projected.shape[1], weights.hidden)
        states = []
        for t in range(projected.shape[0]):
            state = step(projected[t], state, weights, cell, scale[t].unsqueeze(-1))
            states.append(state)
        return torch.stack(states)


class MaskedScan(torch.autograd.Function):
    """The scan of `Gru` with its gradient written out: same numbers as autograd's, several times faster on CPUs.

    Autograd would keep and walk a dozen small tensors a step; here the weights' gradient is one product at the end.
    Each step works on the rows up to the last one still alive, which is little where rows come longest first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        scale: Tensor,
        lengths: Tensor,
        w_recurrent: Tensor,
        bias_candidate: Tensor | None,
        cell: str,
    ) -> Tensor:
        """`projected [T, B, 3H]`, `scale [T, B]`, `lengths [B]` to the states `[T, B, H]`.

        `w_recurrent [H, 3H]`; `bias_candidate [H]` or None for none.
        """
        steps, rows, width = projected.shape
        hidden = width // 3
        live = _live_rows(lengths, steps)
        gates = projected.new_empty(steps, rows, 2 * hidden)
        candidates = projected.new_empty(steps, rows, hidden)
        inner = projected.new_empty(steps, rows, hidden)
        states = projected.new_zeros(steps + 1, rows, hidden)
        for t, n in enumerate(live):
            x, before = projected[t, :n], states[t, :n]
            product = before @ w_recurrent
            gate = torch.add(x[:, : 2 * hidden], product[:, : 2 * hidden], out=gates[t, :n]).sigmoid_()
            inner[t, :n] = product[:, 2 * hidden :]
            if bias_candidate is not None:
                inner[t, :n] += bias_candidate
            c = torch.addcmul(x[:, 2 * hidden :], gate[:, hidden:], inner[t, :n], out=candidates[t, :n]).tanh_()
            a = scale[t, :n].unsqueeze(-1)
            torch.lerp(before, c, a.expand_as(c) if cell == "agru" else a * gate[:, :hidden], out=states[t + 1, :n])
            states[t + 1, n:] = states[t, n:]
        ctx.save_for_backward(scale, w_recurrent, gates, candidates, inner, states)
        ctx.cell, ctx.live = cell, live
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor, None, Tensor, Tensor | None, None]:
        """Back through time; names are those of `forward` with d_ before them."""
        scale, w_recurrent, gates, candidates, inner, states = ctx.saved_tensors
        steps, rows, hidden = candidates.shape
        d_projected = candidates.new_zeros(steps, rows, 3 * hidden)
        d_product = candidates.new_zeros(steps, rows, 3 * hidden)
        d_scale = torch.zeros_like(scale)
        d_state = candidates.new_zeros(rows, hidden)
        back = w_recurrent.t().contiguous()
        agru = ctx.cell == "agru"
        for t in range(steps - 1, -1, -1):
            d_state += d_states[t]
            n = ctx.live[t]
            u, r, c = gates[t, :n, :hidden], gates[t, :n, hidden:], candidates[t, :n]
            a, d_h = scale[t, :n].unsqueeze(-1), d_state[:n]
            update = a if agru else a * u
            d_update = d_h * (c - states[t, :n])
            torch.sum(d_update if agru else d_update * u, dim=-1, out=d_scale[t, :n])
            d_c = d_h * update
            d_h -= d_c
            d_c = torch.addcmul(d_c, d_c * c, c, value=-1, out=d_projected[t, :n, 2 * hidden :])
            if not agru:
                torch.mul(d_update * a, u - u * u, out=d_projected[t, :n, :hidden])
            torch.mul(d_c * inner[t, :n], r - r * r, out=d_projected[t, :n, hidden : 2 * hidden])
            d_product[t, :n, : 2 * hidden] = d_projected[t, :n, : 2 * hidden]
            torch.mul(d_c, r, out=d_product[t, :n, 2 * hidden :])
            d_h.addmm_(d_product[t, :n], back)
        before = states[:-1].reshape(-1, hidden)
        d_w_recurrent = before.t() @ d_product.reshape(-1, 3 * hidden)
        d_bias_candidate = d_product[..., 2 * hidden :].sum((0, 1)) if ctx.needs_input_grad[4] else None
        return d_projected, d_scale, None, d_w_recurrent, d_bias_candidate, None


def _live_rows(lengths: Tensor, steps: int) -> list[int]:
    """For each step, one past the last row that is still alive."""
    lasting = lengths.flip(0).cummax(0).values.flip(0)  # the longest of this row and all after it
    return [int(n) for n in (lasting > torch.arange(steps, device=lengths.device).unsqueeze(-1)).sum(1)]


class Mlp(nn.Module):
    """Fully connected layers with an activation between, and one output."""

    def __init__(self, inputs: int, widths: tuple[int, ...], activation_name: str) -> None:
        super().__init__()
        sizes = (inputs, *widths)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, widths, strict=False))
        self.activations = nn.ModuleList(activation(activation_name, width) for width in widths)
        self.output = nn.Linear(sizes[-1], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, inputs]` to `[B]`."""
        return self.after_first(self.layers[0](inputs))

    def after_first(self, hidden: Tensor) -> Tensor:
        """From the first layer's product `[B, widths[0]]`, which a scorer puts together from parts, to `[B]`."""
        for number, act in enumerate(self.activations):
            hidden = act(hidden if number == 0 else self.layers[number](hidden))
        logits: Tensor = self.output(hidden).squeeze(-1)
        return logits


def mask(lengths: Tensor, steps: int) -> Tensor:
    """True on the first `lengths` of `steps`: bool `[T, B]`."""
    return torch.arange(steps, device=lengths.device).unsqueeze(-1) < lengths
