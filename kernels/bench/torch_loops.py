"""Contenders in torch alone: what one writes first, and what one does next to make it faster.

U users, P candidates of each, C = U·P, T steps, H hidden.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.bench.case import Case, interest_states, last_states
from kernels.bench.contender import Contender, Prepared, cannot_run, refused
from kernels.contract import GruWeights
from kernels.ops import evolve, gru


def reference_evolve(case: Case) -> Prepared:
    """The public operation, its checks at the door included."""
    return Prepared(lambda: evolve(*case, backend="reference"))


def reference_gru(case: Case) -> Prepared:
    """Likewise."""
    return Prepared(lambda: gru(case.states, case.offsets, case.weights, backend="reference"))


def copied(case: Case) -> Prepared:
    """AUGRU where nothing is shared: a server that knows no users gets a history with each candidate."""
    copies, queries, (w_input, w_recurrent, bias, bias_candidate) = case.copies(), case.queries, case.weights

    def call() -> Tensor:
        attended = torch.softmax(torch.bmm(copies, queries.unsqueeze(2)).squeeze(2), dim=1)  # [C, T]
        x_u, x_r, x_c = (copies @ w_input + bias).chunk(3, dim=2)  # [C, T, H] each
        state = torch.zeros_like(queries)
        for t in range(copies.shape[1]):
            h_u, h_r, h_c = (state @ w_recurrent).chunk(3, dim=1)
            u = attended[:, t : t + 1] * torch.sigmoid(x_u[:, t] + h_u)
            c = torch.tanh(x_c[:, t] + torch.sigmoid(x_r[:, t] + h_r) * (h_c + bias_candidate))
            state = (1 - u) * state + u * c
        return state

    return Prepared(call)


def shared_loop(
    states: Tensor, queries: Tensor, w_input: Tensor, w_recurrent: Tensor, bias: Tensor, bias_candidate: Tensor
) -> Tensor:
    """AUGRU with a user's projection shared, in few calls of torch: `[U, T, H]` and `[U, P, H]` to `[U, P, H]`.

    It knows that all users are alike, which `kernels.evolve` does not, and asks nothing of its input.
    """
    hidden = states.shape[2]
    gates, attended = [2 * hidden, hidden], torch.softmax(queries @ states.transpose(1, 2), dim=2).unsqueeze(3)
    x_ur, x_c = torch.split((states @ w_input + bias).unsqueeze(2), gates, dim=3)  # [U, T, 1, 2H], [U, T, 1, H]
    state = torch.zeros_like(queries)
    for of_gates, of_candidate, a in zip(x_ur.unbind(1), x_c.unbind(1), attended.unbind(2)):  # noqa: B905 - TorchScript
        h_ur, h_c = torch.split(state @ w_recurrent, gates, dim=2)
        u, r = torch.sigmoid(of_gates + h_ur).chunk(2, dim=2)
        c = torch.tanh(torch.addcmul(of_candidate, r, h_c + bias_candidate))
        state = torch.lerp(state, c, a * u)
    return state


def eager(case: Case) -> Prepared:
    """The loop as Python runs it."""
    arguments = (*case.by_user(), *case.weights)
    return Prepared(lambda: shared_loop(*arguments).flatten(0, 1))


def scripted(case: Case) -> Prepared:
    """`torch.jit.script`, which torch deprecates and servers still run."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        loop: Callable[..., Tensor] = torch.jit.script(shared_loop)
    arguments = (*case.by_user(), *case.weights)
    return Prepared(lambda: loop(*arguments).flatten(0, 1))


def compiled(case: Case) -> Prepared:
    """`torch.compile`: the loop unrolled over all steps, for this case's sizes alone."""
    loop: Callable[..., Tensor] = torch.compile(shared_loop, fullgraph=True, dynamic=False)
    arguments = (*case.by_user(), *case.weights)
    try:
        loop(*arguments)
    except RuntimeError as error:  # such as a machine without the compiler that torch calls
        raise refused("torch.compile", error) from None
    return Prepared(lambda: loop(*arguments).flatten(0, 1))


def torch_gru(case: Case) -> torch.nn.GRU:
    """The case's weights in `torch.nn.GRU`: gates in the order r, z, n, where z = 1 - u keeps the old state."""
    weights: GruWeights = case.weights
    hidden = weights.hidden

    def reordered(columns: Tensor) -> Tensor:
        u, r, c = columns.chunk(3, dim=-1)
        return torch.cat([r, -u, c], dim=-1)

    layer = torch.nn.GRU(hidden, hidden, batch_first=True, device=case.states.device)
    zeros = torch.zeros(2 * hidden, device=case.states.device)
    layer.load_state_dict(
        {
            "weight_ih_l0": reordered(weights.w_input).T,
            "weight_hh_l0": reordered(weights.w_recurrent).T,
            "bias_ih_l0": reordered(weights.bias),
            "bias_hh_l0": torch.cat([zeros, weights.bias_candidate]),
        }
    )
    return layer


def copied_gru(case: Case) -> Prepared:
    """Every candidate with its own copy of the history."""
    layer, copies = torch_gru(case), case.copies()
    return Prepared(lambda: layer(copies)[1].squeeze(0))


def users_gru(case: Case) -> Prepared:
    """The users' histories, each once; as all are of one length, nothing need be padded or packed."""
    layer, states = torch_gru(case), case.by_user()[0]
    return Prepared(lambda: layer(states)[0].flatten(0, 1))


def evolve_contenders(compiling: bool) -> dict[str, Contender]:
    """Those for interest evolution, the one that the others are compared with first."""
    left_out = cannot_run("--compile was not given: compiling 100 steps takes a minute or more")
    return {
        "evolve-eager": Contender(eager, "eager torch, a user's projection shared by all candidates"),
        "evolve-reference": Contender(reference_evolve, "kernels.evolve in eager torch: any lengths, any cell"),
        "evolve-copied": Contender(copied, "eager torch, a copied history for each candidate"),
        "evolve-scripted": Contender(scripted, "torch.jit.script of the shared loop"),
        "evolve-compiled": Contender(compiled if compiling else left_out, "torch.compile of the shared loop"),
        "torch-gru-copied": Contender(
            copied_gru, "torch.nn.GRU over the copies; less work: no attention, nor its gate", due=last_states
        ),
    }


def gru_contenders() -> dict[str, Contender]:
    """Those for interest states, where `torch.nn.GRU` is the same work."""
    return {
        "gru-reference": Contender(reference_gru, "kernels.gru in eager torch", due=interest_states),
        "torch-gru": Contender(users_gru, "torch.nn.GRU over histories of one length", due=interest_states),
    }
