"""The network with its recurrences by this project's kernels, and nothing else of Augur's: the batch stays repeated.

B rows, T steps, H hidden, E of an item, A of an action.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

import kernels
from model.artifact import Artifact
from model.config import ConfigError
from model.embeddings import Inputs
from model.zoo.dien import Dien


class FusedDien(Dien):
    """`Dien` for inference on batches whose histories are of one length, as those of one user repeated are."""

    def behaviors(self, inputs: Inputs) -> Tensor:
        """`[T, B, E + A]`; rows lie end to end, as the kernels read them."""
        return self.embeddings.behaviors(inputs.history, inputs.actions).transpose(0, 1)

    def interests(self, behaviors: Tensor, lengths: Tensor) -> Tensor:
        """Interest states `[T, B, H]` of the real steps."""
        rows, steps = len(lengths), int(lengths[0])
        states = kernels.gru(_ragged(behaviors[:steps]), _edges(rows, steps), self.extractor.weights())
        return states.view(rows, steps, self.config.hidden).transpose(0, 1)

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, H]`: attention and evolution are one kernel, and every row is its own user."""
        edges, own = _edges(len(lengths), len(states)), torch.arange(len(lengths))
        weights, cell = self.evolution.weights(), self.config.cell
        return kernels.evolve(_ragged(states), edges, self.attention(target), own, weights, cell=cell)


def fused(artifact: Artifact) -> FusedDien:
    """The artifact's network, ready for inference. Raises ConfigError for one whose recurrences no kernel computes."""
    config = artifact.config
    if config.cell not in kernels.CELLS or config.attention != "bilinear":
        raise ConfigError(f"model={config.model}, attention={config.attention}: interest evolution, bilinear attention")
    model = FusedDien(artifact.schema, dataclasses.replace(config, auxiliary="none"))
    model.load_state_dict(dict(artifact.weights))
    return model.eval()


def describe(artifact: Artifact) -> str:
    """Which kernels compute on this CPU."""
    backend = kernels.resolve_backend("auto", "cpu", torch.float32, artifact.config.hidden)
    return f"{kernels.describe_backend(backend)} kernels"


def _ragged(steps_first: Tensor) -> Tensor:
    """`[T, B, X]` to `[B * T, X]`, all rows' steps end to end."""
    return steps_first.transpose(0, 1).flatten(0, 1)


def _edges(rows: int, steps: int) -> Tensor:
    return torch.arange(rows + 1) * steps
