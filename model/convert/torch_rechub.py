"""torch-rechub's DIEN (`torch_rechub.models.ranking.dien`, read at 0.9.0).

Each history feature has a GRU, a bilinear attention and an AUGRU (the paper's gate) of its own, as wide as its
embedding. Head: [final interests, targets, features] through Linear, BatchNorm, Dice. The auxiliary loss has no
weights.
"""

from __future__ import annotations

import torch

from model.config import ConfigError
from model.convert.description import Description
from model.convert.head import Sequential, refuse_other_inputs
from model.convert.peer import FINAL, PeerDien, refuse_padding, take_tables, width
from model.convert.recurrent import gated, torch_gru
from model.convert.refusal import Refusals
from model.convert.state import State

SETTINGS = frozenset({"activation"})
EXTRACTOR, EVOLUTION = "interest_extractor_layers.", "interest_evolving_layers."


def read(state: State, described: Description, refusals: Refusals) -> PeerDien:
    """A checkpoint's DIEN. Raises ConfigError for one that is not the description's, NotExpressibleError."""
    if f"{EVOLUTION}0.augru_cell.Wa" in state:
        refusals.add(
            f"{EVOLUTION}0.augru_cell.Wa",
            "attention by a softmax over one step, always 1, and an AUGRU from a random state, as in older versions",
            "both; its attention is a softmax over the history, its first state 0",
        )
    if state.under(f"{EXTRACTOR}1."):
        refusals.add(
            f"{EXTRACTOR}1, {EVOLUTION}1",
            "a GRU, an attention and an AUGRU for each history feature alone",
            "several of them; it has one of each, over all fields of a behaviour",
        )
    refusals.check()
    target = described.columns[0]
    if described.history != (target.name,):
        raise ConfigError(
            f"history={list(described.history)}: must be [{target.name!r}], the first column: torch-rechub pairs its "
            "history feature with its first target feature"
        )
    refuse_padding(described)
    tables = take_tables(state, "embedding.embed_dict.", described)
    hidden = width(tables, [target], history=True)
    extractor = torch_gru(state, f"{EXTRACTOR}0.", hidden, hidden)
    cell = f"{EVOLUTION}0.augru_cell."
    w_input, w_recurrent = (
        torch.cat([state.take(f"{cell}{part}{gate}", hidden, hidden).t() for gate in "urh"]) for part in "WU"
    )
    bias = torch.cat([state.take(f"{cell}b{gate}", 1, hidden)[0] for gate in "urh"])
    inputs = hidden + width(tables, described.columns)
    refuse_other_inputs(state, "mlp.mlp.0.weight", inputs, refusals)
    head = Sequential("mlp.mlp.", "activation", described.setting("activation", "dice"), 0.0)
    return PeerDien(
        tables=tables,
        extractor=extractor,
        evolution=gated(w_input, w_recurrent, bias, torch.zeros_like(bias), reset_first=False),
        cell="augru",
        query=(target.name,),
        attention=state.take(f"{EVOLUTION}0.Wa", hidden, width(tables, [target])),
        order=(FINAL, *(column.name for column in described.columns)),
        head=head.layers(state, inputs, refusals),
    )
