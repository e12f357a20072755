"""The head: what one writes in torch, the same with its first layer cut, and ours. A batch has one request a user.

R requests, C candidates, E width of an item's embedding, S of what a request adds, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from kernels import native
from kernels.bench.case import HEAD_EMBEDDING, HEAD_SIDE, HEAD_WIDTHS, Case
from kernels.bench.contender import CannotRunError, Contender, Prepared
from kernels.bench.ours import name
from kernels.heads import HeadInputs, HeadLayer, HeadWeights
from kernels.ops import head, prepare_head
from kernels.reference import activate

ITEMS = 10_000


class Net:
    """The whole net with Dice, as a model has it: its first layer reads [request | item | crossed | interest]."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator) * 2 - 1

        hidden, requests = case.weights.hidden, len(case.offsets) - 1
        inputs, layers = HEAD_SIDE + 2 * HEAD_EMBEDDING + hidden, []
        for width in HEAD_WIDTHS:
            parts = uniform(inputs, width) * inputs**-0.5, uniform(width) * 0.1, uniform(width) * 0.5
            layers.append(HeadLayer(*parts, mean=uniform(width) * 0.1, scale=1 + 0.5 * uniform(width)))
            inputs = width
        self.weights = HeadWeights(tuple(layers), uniform(inputs) * inputs**-0.5, uniform(1) * 0.1)
        self.items, self.requests = uniform(ITEMS, HEAD_EMBEDDING), uniform(requests, HEAD_SIDE)
        self.item_of = torch.randint(0, ITEMS, (len(case.user_of),), generator=generator)
        self.request_of, self.final = case.user_of, torch.tanh(case.queries)

    def factors(self) -> Tensor:
        """What items are multiplied with: a part of the request's own `[R, E]`."""
        return self.requests[:, :HEAD_EMBEDDING].contiguous()

    def cut(self, dtype: torch.dtype = torch.float32) -> tuple[HeadInputs, HeadWeights]:
        """What `kernels.head` takes: the terms of item and request known, the rest of the first layer as weights."""
        flat = [part.to(dtype) for part in self.weights.flat()]
        weights = HeadWeights.of_flat(flat, self.weights.activation)
        first = weights.layers[0]
        of_request, of_item, rest = torch.split(
            first.weight, [HEAD_SIDE, HEAD_EMBEDDING, len(first.weight) - HEAD_SIDE - HEAD_EMBEDDING]
        )
        items, requests = self.items.to(dtype), self.requests.to(dtype)
        given = HeadInputs(
            items @ of_item,
            items,
            self.item_of,
            requests @ of_request,
            self.factors().to(dtype),
            self.request_of,
            self.final.to(dtype),
        )
        return given, weights._replace(layers=(first._replace(weight=rest.contiguous()), *weights.layers[1:]))


def due(case: Case) -> Tensor:
    """Logits `[C]` of the reference in float64."""
    given, weights = Net(case).cut(torch.float64)
    return head(*given, prepare_head(weights, backend="reference"))


def eager(case: Case) -> Prepared:
    """All inputs of all candidates end to end, then the layers."""
    net = Net(case)
    weights, factors = net.weights, net.factors()

    def call() -> Tensor:
        target = net.items[net.item_of]
        crossed = target * factors[net.request_of]
        x = torch.cat([net.requests[net.request_of], target, crossed, net.final], dim=1)
        for layer in weights.layers:
            x = activate(torch.addmm(layer.bias, x, layer.weight), layer, weights.activation)
        return x @ weights.output + weights.output_bias

    return Prepared(call)


def _ours(backend: str, isa: str = "") -> Callable[[Case], Prepared]:
    def prepare(case: Case) -> Prepared:
        reason = native.unavailable() if isa else None
        if isa and reason is None and isa not in native.isas():
            reason = f"this CPU has no {isa}"
        if reason:
            raise CannotRunError(reason)
        given, weights = Net(case).cut()
        prepared = prepare_head(weights, backend=backend)

        def call() -> Tensor:
            return head(*given, prepared, threads=1)

        return Prepared(call, around=lambda: native.use_isa(isa)) if isa else Prepared(call)

    return prepare


def contenders(isas: Iterable[str]) -> dict[str, Contender]:
    """Torch first; ours by instruction set, on one thread."""
    found = {
        "head-eager": Contender(eager, "torch: all inputs of each candidate end to end, then the layers", due=due),
        "head-reference": Contender(_ours("reference"), "kernels.head in eager torch: first layer cut", due=due),
    }
    for isa in isas:
        found[name("exact", isa)] = Contender(
            _ours("native", isa), f"C++, {isa}, one thread", due=due, threads=1, isa=isa, precision="exact", ours=True
        )
    return found
