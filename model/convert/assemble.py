"""The parts of another library's DIEN laid out as our weights.

I items, F item fields, D width of one embedding, E = F·D of an item, H hidden, W of the head's first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.artifact import Artifact
from model.config import ModelConfig
from model.convert.description import Column, Description
from model.convert.head import DiceUnits, Layer
from model.convert.peer import FINAL, PeerDien
from model.data.dataset import IntArray
from model.features import FeatureSchema, Vocabulary


class _ItemField(NamedTuple):
    column: Column
    table: str


class _Layout:
    """Where our DIEN has what: an item field for each table of an item column, the target's and the history's own."""

    def __init__(self, peer: PeerDien, described: Description) -> None:
        columns = described.of_kind("item")
        # The catalogue's own field comes first: a column of that name, or else the first.
        first = next((column for column in columns if column.name == "item_id"), columns[0])
        self._tables = peer.tables
        self.item_fields: list[_ItemField] = []
        for column in (first, *(column for column in columns if column is not first)):
            self._add(column, column.table)
        for name in described.history:
            self._add(described.column(name), described.column(name).history_table)
        self.contexts = described.of_kind("context")
        self.users = described.of_kind("user")
        # A term of the key alone is a query's share of an embedding that is 1 for every item.
        self.constant = peer.key_term is not None
        widest = max(self.width(table) for table in self.used())
        self.embedding = widest + self.constant

    def _add(self, column: Column, table: str) -> None:
        if not self._places(column, table):
            self.item_fields.append(_ItemField(column, table))

    def _places(self, column: Column, table: str) -> list[int]:
        """Of the field that has a column's rows of a table, or of one with the same numbers; none or one."""

        def same(other: str) -> bool:
            ours, theirs = self._tables[other], self._tables[table]
            return other == table or (ours.shape == theirs.shape and torch.equal(ours, theirs))

        fields = enumerate(self.item_fields)
        return [place for place, field in fields if field.column is column and same(field.table)]

    def used(self) -> list[str]:
        """Tables that the artifact has."""
        side = [column.table for column in (*self.users, *self.contexts)]
        return [*(field.table for field in self.item_fields), *side]

    def width(self, table: str) -> int:
        """Of one embedding as the library has it; up to ours, zeros follow."""
        return self._tables[table].shape[1]

    def rows(self, table: str) -> int:
        """V."""
        return len(self._tables[table])

    @property
    def item(self) -> int:
        """E."""
        return self.embedding * len(self.item_fields)

    @property
    def side(self) -> int:
        """Width of user and context."""
        return self.embedding * (len(self.users) + len(self.contexts))

    def item_slice(self, column: Column, table: str) -> slice:
        """Where an item's embedding has a field."""
        (place,) = self._places(column, table)
        return slice(place * self.embedding, place * self.embedding + self.width(table))

    def head_slice(self, column: Column) -> slice:
        """Where the head's input has a column: user, context, target; then pooled history and its product, at zero."""
        if column.kind == "item":
            found = self.item_slice(column, column.table)
            return slice(self.side + found.start, self.side + found.stop)
        place = (*self.users, *self.contexts).index(column)
        return slice(place * self.embedding, place * self.embedding + self.width(column.table))

    def inputs(self, hidden: int) -> int:
        """Width of the head's input."""
        return self.side + 3 * self.item + hidden


def assemble(peer: PeerDien, described: Description, name: str, training: Mapping[str, Any]) -> Artifact:
    """The artifact of a DIEN. Raises ConfigError for widths and names that ours cannot have."""
    layout, hidden = _Layout(peer, described), peer.extractor.hidden
    layers = peer.head
    if len(layers) == 1:  # a head without hidden layers: its product goes through one unit as it is
        one = torch.ones(1, dtype=torch.float64)
        layers = [Layer(layers[0].weight, layers[0].bias, one), Layer(one.view(1, 1), 0 * one)]
    recurrent = {"extractor": peer.extractor, "evolution": peer.evolution}
    config = ModelConfig(
        hidden=hidden,
        embedding=layout.embedding,
        cell=peer.cell,
        head=tuple(layer.units for layer in layers[:-1]),
        activation="dice" if isinstance(layers[0].activation, DiceUnits) else "prelu",
        auxiliary="none",
        inner_bias=any(bool(gru.bias_candidate.any()) for gru in recurrent.values()),
    )
    weights = _tables(peer, described, layout)
    for part, gru in recurrent.items():
        weights |= {f"{part}.w_recurrent": gru.w_recurrent, f"{part}.bias": gru.bias}
        weights |= {f"{part}.bias_candidate": gru.bias_candidate} if config.inner_bias else {}
    weights["extractor.w_input"] = _extractor_input(peer, described, layout)
    weights["evolution.w_input"] = peer.evolution.w_input
    weights["attention.weight"] = _attention(peer, described, layout)
    weights |= _head(
        [Layer(_first(peer, described, layout, layers[0]), layers[0].bias, layers[0].activation), *layers[1:]]
    )
    whole = {key: value.to(torch.float32, copy=True).contiguous() for key, value in weights.items()}
    return Artifact(name, config, _schema(described, layout), whole, training)


