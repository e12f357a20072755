"""What training minimises."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from model.batches import Batch
from model.zoo import Network


class Objective(nn.Module):
    """What is minimised. `served` is the model whose dev AUC decides which weights are kept."""

    served: Network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses by name; `loss` is their weighted sum."""
        raise TypeError(f"{type(self).__name__} must say what it minimises")

    def parameter_groups(self, embedding_decay: float) -> list[dict[str, Any]]:
        """Parameters for the optimiser."""
        return self.served.parameter_groups(embedding_decay)


class ClickObjective(Objective):
    """L = L_target + α·L_aux (DIEN eq. 8)."""

    def __init__(self, model: Network, auxiliary_weight: float) -> None:
        super().__init__()
        self.served, self.auxiliary_weight = model, auxiliary_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`target` and, where the model has one, `auxiliary`."""
        return weighted(self.served.losses(batch.inputs, batch.following, batch.clicks), self.auxiliary_weight)


def weighted(losses: dict[str, Tensor], auxiliary_weight: float) -> dict[str, Tensor]:
    """Adds `loss` (DIEN eq. 8) to a model's losses."""
    total = losses["target"]
    if "auxiliary" in losses:
        total = total + auxiliary_weight * losses["auxiliary"]
    return losses | {"loss": total}
