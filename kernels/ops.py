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

from kernels.backends import Backend, backend_for, load_backend, resolve_backend
from kernels.contract import (
    GruWeights,
    KernelInputError,
    check_attention,
    check_evolve,
    check_gru,
    check_options,
    check_tensors,
)
from kernels.heads import HeadInputs, HeadWeights, check_head, check_head_weights

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
    return _gru_op(inputs, offsets, weights, projected, backend, precision, threads)


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
    return _evolve_op(states, offsets, queries, user_of, weights, cell, backend, precision, threads)


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


class Head:
    """A head made ready by `prepare_head`. Holds its own copy of the weights; never changes; safe in any thread."""

    __slots__ = ("backend", "body", "packed", "weights")

    def __init__(self, weights: HeadWeights, backend: str) -> None:
        self.weights, self.backend = weights, backend
        self.body: Backend = load_backend(backend)
        self.packed = self.body.pack_head(weights)


def prepare_head(weights: HeadWeights, *, backend: str = "auto") -> Head:
    """Check a head's weights once, and bring them into the form in which a backend reads them.

    Raises KernelInputError naming the part and the rule for a wrong shape, dtype, device, for what is not finite, and
    for tensors that the backend does not take; BackendUnavailableError for one that cannot run here.
    """
    check_head_weights(weights)
    first = weights.layers[0].weight
    resolved = resolve_backend(backend, first.device.type, first.dtype)
    with torch.no_grad():
        own = HeadWeights.of_flat([part.detach().clone() for part in weights.flat()], weights.activation)
        return Head(own, resolved)


def head(
    items: Tensor,
    embeddings: Tensor,
    item_of: Tensor,
    requests: Tensor,
    factors: Tensor,
    request_of: Tensor,
    final: Tensor,
    prepared: Head,
    *,
    threads: int | None = None,
) -> Tensor:
    """Logits `[C]` of the last net, its first layer put together from its terms.

    `items [I, W]` and `requests [R, W]` are the terms of the first layer's sums that an item and a request have by
    themselves, `item_of` and `request_of`, int64 `[C]`, point each candidate to its own. What is multiplied with the
    first layer's weights is `embeddings[item] * factors[request]` (`[I, E]` and `[R, E]`) beside `final [C, H]`, from
    `evolve`. What is not a number stays with its candidate.

    Raises KernelInputError as the other operations do. In a traced program the weights are the program's own, and are
    made ready at every call.
    """
    given = HeadInputs(items, embeddings, item_of, requests, factors, request_of, final)
    check_tensors(HeadInputs._fields, *given)
    if not isinstance(prepared, Head):
        raise KernelInputError(f"prepared: what prepare_head gives, not {type(prepared).__name__}")
    if _watched(final):
        weights = prepared.weights
        return _head_op(*given, weights.flat(), weights.activation, prepared.backend, threads)
    check_options(prepared.backend, threads)
    check_head(given, prepared.weights)
    return prepared.body.head(given, prepared.weights, prepared.packed, _threads(threads))


def _check_head(*given: Any) -> None:
    *inputs, flat, activation, backend, threads = given
    check_options(backend, threads)
    weights = HeadWeights.of_flat(list(flat), activation)
    check_head(HeadInputs(*inputs), weights)


def _head(*given: Any) -> Tensor:
    *inputs, flat, activation, backend, threads = given
    ready = prepare_head(HeadWeights.of_flat(list(flat), activation), backend=backend)
    return ready.body.head(HeadInputs(*inputs), ready.weights, ready.packed, _threads(threads))


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


_PLAIN = (Tensor, torch.nn.Parameter)


def _watched(tensor: Tensor) -> bool:
    """Whether something watches operators, so that the call has to be one: a tracer, a mode, a kind of tensor."""
    return (
        type(tensor) not in _PLAIN
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.maybe_current_level() is not None
        or torch._C._get_tracing_state() is not None
    )


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

    Operators take tensors and no tuples: from `weights_at` on come four that are one GruWeights to the functions. What
    is returned calls it, or, where nobody would notice, its check and body straight: the way through torch's dispatcher
    and back takes several microseconds, as long as all steps of a history for one candidate.
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

    def called(*own: Any) -> Tensor:
        if not _watched(own[0]):
            check(*own)
            return body(*own)
        if weights_at is None:
            return operator(*own)
        return operator(*own[:weights_at], *own[weights_at], *own[weights_at + 1 :])

    return called


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
_head_op = _operator(
    "head",
    "Tensor items, Tensor embeddings, Tensor item_of, Tensor requests, Tensor factors, Tensor request_of, Tensor final,"
    " Tensor[] weights, str activation, str backend, int? threads",
    _check_head,
    _head,
    lambda *given: given[6].new_empty(given[6].shape[0]),
)