def _extractor_input(peer: PeerDien, described: Description, layout: _Layout) -> Tensor:
    weight = torch.zeros(layout.item, peer.extractor.w_input.shape[1], dtype=torch.float64)
    begin = 0
    for column in map(described.column, described.history):
        place = layout.item_slice(column, column.history_table)
        end = begin + place.stop - place.start
        weight[place] = peer.extractor.w_input[begin:end]
        begin = end
    return weight


def _attention(peer: PeerDien, described: Description, layout: _Layout) -> Tensor:
    weight = torch.zeros(len(peer.attention), layout.item, dtype=torch.float64)
    begin = 0
    for column in map(described.column, peer.query):
        place = layout.item_slice(column, column.table)
        end = begin + place.stop - place.start
        weight[:, place] = peer.attention[:, begin:end]
        begin = end
    if peer.key_term is not None:
        weight[:, layout.embedding - 1] = peer.key_term
    return weight


def _first(peer: PeerDien, described: Description, layout: _Layout, layer: Layer) -> Tensor:
    """The first layer's weight `[W, inputs]` of our order; zero for what the library's head has not."""
    hidden = peer.extractor.hidden
    weight = torch.zeros(layer.units, layout.inputs(hidden), dtype=torch.float64)
    begin = 0
    for name in peer.order:
        ours = slice(layout.inputs(hidden) - hidden, None)
        width = hidden
        if name != FINAL:
            ours = layout.head_slice(described.column(name))
            width = ours.stop - ours.start
        weight[:, ours] = layer.weight[:, begin : begin + width]
        begin += width
    return weight


def _head(layers: list[Layer]) -> dict[str, Tensor]:
    weights = {"head.output.weight": layers[-1].weight, "head.output.bias": layers[-1].bias}
    for number, layer in enumerate(layers[:-1]):
        place = f"head.activations.{number}."
        weights |= {f"head.layers.{number}.weight": layer.weight, f"head.layers.{number}.bias": layer.bias}
        if isinstance(layer.activation, DiceUnits):
            dice = layer.activation
            weights |= {f"{place}alpha": dice.alpha, f"{place}mean": dice.mean, f"{place}variance": dice.variance}
        elif layer.activation is not None:
            weights[f"{place}weight"] = layer.activation
    return weights


def _named(layout: _Layout) -> list[str]:
    """Our names of the item fields."""
    names = ["item_id"]
    for field in layout.item_fields[1:]:
        own = field.table != field.column.table
        names.append(f"history_{field.column.name}" if own else field.column.name)
    return names


def _sorted(column: Column) -> tuple[IntArray, IntArray]:
    order = np.argsort(column.ids)
    return column.ids[order], column.rows[order]


def _schema(described: Description, layout: _Layout) -> FeatureSchema:
    ids, rows = _sorted(layout.item_fields[0].column)
    catalogue = Vocabulary(ids)
    vocabularies = {"item_id": Vocabulary(ids.copy())}  # a file has no two tensors in one place
    fields = [np.arange(1, len(ids) + 1)]
    for name, field in zip(_named(layout)[1:], layout.item_fields[1:], strict=True):
        # The row that the library has for a value of this field is the value's name here.
        vocabularies[name] = Vocabulary(np.arange(layout.rows(field.table), dtype=np.int64))
        fields.append(_sorted(field.column)[1] + 1)
    for column in layout.contexts:
        vocabularies[column.name] = Vocabulary(_sorted(column)[0])
    for column in layout.users:
        vocabularies["user_id"] = Vocabulary(_sorted(column)[0])
    rows = np.stack(fields, axis=1)
    return FeatureSchema(
        catalogue=catalogue,
        item_fields=tuple(_named(layout)),
        item_rows=np.concatenate([np.zeros((1, rows.shape[1]), dtype=np.int64), rows]),
        vocabularies=vocabularies,
        context_fields=tuple(column.name for column in layout.contexts),
        max_history=described.max_history,
    )


def _tables(peer: PeerDien, described: Description, layout: _Layout) -> dict[str, Tensor]:
    """Our tables, row 0 for what is unknown, then a row for each value."""
    found: dict[str, Tensor] = {}

    def put(name: str, column: Column, table: str, rows: IntArray) -> None:
        theirs = peer.tables[table]
        ours = torch.zeros(len(rows) + 1, layout.embedding, dtype=torch.float64)
        ours[1:, : theirs.shape[1]] = theirs[torch.from_numpy(rows)]
        if column.unknown is not None:
            ours[0, : theirs.shape[1]] = theirs[column.unknown]
        if layout.constant and name == "item_id":
            ours[:, -1] = 1
        found[f"embeddings.tables.{name}.weight"] = ours

    for name, field in zip(_named(layout), layout.item_fields, strict=True):
        every = np.arange(layout.rows(field.table), dtype=np.int64)
        put(name, field.column, field.table, _sorted(field.column)[1] if name == "item_id" else every)
    for column in layout.contexts:
        put(column.name, column, column.table, _sorted(column)[1])
    for column in layout.users:
        put("user_id", column, column.table, _sorted(column)[1])
    return found
