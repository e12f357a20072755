"""DeepCTR-Torch's DIEN (`deepctr_torch.models.dien`, read at 0.3.0).

A GRU, an activation unit as attention and, by `gru_type`, a second recurrent layer, all as wide as an item. Its AUGRU
has the paper's gate. Head: [final interest, sparse features, dense features] through Linear, BatchNorm, activation; no
linear part of features: its last layer is `linear`, with the bias of `out`.

E width of an item, H = E hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import GruWeights
from model.config import ConfigError
from model.convert.description import Description
from model.convert.head import Layer, batch_norm_folded, dice, named_activation, one_kind, prelu, refuse_other_inputs
from model.convert.peer import FINAL, PeerDien, take_tables, width
from model.convert.recurrent import gated, torch_gru
from model.convert.refusal import Refusals
from model.convert.state import State

SETTINGS = frozenset({"gru_type", "dnn_activation", "att_activation", "att_weight_normalization", "task"})
CELLS = {"AUGRU": "augru", "AGRU": "agru", "AIGRU": "aigru"}
EVOLUTION = "interest_evolution.interest_evolution."
ATTENTION = "interest_evolution.attention.local_att."
DICE_EPSILON = 1e-8


def read(state: State, described: Description, refusals: Refusals) -> PeerDien:
    """A checkpoint's DIEN. Raises ConfigError for one that is not the description's, NotExpressibleError."""
    _settings(described, refusals)
    tables = take_tables(state, "embedding_dict.", described)
    query = [column for column in described.columns if column.name in described.history]
    hidden = width(tables, query)
    extractor = torch_gru(state, "interest_extractor.gru.", hidden, hidden)
    state.skip("interest_extractor.auxiliary_net.")
    linear_attention = described.setting("att_activation", "relu") == "linear"
    attention, key_term = _attention(state, hidden) if linear_attention else (torch.zeros(hidden, hidden), None)
    if not linear_attention:
        state.skip(ATTENTION)
    gru_type = described.setting("gru_type", "GRU")
    inputs = hidden + width(tables, described.columns)
    return PeerDien(
        tables=tables,
        extractor=extractor,
        evolution=_evolution(state, gru_type, hidden),
        cell=CELLS.get(gru_type, "augru"),
        query=tuple(column.name for column in query),
        attention=attention,
        key_term=key_term,
        order=(FINAL, *(column.name for column in described.columns)),
        head=_head(state, inputs, described.setting("dnn_activation", "relu"), refusals),
    )


def _settings(described: Description, refusals: Refusals) -> None:
    gru_type = described.setting("gru_type", "GRU")
    if gru_type not in ("GRU", *CELLS):
        raise ConfigError(f"settings.gru_type={gru_type!r}: one of GRU, {', '.join(CELLS)}")
    if gru_type == "GRU":
        refusals.add(
            "settings.gru_type='GRU' (its default)",
            "attention after the second GRU, whose states it sums",
            "such a sum in place of the final state; it has AUGRU, AGRU and AIGRU",
        )
    activation = described.setting("att_activation", "relu")
    if activation != "linear":
        refusals.add(
            f"{ATTENTION[:-1]} (settings.att_activation={activation!r})",
            "attention by an activation unit, a network over [q, h, q - h, q∘h]",
            "that form of attention; it has a = softmax(h W e), which an activation unit is only where it is linear",
        )
    if described.setting("att_weight_normalization", True) is not True:
        refusals.add(
            "settings.att_weight_normalization=False",
            "attention that is not normalised, without a softmax",
            "attention without the softmax",
        )
    if described.setting("task", "binary") != "binary":
        refusals.add(
            f"settings.task={described.settings['task']!r}", "no sigmoid at the end", "scores without a sigmoid"
        )


def _attention(state: State, hidden: int) -> tuple[Tensor, Tensor]:
    """A linear activation unit: w_q·q + w_h·h + w_d·(q - h) + w_p·(q∘h) + c. What h has no part in, softmax cancels."""
    product = torch.eye(4 * hidden, dtype=torch.float64)
    number = 0
    while f"{ATTENTION}dnn.linears.{number}.weight" in state:
        product = state.take(f"{ATTENTION}dnn.linears.{number}.weight", None, len(product)) @ product
        state.take(f"{ATTENTION}dnn.linears.{number}.bias", len(product))
        number += 1
    state.take(f"{ATTENTION}dense.bias", 1)
    _, key, difference, crossed = (state.take(f"{ATTENTION}dense.weight", 1, len(product)) @ product)[0].chunk(4)
    return torch.diag(crossed), key - difference


def _evolution(state: State, gru_type: str, hidden: int) -> GruWeights:
    if gru_type in ("GRU", "AIGRU"):
        return torch_gru(state, EVOLUTION, hidden, hidden)
    cell = f"{EVOLUTION}rnn."
    w_input, w_recurrent = (state.take(f"{cell}weight_{part}", 3 * hidden, hidden) for part in ("ih", "hh"))
    bias, inner = (state.take(f"{cell}bias_{part}", 3 * hidden) for part in ("ih", "hh"))
    return gated(w_input, w_recurrent, bias, inner, reset_first=True)


def _head(state: State, inputs: int, activation: object, refusals: Refusals) -> list[Layer]:
    layers: list[Layer] = []
    number = 0
    while not number or f"dnn.linears.{number}.weight" in state:
        if not number:
            refuse_other_inputs(state, "dnn.linears.0.weight", inputs, refusals)
        weight = state.take(f"dnn.linears.{number}.weight", None, layers[-1].units if layers else inputs)
        layer = Layer(weight, state.take(f"dnn.linears.{number}.bias", len(weight)))
        if f"dnn.bn.{number}.running_mean" in state:
            layer = batch_norm_folded(layer, state, f"dnn.bn.{number}.")
        place = f"dnn.activation_layers.{number}."
        if f"{place}alpha" in state:
            found = dice(state, place, layer.units, DICE_EPSILON, refusals)
            layers.append(Layer(layer.weight, layer.bias, found))
        elif f"{place}weight" in state:
            layers.append(Layer(layer.weight, layer.bias, prelu(state, f"{place}weight", layer.units)))
        else:
            slopes = named_activation(activation, layer.units, "settings.dnn_activation", refusals)
            layers.append(Layer(layer.weight, layer.bias, slopes))
        number += 1
    one_kind(layers, "settings.dnn_activation", refusals)
    return [*layers, Layer(state.take("linear.weight", 1, layers[-1].units), state.take("out.bias", 1))]
