"""The public operations: one name each, checked at the door, several bodies behind it.

Each is one operator of `torch.library` in the namespace "augur", so `torch.compile` and `torch.export` keep it as one
node, with whatever backend the program meets where it runs.

U users, N behaviours of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.backends import backend_for
from kernels.contract import (
    GruWeights,
    check_attention,
    check_evolve,
    check_gru,
    check_options,
    check_tensors,
)

_OF_GRU = ("inputs", "offsets")
_OF_CANDIDATES = ("states", "offsets", "queries", "user_of")


def gru(
    inputs: Tensor,
    offsets: Tensor,
    weights: GruWeights,
    *,
    projected: bool = False,
    backend: str = "auto",
    precision: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """Interest states of users' behaviours (DIEN eq. 2-5).

    `inputs [N, I]`, or `[N, 3H]` when `projected` (inputs @ w_input + bias): all users' steps end to end, oldest first.
    `offsets int64 [U + 1]` cuts them into users. Returns `[N, H]`.

    All tensors have one dtype and one device; strides are free. `backend` is chosen by `resolve_backend`; `precision`
    "fast" allows a backend to approximate (the reference stays exact). `threads` is how many a CPU backend may use
    (None: `torch.get_num_threads()`); the reference uses torch's own. Inference only: there is no gradient.

    Raises KernelInputError naming the argument and the rule for a wrong shape, dtype, device or value and for a tensor
    that requires a gradient while gradients are recorded, BackendUnavailableError for a backend that cannot run here.
    Whether `inputs` are finite is not looked at: what is not a number stays within its user.
    """
    check_tensors(_OF_GRU, inputs, offsets, weights=weights)
    return _gru_op(inputs, offsets, *weights, projected, backend, precision, threads)


def evolve(
    states: Tensor,
    offsets: Tensor,
    queries: Tensor,
    user_of: Tensor,
    weights: GruWeights,
    *,
    cell: str = "augru",
    backend: str = "auto",
    precision: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """The final interest of each candidate's user towards it (DIEN eq. 9 and 10-15).

    `states [N, H]` and `offsets int64 [U + 1]` as from `gru`; `queries [C, H]` are W·e_a; `user_of int64 [C]` points
    each candidate to its user. Returns `[C, H]`; zeros for a user without behaviours. The rest is as for `gru`.
    """
    check_tensors(_OF_CANDIDATES, states, offsets, queries, user_of, weights=weights)
    return _evolve_op(states, offsets, queries, user_of, *weights, cell, backend, precision, threads)


def attention(
    states: Tensor,
    offsets: Tensor,
    queries: Tensor,
    user_of: Tensor,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Attention of each candidate over its user's steps (DIEN eq. 9): `[C, T]`, rows sum to 1, 0 past the length.

    T is the length of the longest user, which only `offsets` tell: while a program is traced it is an unbacked size,
    and `torch.compile` needs `torch._dynamo.config.capture_dynamic_output_shape_ops` to keep it in one graph. The rest
    is as for `evolve`.
    """
    check_tensors(_OF_CANDIDATES, states, offsets, queries, user_of)
    return _attention_op(states, offsets, queries, user_of, backend, threads)


def _check_gru(
    inputs: Tensor,
    offsets: Tensor,
    weights: GruWeights,
    projected: bool,
    backend: str,
    precision: str,
    threads: int | None,
) -> None:
    check_options(backend, threads, precision)
    check_gru(inputs, offsets, weights, projected)


def _gru(
    inputs: Tensor,
    offsets: Tensor,
    weights: GruWeights,
    projected: bool,
    backend: str,
    precision: str,
    threads: int | None,
) -> Tensor:
    body = backend_for(backend, inputs, weights.hidden)
    return body.gru(inputs, offsets, weights, projected, precision, _threads(threads))


def _check_evolve(
    states: Tensor,
    offsets: Tensor,
    queries: Tensor,
    user_of: Tensor,
    weights: GruWeights,
    cell: str,
    backend: str,
    precision: str,
    threads: int | None,
) -> None:
    check_options(backend, threads, precision, cell)
    check_evolve(states, offsets, queries, user_of, weights)


def _evolve(
    states: Tensor,
    offsets: Tensor,
    queries: Tensor,
    user_of: Tensor,
    weights: GruWeights,
    cell: str,
    backend: str,
    precision: str,
    threads: int | None,
) -> Tensor:
    body = backend_for(backend, states, weights.hidden)
    return body.evolve(states, offsets, queries, user_of, weights, cell, precision, _threads(threads))


def _check_attention(
    states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, backend: str, threads: int | None
) -> None:
    check_options(backend, threads)
    check_attention(states, offsets, queries, user_of)


def _attention(
    states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, backend: str, threads: int | None
) -> Tensor:
    body = backend_for(backend, states, states.shape[1])
    return body.attention(states, offsets, queries, user_of, _threads(threads))


def _threads(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else threads


# Library.define and impl cost half of what torch.library.custom_op does for each call; a schema is written out for it.
_library = torch.library.Library("augur", "DEF")  # type: ignore[no-untyped-call]
_WEIGHTS = "Tensor w_input, Tensor w_recurrent, Tensor bias, Tensor bias_candidate"
_ATTENDED = "Tensor states, Tensor offsets, Tensor queries, Tensor user_of"


def _operator(
    name: str,
    arguments: str,
    check: Callable[..., None],
    body: Callable[..., Tensor],
    shape: Callable[..., Tensor],
    weights_at: int | None = None,
) -> Callable[..., Tensor]:
    """An operator: its check, then what computes or, while a program is traced, what says the result's shape.

    Operators take tensors and no tuples: from `weights_at` on come four that are one GruWeights to the functions.
    """

    def gathered(flat: tuple[Any, ...]) -> tuple[Any, ...]:
        if weights_at is None:
            return flat
        after = weights_at + len(GruWeights._fields)
        return *flat[:weights_at], GruWeights(*flat[weights_at:after]), *flat[after:]

    def checked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*flat: Any) -> Tensor:
            own = gathered(flat)
            check(*own)
            return function(*own)

        return call

    _library.define(f"{name}({arguments}) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    _library.impl(name, checked(body), "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"augur::{name}", checked(shape), lib=_library)
    operator: Callable[..., Tensor] = getattr(torch.ops.augur, name).default
    return operator


_gru_op = _operator(
    "gru",
    f"Tensor inputs, Tensor offsets, {_WEIGHTS}, bool projected, str backend, str precision, int? threads",
    _check_gru,
    _gru,
    lambda inputs, _offsets, weights, *_: inputs.new_empty(inputs.shape[0], weights.hidden),
    weights_at=2,
)
_evolve_op = _operator(
    "evolve",
    f"{_ATTENDED}, {_WEIGHTS}, str cell, str backend, str precision, int? threads",
    _check_evolve,
    _evolve,
    lambda _states, _offsets, queries, *_: queries.new_empty(queries.shape),
    weights_at=4,
)
_attention_op = _operator(
    "attention",
    f"{_ATTENDED}, str backend, int? threads",
    _check_attention,
    _attention,
    lambda _states, _offsets, queries, *_: queries.new_empty(
        queries.shape[0], torch.library.get_ctx().new_dynamic_size()
    ),
)
