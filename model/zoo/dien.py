"""DIEN, and GRU + AUGRU, AGRU, AIGRU: interest evolution towards the target (Zhou et al., AAAI 2019).

B rows, T steps, C candidates, N behaviours, H hidden.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

import kernels
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
        both = 2 * weights.hidden
        state = states.new_zeros(states.shape[1], weights.hidden)
        for projected, a, alive in zip(states @ weights.w_input + weights.bias, attention, real, strict=True):
            product, scale = state @ weights.w_recurrent, a.unsqueeze(-1)
            u, r = torch.sigmoid(projected[:, :both] + product[:, :both]).chunk(2, dim=-1)
            c = torch.tanh(projected[:, both:] + r * (product[:, both:] + weights.bias_candidate))
            state = torch.lerp(state, c, alive * (scale + (1 - scale) * u))
        return state

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, H]` towards `target [B, E]`."""
        return self.evolve(states, self.attend(states, target, lengths), lengths)


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
