"""BaseModel: embeddings, pooling, head (DIN section 4.2)."""

from __future__ import annotations

from model.zoo.network import Network


class BaseModel(Network):
    """The head sees user, context, target and the pooled history, and nothing that compares the last two."""
