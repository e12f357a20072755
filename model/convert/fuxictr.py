"""FuxiCTR's DIEN, that of `model_zoo/DIEN` and that of `model_zoo/LongCTR` (read at 2.3.10).

A GRU, attention by `attention_type` and, by `gru_type`, a second recurrent layer, all as wide as a behaviour. Its AUGRU
has the paper's gate, and a bias in both products. Head: `model_zoo/DIEN` has [final interest, features], LongCTR
[features, target, final interest], through Linear, BatchNorm, activation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import GruWeights
from model.config import ConfigError
from model.convert.description import Column, Description
from model.convert.head import Sequential, refuse_other_inputs
from model.convert.peer import FINAL, PeerDien, refuse_padding, take_tables, width
from model.convert.recurrent import gated, torch_gru
from model.convert.refusal import Refusals
from model.convert.state import State

SETTINGS = frozenset({"gru_type", "attention_type", "use_attention_softmax", "dnn_activations", "task"})
ATTENTIONS = ("bilinear_attention", "dot_attention", "din_attention")
CELL, ATTENTION = "evolving_modules.0.gru_cell.", "attention_modules.0."
TABLES, LONG_TABLES = "embedding_layer.embedding_layers.", "embedding_layer.embedding_layer.embedding_layers."
FIRST = "dnn.mlp.0.weight"
DICE_EPSILON = 1e-9


def read(state: State, described: Description, refusals: Refusals) -> PeerDien:
    """A checkpoint's DIEN. Raises ConfigError for one that is not the description's, NotExpressibleError."""
    long = bool(state.under(LONG_TABLES))
    _refuse_layers(state, described, refusals)
    _refuse_settings(state, described, refusals)
    refuse_padding(described)
    tables = take_tables(state, LONG_TABLES if long else TABLES, described)
    history = [described.column(name) for name in described.history]
    if long and tuple(history) != described.of_kind("item"):
        raise ConfigError("history: LongCTR's behaviours have every column of kind item, in the same order")
    hidden = width(tables, history, history=True)
    state.skip("aux_net.")
    others = [column for column in described.columns if column.kind != "item"]
    order = [*_names(others), *_names(history), FINAL] if long else [FINAL, *_names(described.columns)]
    inputs = hidden + width(tables, described.columns)
    _refuse_inputs(state, inputs, hidden, refusals)
    head = Sequential("dnn.mlp.", "dnn_activations", described.setting("dnn_activations", "ReLU"), DICE_EPSILON)
    return PeerDien(
        tables=tables,
        extractor=torch_gru(state, "extraction_modules.0.", hidden, hidden),
        evolution=_evolution(state, hidden),
        # The cell of model_zoo/DIEN is AUGRU's for gru_type='AGRU', too.
        cell="agru" if long and described.setting("gru_type", "AUGRU") == "AGRU" else "augru",
        query=tuple(described.history),
        attention=_attention(state, described, hidden),
        order=tuple(order),
        head=head.layers(state, inputs, refusals),
    )


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def _refuse_layers(state: State, described: Description, refusals: Refusals) -> None:
    """Refuse what has other layers than those that are read: nothing further can be said of it."""
    gru_type = described.setting("gru_type", "AUGRU")
    if gru_type not in ("GRU", "AIGRU", "AGRU", "AUGRU"):
        raise ConfigError(f"settings.gru_type={gru_type!r}: one of GRU, AIGRU, AGRU, AUGRU")
    if gru_type == "GRU":
        refusals.add(
            "settings.gru_type='GRU'", "two GRUs without attention", "a cell without it; it has AUGRU, AGRU and AIGRU"
        )
    if gru_type == "AIGRU":
        refusals.add(
            "settings.gru_type='AIGRU'",
            "interests [B, T, H] times attention [B, T] as these shapes broadcast, not a step by its weight",
            "that product; its AIGRU weights each step",
        )
    if state.under("extraction_modules.1."):
        refusals.add(
            "extraction_modules.1 (more than one dien_target_field)",
            "a GRU, an attention and an AUGRU for each group of fields",
            "several of them; it has one of each, over all fields of a behaviour",
        )
    refusals.check()


def _refuse_settings(state: State, described: Description, refusals: Refusals) -> None:
    attention = described.setting("attention_type", ATTENTIONS[0])
    if attention not in ATTENTIONS:
        raise ConfigError(f"settings.attention_type={attention!r}: one of {', '.join(ATTENTIONS)}")
    if attention == "din_attention" or state.under(f"{ATTENTION}attn_mlp."):
        refusals.add(
            f"{ATTENTION}attn_mlp (settings.attention_type='din_attention')",
            "attention by an activation unit, a network over [e, h, e - h, e∘h]",
            "that form of attention; it has a = softmax(h W e)",
        )
    if described.setting("use_attention_softmax", True) is not True:
        refusals.add(
            "settings.use_attention_softmax=False", "attention that is not normalised", "attention without the softmax"
        )
    task = described.setting("task", "binary_classification")
    if task != "binary_classification":
        refusals.add(f"settings.task={task!r}", "no sigmoid at the end", "scores without a sigmoid")


def _refuse_inputs(state: State, inputs: int, hidden: int, refusals: Refusals) -> None:
    if state.rank(FIRST) == 2 and state.columns(FIRST) == inputs + 2 * hidden:
        refusals.add(
            f"{FIRST} (enable_sum_pooling=True)",
            "the sum of the history's embeddings, and its product with the target, in the head",
            "sum pooling; it has the mean, which no weight turns into a sum of histories of many lengths",
        )
        refusals.check()
    refuse_other_inputs(state, FIRST, inputs, refusals)


def _attention(state: State, described: Description, hidden: int) -> Tensor:
    if described.setting("attention_type", ATTENTIONS[0]) == "dot_attention":
        return torch.eye(hidden, dtype=torch.float64)
    if state.under(f"{ATTENTION}attn_mlp."):
        state.skip(f"{ATTENTION}attn_mlp.")
        return torch.zeros(hidden, hidden)
    return state.take(f"{ATTENTION}W_kernel", hidden, hidden)


def _evolution(state: State, hidden: int) -> GruWeights:
    w_input, w_recurrent = (state.take(f"{CELL}{part}2h.weight", 3 * hidden, hidden) for part in "xh")
    bias, inner = (state.take(f"{CELL}{part}2h.bias", 3 * hidden) for part in "xh")
    return gated(w_input, w_recurrent, bias, inner, reset_first=False)
