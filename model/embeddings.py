"""What a network reads, and the embedding tables that all models of the zoo have.

B rows, T steps, F item fields, K context fields, D width of one embedding, E = F·D of an item, A of an action.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.config import ConfigError
from model.features import FeatureSchema


class Inputs(NamedTuple):
    """A padded batch: rows of tables, histories left-aligned and oldest first, past the length anything."""

    user: Tensor  # int64 [B]
    context: Tensor  # int64 [B, K]
    target: Tensor  # int64 [B] rows of the catalogue
    history: Tensor  # int64 [B, T] rows of the catalogue
    actions: Tensor  # int64 [B, T]
    lengths: Tensor  # int64 [B]


def table_sizes(schema: FeatureSchema) -> dict[str, int]:
    """Rows of each embedding table by its name. Raises ConfigError for a name that no table can have."""
    names = [*schema.item_fields, *schema.context_fields]
    for name in names:
        # A table is a submodule of this name, and torch keeps some names for itself.
        if names.count(name) > 1 or name in ("user_id", "action") or "." in name or hasattr(nn.ModuleDict(), name):
            raise ConfigError(f"field {name!r}: used twice, or a name that is taken; rename the column")
    sizes = {name: len(vocabulary) for name, vocabulary in schema.vocabularies.items()}
    return sizes | ({"action": len(schema.actions) + 1} if schema.actions else {})


class Embeddings(nn.Module):
    """The tables of a schema: item fields, actions, user, context. Booster and light net may share one."""

    item_rows: Tensor

    def __init__(self, schema: FeatureSchema, width: int, deviation: float) -> None:
        super().__init__()
        self.width = width
        self.item_fields = schema.item_fields
        self.context_fields = schema.context_fields
        self.register_buffer("item_rows", torch.from_numpy(schema.item_rows), persistent=False)
        self.tables = nn.ModuleDict({name: nn.Embedding(size, width) for name, size in table_sizes(schema).items()})
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=deviation)  # type: ignore[arg-type]
        self.item_width = width * len(self.item_fields)
        self.action_width = width if schema.actions else 0
        self.side_width = width * (len(self.context_fields) + schema.uses_user_id)

    def items(self, rows: Tensor) -> Tensor:
        """Items by their rows of the catalogue: `[...]` to `[..., E]`."""
        fields = self.item_rows[rows]
        return torch.cat([self.tables[name](fields[..., n]) for n, name in enumerate(self.item_fields)], dim=-1)

    def behaviors(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Behaviours: the item, and beside it what was done, `[..., E + A]`."""
        items = self.items(rows)
        return torch.cat([items, self.tables["action"](actions)], dim=-1) if self.action_width else items

    def side(self, user: Tensor, context: Tensor) -> Tensor:
        """User and context fields, `[B, side_width]`."""
        parts = [self.tables[name](context[:, n]) for n, name in enumerate(self.context_fields)]
        if "user_id" in self.tables:
            parts.insert(0, self.tables["user_id"](user))
        return torch.cat(parts, dim=-1) if parts else context.new_zeros(len(user), 0, dtype=torch.float32)
