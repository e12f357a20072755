"""The obvious loops, in any floating dtype; in float64 they are the truth the other backends are held to.

U users, N behaviours of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.contract import GruWeights, check_values
from kernels.heads import HeadInputs, HeadLayer, HeadWeights, check_head_values


def gates(projected: Tensor, state: Tensor, weights: GruWeights) -> tuple[Tensor, Tensor]:
    """Update gate and candidate state of a step (DIEN eq. 2-4): `projected [C, 3H]`, `state [C, H]`; `[C, H]` each."""
    both = 2 * weights.hidden
    product = state @ weights.w_recurrent
    u, r = torch.sigmoid(projected[..., :both] + product[..., :both]).chunk(2, dim=-1)
    return u, torch.tanh(torch.addcmul(projected[..., both:], r, product[..., both:] + weights.bias_candidate))


def effective(u: Tensor, cell: str, a: Tensor | float) -> Tensor | float:
    """What attention `a [C, 1]` makes of the update gate `u [C, H]`: AUGRU a·u (eq. 15), AGRU a (eq. 13), else u."""
    if cell == "augru":
        return a * u
    return a if cell == "agru" else u


def step(projected: Tensor, state: Tensor, weights: GruWeights, cell: str = "gru", a: Tensor | float = 1.0) -> Tensor:
    """One step of a cell (DIEN eq. 5): `projected [C, 3H]`, `state [C, H]`, attention `a [C, 1]`; new `[C, H]`."""
    u, c = gates(projected, state, weights)
    return torch.lerp(state, c, effective(u, cell, a))  # (1 - u)∘h + u∘c


def unavailable() -> None:
    """Nothing: it runs wherever torch does."""


def gru(inputs: Tensor, offsets: Tensor, weights: GruWeights, projected: bool, precision: str, threads: int) -> Tensor:
    """Interest states of every behaviour (DIEN section 3.2): `[N, H]`.

    Any precision is exact here, and the threads are torch's own.
    """
    check_values(inputs.shape[0], offsets, weights=weights)
    if not projected:
        inputs = inputs @ weights.w_input + weights.bias
    states = inputs.new_zeros(inputs.shape[0], weights.hidden)
    order, live = _longest_first(offsets.diff())
    first = offsets[:-1][order]
    state = inputs.new_zeros(len(order), weights.hidden)
    for t, n in enumerate(live):
        place = first[:n] + t
        state[:n] = step(inputs[place], state[:n], weights)
        states[place] = state[:n]
    return states


def attention(states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, threads: int) -> Tensor:
    """Softmax over a user's steps of the product of state and query (DIEN eq. 9): `[C, T]`, 0 past the length."""
    check_values(states.shape[0], offsets, user_of)
    first, lengths = offsets[:-1], offsets.diff()
    weights = queries.new_zeros(len(queries), int(lengths.max()) if len(lengths) else 0)
    for user, (begin, length) in enumerate(zip(first.tolist(), lengths.tolist(), strict=True)):
        candidates = (user_of == user).nonzero().squeeze(1)
        own = states[begin : begin + length]
        weights[candidates, :length] = torch.softmax(queries[candidates] @ own.T, dim=1)
    return weights


def evolve(
    states: Tensor,
    offsets: Tensor,
    queries: Tensor,
    user_of: Tensor,
    weights: GruWeights,
    cell: str,
    precision: str,
    threads: int,
) -> Tensor:
    """The last state of interest evolution towards each candidate (DIEN section 3.3): `[C, H]`.

    Any precision is exact here, and the threads are torch's own.
    """
    check_values(states.shape[0], offsets, user_of, weights)
    order, live = _longest_first(offsets.diff()[user_of])
    attended = attention(states, offsets, queries, user_of, threads)[order]
    projected = states @ weights.w_input
    if cell != "aigru":
        projected = projected + weights.bias
    first = offsets[:-1][user_of][order]
    state = queries.new_zeros(queries.shape)
    for t, n in enumerate(live):
        a = attended[:n, t : t + 1]
        x = projected[first[:n] + t]
        if cell == "aigru":  # the input is scaled, not its bias (DIEN eq. 10)
            x = a * x + weights.bias
        state[:n] = step(x, state[:n], weights, cell, a)
    return torch.empty_like(state).index_copy_(0, order, state)


def _longest_first(lengths: Tensor) -> tuple[Tensor, list[int]]:
    """An order by falling length, and for each step how many are still alive: the rows of a step are then a prefix."""
    longest = int(lengths.max()) if len(lengths) else 0
    alive = lengths > torch.arange(longest, device=lengths.device).unsqueeze(1)
    return torch.argsort(lengths, descending=True, stable=True), alive.sum(1).tolist()


def pack_head(weights: HeadWeights) -> None:
    """Nothing: the weights are used as they are."""


def head(given: HeadInputs, weights: HeadWeights, packed: None, threads: int) -> Tensor:
    """The last net's logits, `[C]`. The threads are torch's own."""
    check_head_values(given)
    crossed = given.embeddings[given.item_of] * given.factors[given.request_of]
    inputs = torch.cat([crossed, given.final], dim=1)
    known = given.items[given.item_of] + given.requests[given.request_of]
    for number, layer in enumerate(weights.layers):
        s = inputs @ layer.weight + layer.bias
        inputs = activate(s if number else s + known, layer, weights.activation)
    return inputs @ weights.output + weights.output_bias


def activate(s: Tensor, layer: HeadLayer, activation: str) -> Tensor:
    """Dice (DIN eq. 3) or PReLU of `s [C, outputs]`."""
    p = torch.sigmoid((s - layer.mean) * layer.scale) if activation == "dice" else (s > 0).to(s.dtype)
    return s * (layer.alpha + p * (1 - layer.alpha))
