"""The obvious loops, in any floating dtype; in float64 they are the truth the other backends are held to.

U users, N behaviours of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.contract import GruWeights, check_lengths, check_values
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


def scan(
    projected: Tensor,
    scale: Tensor,
    lengths: Tensor,
    w_recurrent: Tensor,
    bias_candidate: Tensor | None,
    cell: str,
    *,
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """States `[T, B, H]` of padded rows, and gates, candidates and inner sums of each step, whatever `keep` says.

    Each step works on the rows up to the last one still alive, which is little where rows come longest first.
    """
    steps, rows, width = projected.shape
    hidden = width // 3
    check_lengths(lengths, steps)
    states = projected.new_zeros(steps, rows, hidden)
    opened = projected.new_empty(steps, rows, 2 * hidden)
    candidates, inner = torch.empty_like(states), torch.empty_like(states)
    state = projected.new_zeros(rows, hidden)
    for t, n in enumerate(_live_rows(lengths, steps)):
        x, before = projected[t, :n], state[:n]
        product = before @ w_recurrent
        gate = torch.add(x[:, : 2 * hidden], product[:, : 2 * hidden], out=opened[t, :n]).sigmoid_()
        inner[t, :n] = product[:, 2 * hidden :]
        if bias_candidate is not None:
            inner[t, :n] += bias_candidate
        c = torch.addcmul(x[:, 2 * hidden :], gate[:, hidden:], inner[t, :n], out=candidates[t, :n]).tanh_()
        a = scale[t, :n].unsqueeze(-1)
        torch.lerp(before, c, a.expand_as(c) if cell == "agru" else a * gate[:, :hidden], out=states[t, :n])
        states[t, n:] = state[n:]
        state = states[t]
    return states, (opened, candidates, inner)


def scan_back(
    d_states: Tensor,
    scale: Tensor,
    lengths: Tensor,
    w_recurrent: Tensor,
    cell: str,
    states: Tensor,
    kept: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Back through time: gradients of `projected`, `scale`, `w_recurrent` and `bias_candidate`, by names with d_.

    The weights' gradient is one product at the end.
    """
    opened, candidates, inner = kept
    steps, rows, hidden = candidates.shape
    d_projected = candidates.new_zeros(steps, rows, 3 * hidden)
    d_product = candidates.new_zeros(steps, rows, 3 * hidden)
    d_scale = torch.zeros_like(scale)
    d_state = candidates.new_zeros(rows, hidden)
    before = torch.cat([d_state.unsqueeze(0), states[:-1]])
    back = w_recurrent.t().contiguous()
    agru = cell == "agru"
    for t, n in reversed(list(enumerate(_live_rows(lengths, steps)))):
        d_state += d_states[t]
        u, r, c = opened[t, :n, :hidden], opened[t, :n, hidden:], candidates[t, :n]
        a, d_h = scale[t, :n].unsqueeze(-1), d_state[:n]
        update = a if agru else a * u
        d_update = d_h * (c - before[t, :n])
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
    d_w_recurrent = before.reshape(-1, hidden).t() @ d_product.reshape(-1, 3 * hidden)
    return d_projected, d_scale, d_w_recurrent, d_product[..., 2 * hidden :].sum((0, 1))


def _live_rows(lengths: Tensor, steps: int) -> list[int]:
    """For each step, one past the last row that is still alive."""
    lasting = lengths.flip(0).cummax(0).values.flip(0)  # the longest of this row and all after it
    return (lasting > torch.arange(steps, device=lengths.device).unsqueeze(-1)).sum(1).tolist()
