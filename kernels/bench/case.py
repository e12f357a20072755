"""Inputs of stated sizes, and what is due of those who are timed on them.

U users, N behaviours of all users end to end, C candidates of all users, T steps, H hidden.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.contract import GruWeights
from kernels.ops import evolve, gru

# The head that is timed: that of a model with three item fields and three of user and context, 18 numbers each.
HEAD_EMBEDDING, HEAD_SIDE, HEAD_WIDTHS = 54, 126, (200, 80)


class Size(NamedTuple):
    """How large a case is; every user has the same number of candidates and of steps."""

    users: int
    candidates: int  # of each user
    steps: int
    hidden: int

    def __str__(self) -> str:
        counts = f"{_counted(self.users, 'user')} x {_counted(self.candidates, 'candidate')}"
        return f"{counts} x {_counted(self.steps, 'step')}, hidden {self.hidden}"

    @property
    def evolve_multiply_adds(self) -> int:
        """Multiply-adds of the recurrent product of `evolve` alone: C·T·H·3H."""
        return self.candidates * self.gru_multiply_adds

    @property
    def gru_multiply_adds(self) -> int:
        """The same of `gru`: U·T·H·3H."""
        return self.users * self.steps * 3 * self.hidden**2

    @property
    def head_multiply_adds(self) -> int:
        """Those of `head` for the candidates; what is known of items and requests is not counted."""
        sizes = (HEAD_EMBEDDING + self.hidden, *HEAD_WIDTHS, 1)
        return self.users * self.candidates * sum(one * other for one, other in pairwise(sizes))


class Case(NamedTuple):
    """One input for every contender: what `evolve` takes."""

    states: Tensor  # [N, H]
    offsets: Tensor  # [U + 1]
    queries: Tensor  # [C, H]
    user_of: Tensor  # [C]
    weights: GruWeights

    def by_user(self) -> tuple[Tensor, Tensor]:
        """States `[U, T, H]` and queries `[U, C / U, H]`: nothing is ragged where all users are alike."""
        users = len(self.offsets) - 1
        return self.states.view(users, -1, self.weights.hidden), self.queries.view(users, -1, self.weights.hidden)

    def copies(self) -> Tensor:
        """Every candidate with its own copy of its user's states: `[C, T, H]`."""
        return self.by_user()[0][self.user_of]

    def double(self) -> Case:
        """The same in float64."""
        weights = GruWeights(*(each.double() for each in self.weights))
        return self._replace(states=self.states.double(), queries=self.queries.double(), weights=weights)

    def to(self, device: str) -> Case:
        """The same on another device."""
        weights = GruWeights(*(each.to(device) for each in self.weights))
        states, offsets, queries, user_of = (each.to(device) for each in self[:4] if isinstance(each, Tensor))
        return Case(states, offsets, queries, user_of, weights)


def random_case(size: Size) -> Case:
    """States as tanh leaves them, weights as torch starts them; always the same for a size."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    users, candidates, steps, hidden = size
    shapes = [(hidden, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,), (hidden,)]
    return Case(
        states=uniform(users * steps, hidden),
        offsets=torch.arange(users + 1) * steps,
        queries=uniform(users * candidates, hidden),
        user_of=torch.arange(users).repeat_interleave(candidates),
        weights=GruWeights(*(uniform(*shape) * hidden**-0.5 for shape in shapes)),
    )


def evolution(case: Case) -> Tensor:
    """What is due of AUGRU, `[C, H]`: the reference in float64."""
    return evolve(*case.double(), backend="reference")


def interest_states(case: Case) -> Tensor:
    """What is due of a GRU over the users' steps, `[N, H]`: the reference in float64."""
    exact = case.double()
    return gru(exact.states, exact.offsets, exact.weights, backend="reference")


def last_states(case: Case) -> Tensor:
    """The last state of each candidate's user, `[C, H]`."""
    return interest_states(case)[case.offsets[1:] - 1][case.user_of]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
