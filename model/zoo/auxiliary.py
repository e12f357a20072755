"""The auxiliary loss (DIEN eq. 6-7), which any model of the zoo can have beside its own.

B rows, T steps, H hidden, E width of an item, A of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import Gru

Embed = Callable[[Tensor], Tensor]


class Following(NamedTuple):
    """What the auxiliary loss asks of the states, beside `Inputs.history`: which behaviours it should foretell."""

    chosen: Tensor  # bool [B, T] the behaviour is to be told as coming next
    negatives: Tensor  # int64 [B, T] rows of the catalogue: items not chosen then
    against: Tensor  # bool [B, T] the negative counts


class AuxiliaryNet(nn.Module):
    """How well a state foretells an item: a 100-50-1 net as in the released code, or the paper's inner product.

    The item alone, without what was done with it: that would give away which one was chosen. A model without interest
    states has a GRU over its behaviours here, which trains the embeddings and is not served.
    """

    def __init__(self, form: str, hidden: int, item: int, *, behavior: int | None = None) -> None:
        super().__init__()
        self.form = form
        if form == "net":
            self.of_state = nn.Linear(hidden, 100)
            self.of_item = nn.Linear(item, 100, bias=False)
            self.rest = nn.Sequential(nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 1))
        elif hidden != item:
            # The inner product wants one width; hidden is free of it, so items are mapped.
            self.map = nn.Linear(item, hidden, bias=False)
        if behavior is not None:
            self.extractor = Gru(behavior, hidden)

    def forward(self, states: Tensor, items: Tensor) -> Tensor:
        """Logits `[..., 1]` of `states [..., H]` and `items [..., E]`."""
        if self.form == "net":
            return self.rest(self.of_state(states) + self.of_item(items))  # type: ignore[no-any-return]
        mapped = self.map(items) if hasattr(self, "map") else items
        return (states * mapped).sum(-1, keepdim=True)


def auxiliary_loss(net: AuxiliaryNet, states: Tensor, items: Tensor, following: Following, embed: Embed) -> Tensor:
    """L_aux (DIEN eq. 7): each state tells what was chosen next from what was not, over real steps alone.

    `states [T-1, B, H]`; the embedded `items [T-1, B, E]` and the parts of `following`, each `[T-1, B]`, are those of
    the next step. With one negative for each positive this is the paper's mean over pairs; 0 when there is nothing to
    tell.
    """
    chosen, against = (part.nonzero(as_tuple=True) for part in (following.chosen, following.against))
    asked = tuple(map(torch.cat, zip(chosen, against, strict=True)))
    shown = torch.cat([items[chosen], embed(following.negatives[against])])
    told, told_not = net(states[asked], shown).split([len(chosen[0]), len(against[0])])
    # log σ(x) for what was chosen, log(1 - σ(x)) for what was not.
    gain = F.logsigmoid(told).sum() + F.logsigmoid(-told_not).sum()
    return -gain / max(len(shown) / 2, 1)
