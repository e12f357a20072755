"""What every backend takes and gives, and the checks of it.

The checks of shapes, dtypes and devices stand at the door and need no data, so they hold while a program is traced,
too. Those of values read the tensors: a backend makes them first of all, with `check_values` or in a pass of its own,
and what it reads and writes then rests on both.

U users, N behaviours of all users end to end, C candidates, I inputs, H hidden.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CELLS = ("augru", "agru", "aigru")
BACKENDS = ("auto", "reference", "native", "triton")
PRECISIONS = ("exact", "fast")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
MAX_WIDTH = 16_384  # of inputs and of hidden: a weight matrix then has fewer than 2^31 numbers
MAX_THREADS = 1_024
_UNSIGNED = np.dtype(np.uint64)


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


WEIGHT_NAMES = tuple(f"weights.{field}" for field in GruWeights._fields)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise KernelInputError unless `value` is one of `choices`."""
    if value not in choices:
        raise KernelInputError(f"{name}: {value!r} is none of {', '.join(choices)}")


def check_options(backend: str, threads: int | None, precision: str = "exact", cell: str = "augru") -> None:
    """Raise KernelInputError for a choice that there is not, and a number out of its range."""
    check_choice("backend", backend, BACKENDS)
    check_choice("precision", precision, PRECISIONS)
    check_choice("cell", cell, CELLS)
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise KernelInputError(f"threads: from 1 to {MAX_THREADS}, or None, not {threads}")


