"""Two-layer GRU + attention: a row of the comparison in DIEN's table 2.

B rows, T steps, C candidates, N behaviours, H hidden.
"""

from __future__ import annotations

from torch import Tensor

from model.layers import Gru
from model.ragged import Rows
from model.zoo.network import Recurrent, interest_states, weighted_sum
from model.zoo.split import Map, RecurrentSplit


class GruAttention(Recurrent):
    """A second GRU over the interest states; the final interest is the sum of its states weighted by attention to them.

    The paper says no more than the name; so does the code its authors released ("DIN-V2-gru-gru-att"). The auxiliary
    loss asks the first GRU's states.
    """

    def make_layers(self) -> None:
        """The second layer besides."""
        super().make_layers()
        self.second = Gru(self.config.hidden, self.config.hidden, inner_bias=self.config.inner_bias)

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `[B, H]` of the second layer's states over `states [T, B, H]`."""
        upper = interest_states(self.second, states, lengths)
        return weighted_sum(self.attend(upper, target, lengths), upper)


class GruAttentionSplit(RecurrentSplit[GruAttention]):
    """The states of both layers are computed once for a user: for each candidate there is attention alone."""

    def item_maps(self) -> dict[str, Map]:
        """Those of a model with an extractor."""
        self._second = self.model.second.weights()
        return super().item_maps()

    def keys(self, rows: Rows) -> Tensor:
        """The second layer's states `[N, H]`."""
        return self.states(super().keys(rows), rows, self._second)

    def final(self, rows: Rows) -> Tensor:
        """Final interests `[C, H]`."""
        upper = self.keys(rows)
        return self.weighted_sum(self.attend(upper, rows), upper, rows)
