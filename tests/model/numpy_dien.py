"""DIEN's equations written once more, from the paper: float64, one user at a time, no padding, plain loops.

Nothing of the model is used but its weights, by their names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from model.data.dataset import IntArray

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One impression: rows of tables, the history without padding."""

    user: int
    context: Sequence[int]
    target: int
    history: Sequence[int]
    actions: Sequence[int]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def weights_of(module: nn.Module) -> dict[str, Array]:
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def gate_step(x: Array, h: Array, weights: dict[str, Array], cell: str, a: float) -> Array:
    """One step (eq. 2-5, 13, 15): `x [3H]` is the input's part of the three gates, bias included."""
    hidden, recurrent = len(h), weights["w_recurrent"]
    products = [h @ recurrent[:, n * hidden : (n + 1) * hidden] for n in range(3)]
    update = sigmoid(x[:hidden] + products[0])
    reset = sigmoid(x[hidden : 2 * hidden] + products[1])
    new = np.tanh(x[2 * hidden :] + reset * (products[2] + weights.get("bias_candidate", 0.0)))
    update = {"gru": update, "augru": a * update, "agru": np.full(hidden, a)}[cell]
    after: Array = (1 - update) * h + update * new
    return after


def interest_states(weights: dict[str, Array], inputs: Array) -> Array:
    """The extractor's states `[T, H]` of `inputs [T, I]` (eq. 2-5)."""
    state, states = np.zeros(len(weights["w_recurrent"])), []
    for i in inputs:
        state = gate_step(i @ weights["w_input"] + weights["bias"], state, weights, "gru", 1.0)
        states.append(state)
    return np.array(states).reshape(len(inputs), len(state))


def attention(states: Array, w: Array, target: Array) -> Array:
    """`a_t` of each real step (eq. 9); `w [H, E]`."""
    if not len(states):
        return np.zeros(0)
    exponents = np.array([h @ w @ target for h in states])
    powers: Array = np.exp(exponents - exponents.max())
    return np.asarray(powers / powers.sum())


def final_interest(weights: dict[str, Array], states: Array, a: Array, cell: str) -> Array:
    """The last state of interest evolution (section 3.3): AIGRU (eq. 10-11), AGRU (eq. 13), AUGRU (eq. 15)."""
    state = np.zeros(len(weights["w_recurrent"]))
    for h, a_t in zip(states, a, strict=True):
        i = a_t * h if cell == "aigru" else h
        x = i @ weights["w_input"] + weights["bias"]
        state = gate_step(x, state, weights, "gru" if cell == "aigru" else cell, a_t)
    return state


def head(weights: dict[str, Array], inputs: Array, layers: int, kind: str) -> float:
    """The MLP, with Dice as at inference (DIN eq. 3) or PReLU."""
    s = inputs
    for n in range(layers):
        s = weights[f"layers.{n}.weight"] @ s + weights[f"layers.{n}.bias"]
        if kind == "dice":
            mean, variance = weights[f"activations.{n}.mean"], weights[f"activations.{n}.variance"]
            p = sigmoid((s - mean) / np.sqrt(variance + 1e-8))
            s = p * s + (1 - p) * weights[f"activations.{n}.alpha"] * s
        else:
            s = np.where(s > 0, s, weights[f"activations.{n}.weight"] * s)
    return float((weights["output.weight"] @ s + weights["output.bias"])[0])


class NumpyDien:
    """A whole DIEN from a state dictionary."""

    def __init__(self, model: nn.Module, item_rows: IntArray, item_fields: Sequence[str], context: Sequence[str]):
        self.all = weights_of(model)
        self.item_rows, self.item_fields, self.context_fields = item_rows, item_fields, context

    def part(self, name: str) -> dict[str, Array]:
        return {key.removeprefix(name + "."): value for key, value in self.all.items() if key.startswith(name + ".")}

    def table(self, name: str) -> Array:
        return self.all[f"embeddings.tables.{name}.weight"]

    def item(self, row: int) -> Array:
        fields = self.item_rows[row]
        return np.concatenate([self.table(name)[fields[n]] for n, name in enumerate(self.item_fields)])

    def behaviors(self, row: Row) -> Array:
        """`[T, E + A]`."""
        with_actions = "embeddings.tables.action.weight" in self.all
        steps = []
        for item, action in zip(row.history, row.actions, strict=True):
            parts = [self.item(item), self.table("action")[action]] if with_actions else [self.item(item)]
            steps.append(np.concatenate(parts))
        width = self.part("extractor")["w_input"].shape[0]
        return np.array(steps).reshape(len(steps), width)

    def logit(self, row: Row, cell: str, layers: int, kind: str, steps: int | None = None) -> float:
        """As if interest evolution ended after so many steps; None: after all."""
        behaviors, target = self.behaviors(row), self.item(row.target)
        states = interest_states(self.part("extractor"), behaviors)
        a = attention(states, self.all["attention.weight"], target)
        final = final_interest(self.part("evolution"), states[:steps], a[:steps], cell)
        pooled = np.zeros(behaviors.shape[1])
        for behavior in behaviors:
            pooled = pooled + behavior / len(behaviors)
        side = [self.table("user_id")[row.user]] if "embeddings.tables.user_id.weight" in self.all else []
        side += [self.table(name)[row.context[n]] for n, name in enumerate(self.context_fields)]
        features = np.concatenate([*side, target, pooled, target * pooled[: len(target)], final])
        return head(self.part("head"), features, layers, kind)

    def foretells(self, form: str, state: Array, item: Array) -> float:
        """The auxiliary loss's logit of one state and one item, in either form."""
        w = self.part("auxiliary")
        if form == "net":
            first = np.maximum(w["of_state.weight"] @ state + w["of_state.bias"] + w["of_item.weight"] @ item, 0)
            second = np.maximum(w["rest.1.weight"] @ first + w["rest.1.bias"], 0)
            return float((w["rest.3.weight"] @ second + w["rest.3.bias"])[0])
        return float(state @ (w["map.weight"] @ item if "map.weight" in w else item))

    def auxiliary_loss(
        self,
        form: str,
        rows: Sequence[Row],
        chosen: Sequence[Sequence[bool]],
        negatives: Sequence[Sequence[int]],
        against: Sequence[Sequence[bool]],
    ) -> float:
        """Eq. 7 over all real steps that have a next one; with one negative each, the mean over pairs."""
        total, terms = 0.0, 0
        for n, row in enumerate(rows):
            states = interest_states(self.part("extractor"), self.behaviors(row))
            for t in range(len(states) - 1):
                if chosen[n][t + 1]:
                    total -= math.log(sigmoid(self.foretells(form, states[t], self.item(row.history[t + 1]))))
                    terms += 1
                if against[n][t + 1]:
                    total -= math.log(1 - sigmoid(self.foretells(form, states[t], self.item(negatives[n][t + 1]))))
                    terms += 1
        return total / max(terms / 2, 1)