def check_tensors(names: tuple[str, ...], *tensors: Tensor, weights: GruWeights | None = None) -> None:
    """Raise KernelInputError unless each is a tensor without a gradient to be had: these operations have none."""
    if weights is not None:
        if not isinstance(weights, GruWeights):
            raise KernelInputError(f"weights: GruWeights, not {type(weights).__name__}")
        names, tensors = names + WEIGHT_NAMES, tensors + weights
    gradients = torch.is_grad_enabled()
    for name, tensor in zip(names, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise KernelInputError(f"{name}: a tensor, not {type(tensor).__name__}")
        if gradients and tensor.requires_grad:
            raise KernelInputError(
                f"{name}: requires a gradient, and the kernels have none: call them under torch.inference_mode() or"
                " torch.no_grad()"
            )


def check_like(name: str, tensor: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    """Raise KernelInputError unless it has `shape` (None: any) and, as all have, the dtype and device of `like`."""
    got = tensor.shape
    if got != shape and (
        len(got) != len(shape) or any(due not in (None, size) for size, due in zip(got, shape, strict=True))
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise KernelInputError(f"{name}: shape {list(got)} where [{wanted}] is due")
    if tensor.dtype != like.dtype:
        raise KernelInputError(f"{name}: {tensor.dtype} beside {like.dtype}: all of one dtype")
    check_placed(name, tensor, like)


def check_placed(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise KernelInputError unless it is dense and on the device of `like`."""
    if tensor.device != like.device:
        raise KernelInputError(f"{name}: on {tensor.device} beside {like.device}: all on one device")
    if tensor.layout != torch.strided:
        raise KernelInputError(f"{name}: a dense tensor, not {tensor.layout}")


def check_floating(name: str, tensor: Tensor, axes: str) -> None:
    """Raise KernelInputError unless it can be the first argument, which the others are compared with."""
    if tensor.dtype not in DTYPES:
        given = tensor.dtype
        rule = "floating point" + (" of 16, 32 or 64 bits" if given.is_floating_point else "")
        raise KernelInputError(f"{name}: {rule}, not {given}")
    if tensor.dim() != 2:
        raise KernelInputError(f"{name}: two dimensions {axes}, not {tensor.dim()}")
    check_placed(name, tensor, tensor)


def check_width(name: str, what: str, width: int) -> None:
    """Raise KernelInputError unless it is a width that there is."""
    if not 1 <= width <= MAX_WIDTH:
        raise KernelInputError(f"{name}: {what} from 1 to {MAX_WIDTH}, not {width}")


def _check_weights(weights: GruWeights, inputs: int | None, like: Tensor) -> None:
    if weights.w_recurrent.dim() != 2:
        raise KernelInputError(f"weights.w_recurrent: two dimensions [H, 3H], not {weights.w_recurrent.dim()}")
    hidden = weights.w_recurrent.shape[0]
    check_width("weights.w_recurrent", "hidden", hidden)
    check_like("weights.w_recurrent", weights.w_recurrent, (hidden, 3 * hidden), like)
    check_like("weights.w_input", weights.w_input, (inputs, 3 * hidden), like)
    check_width("weights.w_input", "inputs", weights.w_input.shape[0])
    check_like("weights.bias", weights.bias, (3 * hidden,), like)
    check_like("weights.bias_candidate", weights.bias_candidate, (hidden,), like)


def check_index(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise KernelInputError unless it holds int64 where `like` lies."""
    if tensor.dtype != torch.int64:
        raise KernelInputError(f"{name}: int64, not {tensor.dtype}")
    check_placed(name, tensor, like)


def _check_offsets(offsets: Tensor, like: Tensor) -> None:
    check_index("offsets", offsets, like)
    if offsets.dim() != 1 or offsets.shape[0] < 1:
        raise KernelInputError(f"offsets: shape [U + 1], not {list(offsets.shape)}")


def check_gru(inputs: Tensor, offsets: Tensor, weights: GruWeights, projected: bool) -> None:
    """The contract of `gru`, but for values."""
    check_floating("inputs", inputs, "[N, I]")
    _check_weights(weights, None if projected else inputs.shape[1], inputs)
    if projected:
        check_like("inputs", inputs, (None, 3 * weights.w_recurrent.shape[0]), inputs)
    _check_offsets(offsets, inputs)


def check_attention(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor) -> None:
    """The contract of `attention`, but for values."""
    check_floating("states", states, "[N, H]")
    check_width("states", "hidden", states.shape[1])
    check_like("queries", queries, (None, states.shape[1]), states)
    _check_offsets(offsets, states)
    check_index("user_of", user_of, states)
    if user_of.dim() != 1 or user_of.shape[0] != queries.shape[0]:
        raise KernelInputError(f"user_of: shape [{queries.shape[0]}], not {list(user_of.shape)}")


def check_evolve(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, weights: GruWeights) -> None:
    """The contract of `evolve`, but for values: the interest states are its inputs, so I = H."""
    check_attention(states, offsets, queries, user_of)
    _check_weights(weights, states.shape[1], states)
    if weights.w_recurrent.shape[0] != states.shape[1]:
        raise KernelInputError(f"weights: hidden {weights.w_recurrent.shape[0]} where states have {states.shape[1]}")


def check_values(
    behaviors: int, offsets: Tensor, user_of: Tensor | None = None, weights: GruWeights | None = None
) -> None:
    """What shapes do not tell: offsets cut all `behaviors`, candidates have a user, weights are finite.

    Waits at most once for an accelerator. While a CUDA graph is captured nothing can be read: capture only what a call
    outside has passed, and replay it only with offsets and `user_of` that would pass.
    """
    if offsets.is_cpu:
        _check_cuts(offsets.tolist(), behaviors)
        if user_of is not None:
            _check_users(user_of.numpy(), offsets.shape[0] - 1)
        if weights is not None and not math.isfinite(sum([part.sum().item() for part in weights])):
            check_finite(weights)
    elif not _capturing(offsets) and not _all_well(behaviors, offsets, user_of, weights):
        _check_cuts(offsets.tolist(), behaviors)
        if user_of is not None:
            _check_users(user_of.cpu().numpy(), offsets.shape[0] - 1)
        if weights is not None:
            check_finite(weights)


def check_finite(weights: GruWeights) -> None:
    """Raise KernelInputError unless every number of the weights is finite."""
    for name, part in zip(WEIGHT_NAMES, weights, strict=True):
        finite = torch.isfinite(part)
        if not bool(finite.all()):
            raise KernelInputError(f"{name}: every value finite, not {part[~finite][0].item()}")


def _capturing(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _all_well(behaviors: int, offsets: Tensor, user_of: Tensor | None, weights: GruWeights | None) -> bool:
    """The rules below as one answer, which an accelerator is waited for once."""
    well = (offsets[0] == 0) & (offsets[-1] == behaviors) & (offsets[1:] >= offsets[:-1]).all()
    if user_of is not None:
        well &= ((user_of >= 0) & (user_of < offsets.shape[0] - 1)).all()
    for part in weights or ():
        well &= torch.isfinite(part).all()
    return bool(well)


def _check_cuts(offsets: list[int], behaviors: int) -> None:
    if offsets[0] != 0 or offsets[-1] != behaviors:
        raise KernelInputError(f"offsets: from 0 to the {behaviors} behaviours, not {offsets[0]} to {offsets[-1]}")
    if offsets != sorted(offsets):
        before, after = next(pair for pair in itertools.pairwise(offsets) if pair[1] < pair[0])
        raise KernelInputError(f"offsets: never falling, but {after} follows {before}")


def _check_users(user_of: npt.NDArray[np.int64], users: int) -> None:
    if not users and user_of.size:
        raise KernelInputError(f"user_of: there are no users, and {user_of.size} candidates")
    # Read without a sign, what is negative is larger than any user: one pass sees both ends.
    if user_of.size and np.maximum.reduce(user_of.view(_UNSIGNED)) >= users:
        wrong = user_of[(user_of < 0) | (user_of >= users)][0]
        raise KernelInputError(f"user_of: from 0 to {users - 1}, the users of offsets, not {wrong}")


def check_scan(
    projected: Tensor, scale: Tensor, lengths: Tensor, w_recurrent: Tensor, bias_candidate: Tensor | None, cell: str
) -> None:
    """The contract of `scan`, but for values."""
    check_choice("cell", cell, ("augru", "agru"))
    names = "projected", "scale", "lengths", "w_recurrent", "bias_candidate"
    inner = w_recurrent if bias_candidate is None else bias_candidate
    with torch.no_grad():  # a gradient is to be had here
        check_tensors(names, projected, scale, lengths, w_recurrent, inner)
    check_floating("w_recurrent", w_recurrent, "[H, 3H]")
    hidden = w_recurrent.shape[0]
    check_width("w_recurrent", "hidden", hidden)
    check_like("w_recurrent", w_recurrent, (hidden, 3 * hidden), w_recurrent)
    check_like("projected", projected, (None, None, 3 * hidden), w_recurrent)
    check_like("scale", scale, tuple(projected.shape[:2]), w_recurrent)
    check_index("lengths", lengths, w_recurrent)
    if lengths.shape != projected.shape[1:2]:
        raise KernelInputError(f"lengths: shape [{projected.shape[1]}], not {list(lengths.shape)}")
    if bias_candidate is not None:
        check_like("bias_candidate", bias_candidate, (hidden,), w_recurrent)


def check_lengths(lengths: Tensor, steps: int) -> None:
    """Raise KernelInputError unless each is from 0 to `steps`."""
    wrong = lengths[(lengths < 0) | (lengths > steps)]
    if len(wrong):
        raise KernelInputError(f"lengths: from 0 to {steps}, the steps of projected, not {int(wrong[0])}")
