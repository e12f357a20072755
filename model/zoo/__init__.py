"""The models of the comparison in the papers of DIN and DIEN, by name: networks to train, and how each is served."""

from __future__ import annotations

from typing import Any

from model.config import ModelConfig
from model.embeddings import Embeddings
from model.features import FeatureSchema
from model.zoo.base import BaseModel
from model.zoo.dien import Dien, DienSplit
from model.zoo.din import Din, DinSplit
from model.zoo.gru_attention import GruAttention, GruAttentionSplit
from model.zoo.network import Network
from model.zoo.pnn import Pnn
from model.zoo.split import Runtime, Split
from model.zoo.wide_deep import WideDeep, WideDeepSplit

__all__ = ["ZOO", "Network", "Runtime", "Split", "make_network", "split_network"]

ZOO: dict[str, tuple[type[Network], type[Split[Any]]]] = {
    "base": (BaseModel, Split),
    "wide_deep": (WideDeep, WideDeepSplit),
    "pnn": (Pnn, Split),
    "din": (Din, DinSplit),
    "gru_attention": (GruAttention, GruAttentionSplit),
    "aigru": (Dien, DienSplit),
    "agru": (Dien, DienSplit),
    "augru": (Dien, DienSplit),
    "dien": (Dien, DienSplit),
}


def make_network(schema: FeatureSchema, config: ModelConfig, embeddings: Embeddings | None = None) -> Network:
    """The network of a configuration, with fresh weights."""
    return ZOO[config.model][0](schema, config, embeddings)


def split_network(model: Network, runtime: Runtime, table_budget: int) -> Split[Any]:
    """The network cut for serving, its tables within a budget in bytes."""
    return ZOO[model.config.model][1](model, runtime, table_budget)
