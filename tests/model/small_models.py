"""Small models on made-up data, with weights large enough that every part of them moves a score."""

from typing import Any

import torch
from made_up import made_up_data

from model.artifact import Artifact, of_model
from model.config import ModelConfig
from model.data import DataSet
from model.features import FeatureSchema, fit_schema
from model.zoo import Network, make_network

# Small tensors gain nothing from threads, and on a busy machine lose much to them.
torch.set_num_threads(1)


def small_model(schema: FeatureSchema, seed: int = 0, **shape: Any) -> Network:
    """A network whose weights, Dice's moving statistics included, are all random."""
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {"hidden": 8, "embedding": 5, "head": (12, 7)}
    model = make_network(schema, ModelConfig(**(defaults | shape)))
    for name, tensor in model.state_dict().items():
        if name.endswith(".variance"):
            tensor.uniform_(0.2, 2)
        elif name.startswith("attention.net."):  # DIN adds up its weights over a history
            tensor.normal_(std=0.2)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.5)
    return model


def small_artifact(
    data: DataSet | None = None, *, user_id: bool = True, max_history: int = 6, **shape: Any
) -> Artifact:
    """An artifact of a random network for a data set."""
    schema = fit_schema(data or made_up_data(), max_history=max_history, user_id=user_id)
    model = small_model(schema, **shape)
    return of_model("small", model, schema, {"data": "made up", "seconds": 1.5}, {"test": {"auc": 0.75}})
