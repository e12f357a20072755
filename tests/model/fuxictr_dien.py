"""FuxiCTR's DIEN in a few lines of our own, under its names of weights.

Its package asks for ray and polars and installs a top-level `tests`, which is why it is no part of the extra `peers`.
The equations are those of its `model_zoo/DIEN` and `model_zoo/LongCTR/DIEN` at 2.3.10, each history by itself, step by
step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """By moving statistics of each unit, without gain and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width, affine=False, eps=1e-9, momentum=0.01)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, s: Tensor) -> Tensor:
        p = torch.sigmoid(self.bn(s))
        return p * s + (1 - p) * self.alpha * s


class Cell(nn.Module):
    """One step of AUGRU or AGRU; gates u, r, n."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.x2h, self.h2h = (nn.Linear(width, 3 * width) for _ in range(2))

    def forward(self, x: Tensor, h: Tensor, a: Tensor, agru: bool) -> Tensor:
        (x_u, x_r, x_n), (h_u, h_r, h_n) = self.x2h(x).chunk(3, -1), self.h2h(h).chunk(3, -1)
        update = a if agru else a * torch.sigmoid(x_u + h_u)
        return h + update * (torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) - h)


class Evolving(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru_cell = Cell(width)


class Attention(nn.Module):
    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.form = form
        if form == "bilinear_attention":
            self.W_kernel = nn.Parameter(torch.eye(width))
        elif form == "din_attention":
            self.attn_mlp = Mlp(4 * width, (6,), "Dice", batch_norm=False)

    def forward(self, states: Tensor, target: Tensor) -> Tensor:
        if self.form == "din_attention":
            e = target.expand_as(states)
            logits = self.attn_mlp(torch.cat([e, states, e - states, e * states], -1)).squeeze(-1)
        else:
            logits = (states @ self.W_kernel if self.form == "bilinear_attention" else states) @ target
        weights: Tensor = logits.softmax(0)
        return weights


class Mlp(nn.Module):
    def __init__(self, inputs: int, widths: tuple[int, ...], activation: str, *, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Linear(inputs, width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            if activation == "PReLU":
                layers.append(nn.PReLU(width, init=0.1))
            else:
                layers.append(Dice(width) if activation == "Dice" else getattr(nn, activation)())
            inputs = width
        self.mlp = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.mlp(inputs)  # type: ignore[no-any-return]


class Tables(nn.Module):
    """`embedding_layers` by feature; one feature may share another's."""

    def __init__(self, sizes: dict[str, int], width: int, shared: dict[str, str]) -> None:
        super().__init__()
        self.embedding_layers = nn.ModuleDict(
            {name: nn.Embedding(size, width, padding_idx=0) for name, size in sizes.items()}
        )
        for name, other in shared.items():
            self.embedding_layers[name] = self.embedding_layers[other]


class Wrapped(nn.Module):
    """LongCTR's tables lie one module deeper."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.embedding_layer = tables


class FuxiDien(nn.Module):
    """`rows` are by feature [B], histories `hist_...` [B, T] with 0 past the length."""

    def __init__(
        self,
        sizes: dict[str, int],
        *,
        long: bool = False,
        width: int = 4,
        gru_type: str = "AUGRU",
        attention_type: str = "bilinear_attention",
        dnn_activations: str = "ReLU",
        batch_norm: bool = True,
        enable_sum_pooling: bool = False,
        groups: int = 1,
        own_table: bool = False,
    ) -> None:
        super().__init__()
        shared = {} if long else {"hist_item": "item", "neg_item": "item", "hist_category": "category"}
        if own_table:
            sizes = sizes | {"hist_category": sizes["category"]}
            del shared["hist_category"]
        tables = Tables(sizes, width, shared)
        self.embedding_layer = Wrapped(tables) if long else tables
        self.long, self.agru, self.pooling = long, long and gru_type == "AGRU", enable_sum_pooling
        item = 2 * width
        self.extraction_modules = nn.ModuleList(nn.GRU(item, item, batch_first=True) for _ in range(groups))
        self.evolving_modules = nn.ModuleList(Evolving(item) for _ in range(groups))
        self.attention_modules = nn.ModuleList(Attention(item, attention_type) for _ in range(groups))
        inputs = item + 4 * width + 2 * item * enable_sum_pooling
        self.dnn = Mlp(inputs, (6, 5), dnn_activations, batch_norm=batch_norm)

    def embed(self, feature: str, rows: Tensor, history: bool = False) -> Tensor:
        tables = self.embedding_layer.embedding_layer if self.long else self.embedding_layer
        name = f"hist_{feature}" if history and not self.long else feature
        return tables.embedding_layers[name](rows)  # type: ignore[no-any-return, union-attr, index, operator]

    def final(self, behaviors: Tensor, target: Tensor) -> Tensor:
        """Of one history `[T, E]` as long as it is."""
        h = torch.zeros_like(target)
        if len(behaviors):
            states = self.extraction_modules[0](behaviors.unsqueeze(0))[0][0]
            for state, a in zip(states, self.attention_modules[0](states, target), strict=True):
                h = self.evolving_modules[0].gru_cell(state, h, a, self.agru)  # type: ignore[operator]
        return h

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        """Click probabilities [B]."""
        items = ("item", "category")
        target = torch.cat([self.embed(name, rows[name]) for name in items], -1)
        behaviors = torch.cat([self.embed(name, rows[f"hist_{name}"], history=True) for name in items], -1)
        lengths = (rows["hist_item"] > 0).sum(1).tolist()
        final = torch.stack([self.final(behaviors[n, :length], target[n]) for n, length in enumerate(lengths)])
        user, tab = (self.embed(name, rows[name]) for name in ("user", "tab"))
        parts = [user, tab, target, final] if self.long else [final, user, target, tab]
        if self.pooling:
            parts += [behaviors.sum(1), target * behaviors.sum(1)]
        return torch.sigmoid(self.dnn(torch.cat(parts, -1))).squeeze(-1)
