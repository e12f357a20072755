"""What every backend takes and gives, and the checks at the door: inside there are none.

U users, N behaviours of all users end to end, C candidates, I inputs, H hidden.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CELLS = ("augru", "agru", "aigru")
BACKENDS = ("auto", "reference", "native", "triton")
PRECISIONS = ("exact", "fast")


class KernelInputError(ValueError):
    """An argument that breaks the contract: the message names the argument and the rule."""


class BackendUnavailableError(RuntimeError):
    """A backend that was asked for by name and cannot run here."""


class GruWeights(NamedTuple):
    """Weights of one recurrent layer; gates in the order u (update), r (reset), c (candidate)."""

    w_input: Tensor  # [I, 3H]
    w_recurrent: Tensor  # [H, 3H]
    bias: Tensor  # [3H]
    bias_candidate: Tensor  # [H], inside the reset product; zeros in the paper's form

    @property
    def hidden(self) -> int:
        """H."""
        return self.w_recurrent.shape[0]


def _require(holds: bool, argument: str, rule: str) -> None:
    if not holds:
        raise KernelInputError(f"{argument}: {rule}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise KernelInputError unless `value` is one of `choices`."""
    _require(value in choices, name, f"{value!r} is none of {', '.join(choices)}")


def _check_matrix(name: str, tensor: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    fits = tensor.dim() == len(shape) and all(
        want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
    )
    wanted = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
    _require(fits, name, f"shape {list(tensor.shape)} where {wanted} is due")
    _require(tensor.dtype == like.dtype, name, f"{tensor.dtype} beside {like.dtype}: all of one dtype")
    _require(tensor.device == like.device, name, f"on {tensor.device} beside {like.device}: all on one device")


def _check_weights(weights: GruWeights, inputs: int | None, like: Tensor) -> None:
    _require(weights.w_recurrent.dim() == 2, "weights.w_recurrent", "two dimensions [H, 3H]")
    hidden = weights.hidden
    _check_matrix("weights.w_recurrent", weights.w_recurrent, (hidden, 3 * hidden), like)
    _check_matrix("weights.w_input", weights.w_input, (inputs, 3 * hidden), like)
    _check_matrix("weights.bias", weights.bias, (3 * hidden,), like)
    _check_matrix("weights.bias_candidate", weights.bias_candidate, (hidden,), like)
    for name, tensor in zip(weights._fields, weights, strict=True):
        _require(bool(torch.isfinite(tensor).all()), f"weights.{name}", "every value finite")


def _check_index(name: str, tensor: Tensor, like: Tensor) -> None:
    _require(tensor.dtype == torch.int64, name, f"int64, not {tensor.dtype}")
    _require(tensor.device == like.device, name, f"on {tensor.device} beside {like.device}: all on one device")


def _check_offsets(offsets: Tensor, like: Tensor) -> None:
    behaviors = like.shape[0]
    _check_index("offsets", offsets, like)
    _require(offsets.dim() == 1 and len(offsets) >= 1, "offsets", f"shape [U + 1], not {list(offsets.shape)}")
    _require(
        int(offsets[0]) == 0 and int(offsets[-1]) == behaviors,
        "offsets",
        f"from 0 to the {behaviors} behaviours, not {int(offsets[0])} to {int(offsets[-1])}",
    )
    _require(bool((offsets[1:] >= offsets[:-1]).all()), "offsets", "never falling")


def check_gru(inputs: Tensor, offsets: Tensor, weights: GruWeights, projected: bool) -> None:
    """The contract of `gru`."""
    _require(inputs.is_floating_point(), "inputs", f"floating point, not {inputs.dtype}")
    _require(inputs.dim() == 2, "inputs", f"two dimensions [N, I], not {inputs.dim()}")
    _check_weights(weights, None if projected else inputs.shape[1], inputs)
    if projected:
        _check_matrix("inputs", inputs, (None, 3 * weights.hidden), inputs)
    _check_offsets(offsets, inputs)


def check_attention(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor) -> None:
    """The contract of `attention`."""
    _require(states.is_floating_point(), "states", f"floating point, not {states.dtype}")
    _require(states.dim() == 2, "states", f"two dimensions [N, H], not {states.dim()}")
    _check_matrix("queries", queries, (None, states.shape[1]), states)
    _check_offsets(offsets, states)
    _check_index("user_of", user_of, states)
    _require(user_of.shape == queries.shape[:1], "user_of", f"shape [{len(queries)}], not {list(user_of.shape)}")
    users = len(offsets) - 1
    inside = not len(user_of) or (int(user_of.min()) >= 0 and int(user_of.max()) < users)
    _require(inside, "user_of", f"from 0 to {users - 1}, the users of offsets")


def check_evolve(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, weights: GruWeights) -> None:
    """The contract of `evolve`: the interest states are its inputs, so I = H."""
    check_attention(states, offsets, queries, user_of)
    _check_weights(weights, states.shape[1], states)
    _require(
        weights.hidden == states.shape[1], "weights", f"hidden {weights.hidden} where states have {states.shape[1]}"
    )
