"""The two forms of attention of the zoo: how much each step of a history has to do with a target.

B rows, T steps, P real steps of all rows, E width of an item, Q width of a query, K of a key (which may be longer than
the query: what is compared then is the key's first Q), W width of the unit's first layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.layers import Mlp

UNIT = (80, 40)


class Bilinear(nn.Linear):
    """k W e (DIEN eq. 9 before its softmax); the module itself gives the query W e of a target."""

    def __init__(self, item: int, key: int) -> None:
        super().__init__(item, key, bias=False)

    def relevance(self, keys: Tensor, target: Tensor, real: Tensor) -> Tensor:
        """`[T, B]` of `keys [T, B, K]` and `target [B, E]`; anything where not `real [T, B]`."""
        query: Tensor = self(target)
        return (keys * query).sum(-1)


class UnitTerms(NamedTuple):
    """The unit's first layer, cut by what its terms depend on."""

    of_query: Tensor  # [Q, W]
    of_key: Tensor  # [K, W]
    of_product: Tensor  # [Q, W]
    bias: Tensor  # [W]


class ActivationUnit(nn.Module):
    """DIN's activation unit (DIN section 4.3): [q, k, q - k, q∘k] -> 80 -> 40 -> 1, with the activation of the head.

    The query is the target's embedding, or where keys are states a linear map of it to their width.
    """

    def __init__(self, item: int, key: int, activation: str, *, mapped: bool) -> None:
        super().__init__()
        self.map = nn.Linear(item, key, bias=False) if mapped else nn.Identity()
        self.query, self.key = (key if mapped else item), key
        self.net = Mlp(3 * self.query + key, UNIT, activation)

    def terms(self) -> UnitTerms:
        """The first layer's s = q A + k B + (q - k) C + q∘k D as q (A + C) + k (B - C) + q∘k D: half the products."""
        first: Tensor = self.net.layers[0].weight  # type: ignore[assignment]
        bias: Tensor = self.net.layers[0].bias  # type: ignore[assignment]
        of_query, of_key, of_gap, of_product = torch.split(first.t(), [self.query, self.key, self.query, self.query])
        shared, rest = of_key[: self.query] - of_gap, of_key[self.query :]
        return UnitTerms(of_query + of_gap, torch.cat([shared, rest]), of_product, bias)

    def relevance(self, keys: Tensor, target: Tensor, real: Tensor) -> Tensor:
        """`[T, B]` of `keys [T, B, K]` and `target [B, E]`; 0 where not `real [T, B]`, which Dice does not see."""
        terms, query = self.terms(), self.map(target)
        row = real.nonzero()[:, 1]
        key = keys[real]  # [P, K]
        first = (query @ terms.of_query + terms.bias)[row] + key @ terms.of_key
        first = first + (query[row] * key[:, : self.query]) @ terms.of_product
        found = self.net.after_first(first).to(keys.dtype)
        return keys.new_zeros(real.shape).index_put((real,), found)


def normalized(relevance: Tensor, real: Tensor) -> Tensor:
    """Softmax over real steps (DIEN eq. 9): `[T, B]`; all zero for an empty history."""
    # A finite filling: a row without a real step must give zeros, and -inf would give NaN there.
    weights = torch.softmax(relevance.masked_fill(~real, torch.finfo(relevance.dtype).min), dim=0)
    return weights * real
