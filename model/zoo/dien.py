"""DIEN, and GRU + AUGRU, AGRU, AIGRU: interest evolution towards the target (Zhou et al., AAAI 2019).

B rows, T steps, C candidates, N behaviours, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor

import kernels
from kernels.reference import effective, gates
from model.config import RELEASED
from model.layers import Gru, mask
from model.ragged import Rows
from model.zoo.network import Recurrent
from model.zoo.split import Map, RecurrentSplit


class Dien(Recurrent):
    """Interest extractor, attention, interest evolution; the final interest is the last state of the evolution.

    With the auxiliary loss it is DIEN, without it GRU + the cell of its evolution. Attention is a softmax whatever its
    form: a weight within 0 and 1 leaves an update gate one.
    """

    def make_layers(self) -> None:
        """The evolution besides."""
        super().make_layers()
        self.evolution = Gru(self.config.hidden, self.config.hidden, inner_bias=self.config.inner_bias)

    def evolve(self, states: Tensor, attention: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, H]` (DIEN section 3.3): AUGRU, AGRU or AIGRU by configuration."""
        if self.config.cell == RELEASED:
            return self._evolve_as_released(states, attention, lengths)
        if self.config.cell == "aigru":
            real = mask(lengths, states.shape[0]).to(states.dtype)
            evolved = self.evolution(states * attention.unsqueeze(-1), real, lengths)
        else:
            evolved = self.evolution(states, attention, lengths, self.config.cell)
        return evolved[-1]  # type: ignore[no-any-return]

    def _evolve_as_released(self, states: Tensor, attention: Tensor, lengths: Tensor) -> Tensor:
        """The authors' code keeps (1 - a)·(1 - u) of the state: ũ = a + (1 - a)·u, so a = 0 still moves it.

        To compare with, and no faster than torch walks it.
        """
        weights, real = self.evolution.weights(), mask(lengths, states.shape[0]).to(states.dtype).unsqueeze(-1)
        state = states.new_zeros(states.shape[1], weights.hidden)
        for projected, a, alive in zip(states @ weights.w_input + weights.bias, attention, real, strict=True):
            u, c = gates(projected, state, weights)
            state = torch.lerp(state, c, alive * released(u, a.unsqueeze(-1)))
        return state

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, H]` towards `target [B, E]`."""
        return self.evolve(states, self.attend(states, target, lengths), lengths)


def released(u: Tensor, a: Tensor) -> Tensor:
    """The update gate of the authors' code, of the gate `u [B, H]` and attention `a [B, 1]`."""
    return a + (1 - a) * u


class Walk(NamedTuple):
    """How the interest of one history evolves towards C candidates over its T steps."""

    attention: Tensor  # [C, T]
    update: Tensor  # [C, T] what the update gate came to under attention, mean over the hidden units
    moved: Tensor  # [C, T] length of the state's change
    logits: Tensor  # [C, T + 1] were this the final interest: before any step, then after each


class DienSplit(RecurrentSplit[Dien]):
    """Attention and evolution are one kernel; on a CPU with all tables in memory the whole network is one call.

    With the activation unit attention is not the kernel's, nor is the gate of the released code: the evolution is then
    walked in torch, step by step.
    """

    def item_maps(self) -> dict[str, Map]:
        """Those of a model with an extractor."""
        self._evolution = self.model.evolution.weights()
        return super().item_maps()

    @property
    def _in_kernels(self) -> bool:
        return self.config.attention == "bilinear" and self.config.cell != RELEASED

    def fuse(self) -> kernels.Fused | None:
        """The one call, where all of it is the kernels'."""
        if not self._in_kernels:
            return None
        names = "projected", "queries", "targets", "items"
        projected, queries, targets, items = (cast(Tensor, self.terms[name].table) for name in names)
        of_actions = self.projected_actions, self.actions
        tables = kernels.Tables(projected, queries, targets, items, *of_actions, self.of_pooled)
        layers, how = (self.extractor, self._evolution), self.runtime.precision
        return kernels.Fused(tables, *layers, self.head, cell=self.config.cell, precision=how)

    def final(self, rows: Rows) -> Tensor:
        """Final interests `[C, H]`."""
        states = self.keys(rows)
        if not self._in_kernels:
            return self._walked(states, rows)
        _, backend, precision, threads = self.runtime
        return kernels.evolve(
            states,
            rows.offsets,
            self.terms["queries"](rows.candidates),
            rows.history_of,
            self._evolution,
            cell=self.config.cell,
            backend=backend,
            precision=precision,
            threads=threads,
        )

    def _walked(self, states: Tensor, rows: Rows) -> Tensor:
        weights = self.attend(states, rows)  # [C, T]
        if not weights.numel():
            return states.new_zeros(len(weights), self.config.hidden)
        lengths = rows.offsets.diff()[rows.history_of]
        place = rows.offsets[rows.history_of] + torch.arange(weights.shape[1], device=weights.device).unsqueeze(1)
        return self.model.evolve(states[place.clamp(max=len(states) - 1)], weights.t(), lengths)  # [T, C, H] in

    def evolution(self, rows: Rows) -> Walk:
        """The evolution of `final` with every step kept, of a batch with one history: walked in torch."""
        states = self.keys(rows)
        attention = self.attend(states, rows)
        walked = [(states.new_zeros(0), states.new_zeros(len(attention), self.config.hidden))]
        walked += self._walk(states, attention)
        evolved = torch.stack([state for _, state in walked], dim=1)  # [C, T + 1, H]
        steps = evolved.shape[1]
        each = rows._replace(
            candidates=rows.candidates.repeat_interleave(steps), request_of=rows.request_of.repeat_interleave(steps)
        )
        logits = self._of_head(each, evolved.flatten(0, 1), self.pooled(rows)[rows.history_of_request])
        update = [u.mean(1) for u, _ in walked[1:]]
        return Walk(
            attention,
            torch.stack(update, dim=1) if update else torch.empty_like(attention),
            evolved.diff(dim=1).norm(dim=2),
            logits.view(-1, steps),
        )

    def _walk(self, states: Tensor, attention: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The update gate in effect and the state after it, `[C, H]` each, for each step."""
        weights, cell = self._evolution, self.config.cell
        state = states.new_zeros(len(attention), weights.hidden)
        for product, a in zip(states @ weights.w_input, attention.t().unsqueeze(2), strict=True):
            projected = (a * product if cell == "aigru" else product) + weights.bias
            u, c = gates(projected, state, weights)
            u = released(u, a) if cell == RELEASED else torch.as_tensor(effective(u, cell, a))
            state = torch.lerp(state, c, u)
            yield u, state
