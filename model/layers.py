"""The layers that every model of the project is built from.

B rows, T steps (first, for the scan walks them), H hidden, I inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import kernels
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
        if torch.compiler.is_compiling():
            return self._unrolled(projected, scale, cell)
        with torch.autocast(projected.device.type, enabled=False):  # mixed precision leaves the recurrence alone
            return kernels.scan(projected, scale, lengths, self.w_recurrent, self.bias_candidate, cell=cell)

    def _unrolled(self, projected: Tensor, scale: Tensor, cell: str) -> Tensor:
        """The same as a program of torch's own operators, which any runtime of an exported network has."""
        weights = self.weights()
        state = projected.new_zeros(projected.shape[1], weights.hidden)
        states = []
        for t in range(projected.shape[0]):
            state = step(projected[t], state, weights, cell, scale[t].unsqueeze(-1))
            states.append(state)
        return torch.stack(states)


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
