"""What the head takes, and the checks of it.

The last net of a click model, with its first layer cut by what each term depends on: of its sums a term of the item and
one of the request are known, and are looked up; what is multiplied for every candidate is the product of its item's
embedding with its request's factors, and its final interest.

C candidates, R requests, I items, E width of an item's embedding, H hidden, W width of the first layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.contract import (
    KernelInputError,
    check_choice,
    check_floating,
    check_index,
    check_like,
    check_tensors,
    check_width,
)

ACTIVATIONS = ("dice", "prelu")
MAX_LAYERS = 64


class HeadLayer(NamedTuple):
    """One layer: s = inputs @ weight + bias, then s * (alpha + p * (1 - alpha)).

    p is sigmoid((s - mean) * scale) for "dice" (DIN eq. 3, scale = 1 / sqrt(variance)), and 1 above 0 and else 0 for
    "prelu", which does not read `mean` and `scale`.
    """

    weight: Tensor  # [inputs, outputs]
    bias: Tensor  # [outputs]
    alpha: Tensor  # [outputs]
    mean: Tensor  # [outputs]
    scale: Tensor  # [outputs]


class HeadWeights(NamedTuple):
    """Layers, first to last, and one output. The first layer has E + H inputs, the products before the interests."""

    layers: tuple[HeadLayer, ...]
    output: Tensor  # [outputs of the last layer]
    output_bias: Tensor  # [1]
    activation: str = "dice"

    def flat(self) -> list[Tensor]:
        """All tensors in order, as an operator takes them."""
        return [*(part for layer in self.layers for part in layer), self.output, self.output_bias]

    @staticmethod
    def of_flat(tensors: list[Tensor], activation: str) -> HeadWeights:
        """The inverse of `flat`."""
        size = len(HeadLayer._fields)
        if len(tensors) < size + 2 or len(tensors) % size != 2:
            raise KernelInputError(f"weights: {size} tensors for each layer and 2 of the output, not {len(tensors)}")
        layers = tuple(HeadLayer(*tensors[at : at + size]) for at in range(0, len(tensors) - 2, size))
        return HeadWeights(layers, tensors[-2], tensors[-1], activation)


class HeadInputs(NamedTuple):
    """The tensors of one call."""

    items: Tensor  # [I, W] of each item, its term of the first layer
    embeddings: Tensor  # [I, E]
    item_of: Tensor  # int64 [C] a row of these two
    requests: Tensor  # [R, W] of each request, its term of the first layer
    factors: Tensor  # [R, E] what its items' embeddings are multiplied with
    request_of: Tensor  # int64 [C] a row of these two
    final: Tensor  # [C, H] final interests


def check_head_weights(weights: HeadWeights) -> None:
    """Raise KernelInputError unless shapes, dtypes and devices fit together and every number is finite."""
    if not isinstance(weights, HeadWeights) or not all(isinstance(layer, HeadLayer) for layer in weights.layers):
        raise KernelInputError("weights: HeadWeights of HeadLayers")
    check_choice("weights.activation", weights.activation, ACTIVATIONS)
    if not 1 <= len(weights.layers) <= MAX_LAYERS:
        raise KernelInputError(f"weights.layers: from 1 to {MAX_LAYERS}, not {len(weights.layers)}")
    names = [f"weights.layers[{n}].{field}" for n in range(len(weights.layers)) for field in HeadLayer._fields]
    names += ["weights.output", "weights.output_bias"]
    tensors = weights.flat()
    check_tensors(tuple(names), *tensors)
    like = weights.layers[0].weight
    check_floating(names[0], like, "[inputs, outputs]")
    inputs = like.shape[0]
    for number, layer in enumerate(weights.layers):
        name = f"weights.layers[{number}]"
        check_like(f"{name}.weight", layer.weight, (inputs, None), like)
        check_width(f"{name}.weight", "inputs", inputs)
        inputs = layer.weight.shape[1]
        check_width(f"{name}.weight", "outputs", inputs)
        for field in HeadLayer._fields[1:]:
            check_like(f"{name}.{field}", getattr(layer, field), (inputs,), like)
    check_like("weights.output", weights.output, (inputs,), like)
    check_like("weights.output_bias", weights.output_bias, (1,), like)
    for name, tensor in zip(names, tensors, strict=True):
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            raise KernelInputError(f"{name}: every value finite, not {tensor[~finite][0].item()}")


def check_head(given: HeadInputs, weights: HeadWeights) -> None:
    """The contract of a call, but for values."""
    first = weights.layers[0].weight
    final = given.final
    if final.dim() != 2 or final.shape[1] >= first.shape[0]:
        raise KernelInputError(f"final: shape [C, H] with H below {first.shape[0]}, not {list(final.shape)}")
    candidates, hidden = final.shape
    inputs, width = first.shape
    check_like("final", final, (candidates, hidden), first)
    check_like("items", given.items, (None, width), first)
    check_like("embeddings", given.embeddings, (given.items.shape[0], inputs - hidden), first)
    check_like("requests", given.requests, (None, width), first)
    check_like("factors", given.factors, (given.requests.shape[0], inputs - hidden), first)
    for name, index in (("item_of", given.item_of), ("request_of", given.request_of)):
        check_index(name, index, first)
        if index.shape != (candidates,):
            raise KernelInputError(f"{name}: shape [{candidates}], not {list(index.shape)}")


def check_head_values(given: HeadInputs) -> None:
    """Raise KernelInputError for an index outside its tables. Waits for an accelerator once."""
    if not given.final.shape[0]:
        return
    ranges = [(given.item_of, given.items.shape[0]), (given.request_of, given.requests.shape[0])]
    if given.final.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # nothing can be read: capture only what a call outside has passed
    found = torch.stack([end for index, _ in ranges for end in torch.aminmax(index)]).tolist()
    for name, (_, rows), least, most in zip(("item_of", "request_of"), ranges, found[::2], found[1::2], strict=True):
        if least < 0 or most >= rows:
            wrong = least if least < 0 else most
            raise KernelInputError(f"{name}: from 0 to {rows - 1}, the rows of its tables, not {wrong}")
