"""Heads of other libraries as ours: linear layers with PReLU or Dice between, and one output.

I inputs, W units of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ConfigError
from model.convert.refusal import Refusals
from model.convert.state import State
from model.layers import Dice

SLOPES = {"relu": 0.0, "leakyrelu": 0.01, "identity": 1.0, "linear": 1.0}  # of a PReLU that is the same function
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
EPSILON = 1e-5  # of torch's BatchNorm1d


@dataclass(frozen=True, slots=True)
class DiceUnits:
    """Dice by its moving statistics, each `[W]`."""

    alpha: Tensor
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer, `[W, I]` and `[W]`, and what follows: PReLU's slopes `[W]`, Dice, or nothing for the output."""

    weight: Tensor
    bias: Tensor
    activation: Tensor | DiceUnits | None = None

    @property
    def units(self) -> int:
        """W."""
        return len(self.bias)


def batch_norm_folded(layer: Layer, state: State, prefix: str, epsilon: float = EPSILON) -> Layer:
    """The layer with the BatchNorm after it, which in inference is an affine map of each unit."""
    state.skip(f"{prefix}num_batches_tracked")
    gain, shift, mean, variance = (state.take(f"{prefix}{name}", layer.units) for name in BATCH_NORM)
    gain = gain / torch.sqrt(variance + epsilon)
    return Layer(layer.weight * gain.unsqueeze(1), (layer.bias - mean) * gain + shift)


def named_activation(name: object, units: int, part: str, refusals: Refusals) -> Tensor:
    """Slopes `[W]` of a PReLU that computes the same as an activation without weights."""
    if str(name).lower() in ("dice", "prelu"):
        raise ConfigError(f"{part}={name!r}: the checkpoint has no weights of such an activation; state the one it has")
    slope = 1.0 if name is None else SLOPES.get(str(name).lower())
    if slope is None:
        refusals.add(part, f"the activation {name!r}", "it in its head, which has PReLU (so ReLU, too) and Dice")
    return torch.full((units,), slope or 0.0, dtype=torch.float64)


def prelu(state: State, name: str, units: int) -> Tensor:
    """Slopes `[W]` of a PReLU that has one for each unit, or one for all."""
    slopes = state.take(name, None)
    return slopes.expand(units) if len(slopes) == 1 else state.take(name, units)


def dice(state: State, prefix: str, units: int, epsilon: float, refusals: Refusals) -> DiceUnits:
    """Dice over a BatchNorm of `epsilon`: p = σ(γ (s - E) / √(V + ε) + β), our σ((s - E') / √(V' + ε')) if γ > 0."""
    state.skip(f"{prefix}bn.num_batches_tracked")
    alpha = state.take(f"{prefix}alpha", units)
    mean, variance = (state.take(f"{prefix}bn.{name}", units) for name in BATCH_NORM[2:])
    deviation = torch.sqrt(variance + epsilon)
    if f"{prefix}bn.weight" in state:
        gain, shift = (state.take(f"{prefix}bn.{name}", units) for name in BATCH_NORM[:2])
        if not (gain > 0).all():
            refusals.add(
                f"{prefix}bn.weight",
                f"Dice of a gain of {gain.min():.3g}",
                "a gain in its Dice (above 0 it needs none)",
            )
            gain = torch.ones_like(gain)
        deviation, mean = deviation / gain, mean - shift * deviation / gain
    ours = deviation**2 - Dice(1).epsilon
    if not (ours >= 0).all():
        refusals.add(f"{prefix}bn", f"Dice over a deviation of {deviation.min():.3g}", "a smaller epsilon in its Dice")
    return DiceUnits(alpha, mean, ours)


def refuse_other_inputs(state: State, first: str, inputs: int, refusals: Refusals) -> None:
    """Refuse a first layer that reads more than the final interest and the columns, `inputs` in all."""
    more = state.columns(first) - inputs if state.rank(first) == 2 else 0
    if more > 0:
        refusals.add(
            first,
            f"{more} inputs beside the final interest and the columns: dense features, pooled sequences, or columns "
            "that were not stated",
            "those inputs; it reads sparse features, each a column",
        )
        refusals.check()


def one_kind(layers: Sequence[Layer], part: str, refusals: Refusals) -> None:
    """Refuse a head that has Dice in some layers and not in others."""
    if len({isinstance(layer.activation, DiceUnits) for layer in layers if layer.activation is not None}) > 1:
        refusals.add(part, "Dice in some layers, not in others", "an activation for each layer of its head")


@dataclass(frozen=True, slots=True)
class Sequential:
    """A head that is an `nn.Sequential` of Linear, BatchNorm, activation, Dropout, read by what weights a place has."""

    prefix: str
    setting: str  # that names its activations, where these have no weights
    activations: object  # a name for all layers, or a list with one for each
    dice_epsilon: float

    def layers(self, state: State, inputs: int, refusals: Refusals) -> list[Layer]:
        """Its layers, the output last."""
        places = sorted({int(name.removeprefix(self.prefix).split(".")[0]) for name in state.under(self.prefix)})
        linear = [place for place in places if state.rank(f"{self.prefix}{place}.weight") == 2]
        if not linear or linear[0] != places[0]:
            state.take(f"{self.prefix}{places[0] if places else 0}.weight", None, inputs)  # it is missing
        layers: list[Layer] = []
        for number, (place, following) in enumerate(zip(linear, [*linear[1:], None], strict=True)):
            width = None if following else 1
            weight = state.take(f"{self.prefix}{place}.weight", width, layers[-1].units if layers else inputs)
            bias = f"{self.prefix}{place}.bias"
            layer = Layer(weight, state.take(bias, len(weight)) if bias in state else weight.new_zeros(len(weight)))
            if following:
                between = [f"{self.prefix}{one}." for one in places if place < one < following]
                layer = self._activated(state, layer, between, number, refusals)
            layers.append(layer)
        one_kind(layers, f"settings.{self.setting}", refusals)
        return layers

    def _activated(self, state: State, layer: Layer, between: list[str], number: int, refusals: Refusals) -> Layer:
        found: Tensor | DiceUnits | None = None
        for place in between:
            if f"{place}running_mean" in state:
                layer = batch_norm_folded(layer, state, place)
            elif f"{place}bn.running_mean" in state:
                found = dice(state, place, layer.units, self.dice_epsilon, refusals)
            elif f"{place}alpha" in state:
                state.skip(place)
                found = torch.zeros_like(layer.bias)
                refusals.add(
                    f"{place}alpha",
                    "Dice by mean and deviation over one row's units: p = σ((s - mean s) / √Σ((s - mean s)² + ε))",
                    "such a Dice in its head; it has the paper's, by moving statistics of each unit",
                )
            else:
                found = prelu(state, f"{place}weight", layer.units)
        if found is None:
            named = self.activations
            if isinstance(named, list):
                named = named[number] if number < len(named) else None
            found = named_activation(named, layer.units, f"settings.{self.setting}", refusals)
        return Layer(layer.weight, layer.bias, found)
