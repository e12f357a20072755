"""Heads and networks with random weights, for the tests of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import Batch, GruWeights, HeadLayer, HeadWeights, Tables
from kernels.heads import HeadInputs

WIDTHS = [
    (54, 32, (200, 80)),
    (5, 8, (12, 7)),
    (1, 1, (1,)),
    (18, 33, (17, 64, 3)),
    (7, 4, (300,)),
    (3, 5, (48, 16, 32)),
]


class Random:
    """Normal numbers, the same for a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self._generator)

    def rows(self, count: int, size: int) -> Tensor:
        return torch.randint(0, size, (count,), generator=self._generator)


def made_head(
    embedding: int, hidden: int, widths: tuple[int, ...], activation: str = "dice", seed: int = 0
) -> HeadWeights:
    random, inputs = Random(seed), embedding + hidden
    layers = []
    for width in widths:
        weight = random(inputs, width, scale=inputs**-0.5)
        bias, alpha, mean = (random(width, scale=0.3) for _ in range(3))
        layers.append(HeadLayer(weight, bias, alpha, mean, random(width).abs() + 0.5))
        inputs = width
    return HeadWeights(tuple(layers), random(inputs, scale=inputs**-0.5), random(1), activation)


def made_inputs(
    candidates: int, embedding: int, hidden: int, width: int, *, items: int = 50, requests: int = 3
) -> HeadInputs:
    random = Random(candidates)
    return HeadInputs(
        items=random(items, width),
        embeddings=random(items, embedding),
        item_of=random.rows(candidates, items),
        requests=random(requests, width),
        factors=random(requests, embedding),
        request_of=random.rows(candidates, requests),
        final=torch.tanh(random(candidates, hidden)),
    )


def double(given: Any) -> Any:
    """Tensors, tuples of them and what else there is, in float64."""
    if isinstance(given, Tensor):
        return given.double() if given.is_floating_point() else given
    if isinstance(given, tuple):
        return type(given)(*map(double, given)) if hasattr(given, "_fields") else tuple(map(double, given))
    return given


class Network:
    """All that a whole network holds, and a batch for it: histories of 0, 1 and more steps, one of them shared."""

    side_features, actions, action_embedding = 3, 4, 6

    def __init__(
        self, hidden: int = 32, embedding: int = 9, width: int = 40, *, with_actions: bool = True, **head: Any
    ) -> None:
        random, items = Random(hidden), 30
        behavior = embedding + (self.action_embedding if with_actions else 0)

        def layer(inputs: int) -> GruWeights:
            shapes = [(inputs, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,), (hidden,)]
            return GruWeights(*(random(*shape, scale=hidden**-0.5) for shape in shapes))

        self.extractor, self.evolution = layer(behavior), layer(hidden)
        self.head = made_head(embedding, hidden, (width, 11), **head)
        self.tables = Tables(
            projected=random(items, 3 * hidden),
            queries=random(items, hidden, scale=2 * hidden**-0.5),
            targets=random(items, width),
            embeddings=random(items, embedding),
            projected_actions=random(self.actions, 3 * hidden) if with_actions else None,
            action_embeddings=random(self.actions, self.action_embedding) if with_actions else None,
            of_pooled=random(behavior, width, scale=behavior**-0.5),
        )
        self.side_table = random(10, width)
        lengths, requests = [5, 0, 63, 1, 20], np.array([0, 1, 2, 3, 4, 2, 0])
        counts = [7, 3, 70, 1, 0, 30, 5]
        request_of = np.repeat(np.arange(len(requests)), counts)
        self.batch = Batch(
            behaviors=random.rows(sum(lengths), items).numpy(),
            actions=random.rows(sum(lengths), self.actions).numpy(),
            offsets=np.cumsum([0, *lengths]),
            candidates=random.rows(len(request_of), items).numpy(),
            history_of=requests[request_of],
            request_of=request_of,
            history_of_request=requests,
            side=random.rows(len(requests) * self.side_features, 10).numpy().reshape(len(requests), -1),
        )
