"""DIN: the history weighted towards the target (Zhou et al., KDD 2018).

B rows, T steps, C candidates, N behaviours, E width of an item, A of an action.
"""

from __future__ import annotations

from torch import Tensor

from model.ragged import Rows
from model.zoo.network import Attending, weighted_sum
from model.zoo.split import AttendingSplit


class Din(Attending):
    """The final interest is the sum of the behaviours, each with its weight from the activation unit (DIN section 4.3).

    The unit's weights are not normalised: their sum tells how strong the interest is. They compare the target with the
    behaviour's item; what was done with it is a feature of the unit besides. Bilinear attention is a softmax.
    """

    def make_layers(self) -> None:
        """The attention over behaviours."""
        self.make_attention(self.behavior_width, mapped=False)
        self.normalized = self.config.attention == "bilinear"

    @property
    def final_width(self) -> int:
        """E + A."""
        return self.behavior_width

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `[B, E + A]` of `states [T, B, E + A]`, which are the behaviours."""
        return weighted_sum(self.attend(states, target, lengths), states)


class DinSplit(AttendingSplit[Din]):
    """Only the product's part of the unit's first layer, and what follows it, is computed for each pair."""

    def final(self, rows: Rows) -> Tensor:
        """Final interests `[C, E + A]`."""
        behaviors = self.behaviors(rows)
        return self.weighted_sum(self.attend(behaviors, rows), behaviors, rows)
