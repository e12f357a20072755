"""Wide&Deep: BaseModel's deep net and a linear model of crossed features (Cheng et al., DLRS 2016).

B rows, R requests, C candidates, T steps, E width of an item, A of an action, K of interests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.embeddings import Inputs
from model.ragged import Rows
from model.zoo.network import Network
from model.zoo.split import Map, Split

WIDE = ("target", "pooled", "crossed")


class WideDeep(Network):
    """The logits of both added; the wide one is linear in target, pooled history and their product."""

    def make_layers(self) -> None:
        """The wide part."""
        self.wide = nn.Linear(2 * self.embeddings.item_width + self.behavior_width, 1)

    def logits(self, inputs: Inputs, behaviors: Tensor, states: Tensor) -> Tensor:
        """Logits `[B]` from `behaviors [T, B, E + A]` and interests `[T, B, K]`."""
        features = self.features(inputs, behaviors, states)
        deep: Tensor = self.head(torch.cat([features[part] for part in self.parts], dim=-1))
        wide: Tensor = self.wide(torch.cat([features[part] for part in WIDE], dim=-1))
        return deep + wide.squeeze(-1)


class WideDeepSplit(Split[WideDeep]):
    """The wide part's item term is a table of one column, the request's is added once, the product's for each."""

    def item_maps(self) -> dict[str, Map]:
        """The wide part's weights of the item, and of its product with the history."""
        item, weight = self.model.embeddings.item_width, self.model.wide.weight[0]
        of_target, self._wide_pooled, of_crossed = torch.split(weight, [item, len(weight) - 2 * item, item])
        self._wide_crossed = of_crossed
        return {"wide": (of_target.unsqueeze(1), self.model.wide.bias)}

    def logits(self, rows: Rows) -> Tensor:
        """Logits `[C]`."""
        pooled = self.pooled(rows)[rows.history_of_request]
        items = self.terms["items"](rows.candidates)
        factors = (pooled[:, : items.shape[1]] * self._wide_crossed)[rows.request_of]
        wide = self.terms["wide"](rows.candidates).squeeze(1) + (pooled @ self._wide_pooled)[rows.request_of]
        return self._of_head(rows, self.final(rows), pooled) + wide + (items * factors).sum(1)
