"""One form for the DIENs of all libraries.

V rows of a table, Q width of a query, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kernels import GruWeights
from model.config import ConfigError
from model.convert.description import Column, Description
from model.convert.head import Layer
from model.convert.state import State

FINAL = "final interest"  # in the order of the head's input; no column is named so


@dataclass(frozen=True, slots=True)
class PeerDien:
    """What a DIEN computes, in float64: behaviours through `extractor`, `attention` and `evolution` to `head`."""

    tables: Mapping[str, Tensor]  # [V, any width] by the library's names
    extractor: GruWeights  # over the history's fields in the description's order
    evolution: GruWeights
    cell: str
    query: tuple[str, ...]  # columns of the target that attention sees
    attention: Tensor  # [H, Q]: a = softmax(h·(W q + key_term))
    order: tuple[str, ...]  # of the head's input: columns and FINAL
    head: list[Layer]  # the output last
    key_term: Tensor | None = None  # [H]


def take_tables(state: State, prefix: str, described: Description) -> dict[str, Tensor]:
    """Every embedding table of a description, each under `prefix` and its name; rows it names must be there."""
    tables: dict[str, Tensor] = {}
    for column in described.columns:
        for name in (column.table, column.history_table):
            if name not in tables:
                tables[name] = state.take(f"{prefix}{name}.weight", None, None)
            table = tables[name]
            rows = column.rows if column.unknown is None else np.append(column.rows, column.unknown)
            wrong = rows[(rows < 0) | (rows >= len(table))]
            if len(wrong):
                raise ConfigError(f"column {column.name!r}: row {wrong[0]} of {name}, which has {len(table)}")
    state.skip(*(f"{prefix}{name}." for name in described.training_only))
    return tables


def width(tables: Mapping[str, Tensor], columns: Iterable[Column], *, history: bool = False) -> int:
    """Of some columns' embeddings side by side, the target's or a behaviour's."""
    return sum(tables[one.history_table if history else one.table].shape[1] for one in columns)


def refuse_padding(described: Description) -> None:
    """Raise ConfigError for an item at row 0 of the history's first field, which the library takes for a gap."""
    column = described.column(described.history[0])
    padded = column.ids[column.rows == 0]
    if len(padded):
        raise ConfigError(f"column {column.name!r}: item {padded[0]} has row 0, which the library takes for padding")
