"""The public operations: one name each, checked at the door, several bodies behind it.

U users, N behaviours of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden.
"""

from __future__ import annotations

from torch import Tensor

from kernels import reference
from kernels.contract import (
    BACKENDS,
    CELLS,
    PRECISIONS,
    BackendUnavailableError,
    GruWeights,
    check_attention,
    check_choice,
    check_evolve,
    check_gru,
)


def resolve_backend(backend: str) -> str:
    """The backend that `backend` means on this machine.

    Raises KernelInputError for a name that is none, BackendUnavailableError for one that cannot run here.
    """
    check_choice("backend", backend, BACKENDS)
    if backend in ("native", "triton"):
        raise BackendUnavailableError(f"backend {backend!r} is not part of this build; reference is")
    return "reference"


def _door(backend: str, precision: str) -> None:
    check_choice("precision", precision, PRECISIONS)
    resolve_backend(backend)


def gru(
    inputs: Tensor,
    offsets: Tensor,
    weights: GruWeights,
    *,
    projected: bool = False,
    backend: str = "auto",
    precision: str = "exact",
) -> Tensor:
    """Interest states of users' behaviours (DIEN eq. 2-5).

    `inputs [N, I]`, or `[N, 3H]` when `projected` (inputs @ w_input + bias): all users' steps end to end, oldest first.
    `offsets int64 [U + 1]` cuts them into users. Returns `[N, H]`. Raises KernelInputError.
    """
    _door(backend, precision)
    check_gru(inputs, offsets, weights, projected)
    return reference.gru(inputs, offsets, weights, projected)


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
) -> Tensor:
    """The final interest of each candidate's user towards it (DIEN eq. 9 and 10-15).

    `states [N, H]` and `offsets int64 [U + 1]` as from `gru`; `queries [C, H]` are W·e_a; `user_of int64 [C]` points
    each candidate to its user. Returns `[C, H]`; zeros for a user without behaviours. Raises KernelInputError.
    """
    _door(backend, precision)
    check_choice("cell", cell, CELLS)
    check_evolve(states, offsets, queries, user_of, weights)
    return reference.evolve(states, offsets, queries, user_of, weights, cell)


def attention(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, *, backend: str = "auto") -> Tensor:
    """Attention of each candidate over its user's steps (DIEN eq. 9): `[C, T]`, rows sum to 1, 0 past the length."""
    _door(backend, "exact")
    check_attention(states, offsets, queries, user_of)
    return reference.attention(states, offsets, queries, user_of)
