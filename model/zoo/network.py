"""What all models of the zoo share: embeddings, a head over named parts, losses.

B rows, T steps, H hidden, E of an item, A of an action, K width of what is attended to.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import NONE, ModelConfig
from model.embeddings import Embeddings, Inputs
from model.features import FeatureSchema
from model.layers import Gru, Mlp, mask
from model.zoo.attention import ActivationUnit, Bilinear, normalized
from model.zoo.auxiliary import AuxiliaryNet, Following, auxiliary_loss


class Network(nn.Module):
    """A click model: named parts of what is known, end to end, into a head. `forward` gives logits.

    `parts` names the head's inputs, in order: `side` (user and context), `target`, `pooled` (mean of the behaviours),
    `crossed` (target times pooled history), `final` (the interest towards the target).
    """

    parts: tuple[str, ...] = ("side", "target", "pooled")
    normalized = True  # whether attention is a softmax

    def __init__(self, schema: FeatureSchema, config: ModelConfig, embeddings: Embeddings | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = embeddings or Embeddings(schema, config.embedding, config.initial_deviation)
        self.make_layers()
        self.head = Mlp(sum(self.widths.values()), config.head, config.activation)
        self.auxiliary = None if config.auxiliary == NONE else self._auxiliary_net()

    def make_layers(self) -> None:
        """Set the layers that a model has of its own."""

    def _auxiliary_net(self) -> AuxiliaryNet:
        own = None if self.config.definition.recurrent else self.behavior_width
        return AuxiliaryNet(self.config.auxiliary, self.config.hidden, self.embeddings.item_width, behavior=own)

    @property
    def behavior_width(self) -> int:
        """E + A."""
        return self.embeddings.item_width + self.embeddings.action_width

    @property
    def final_width(self) -> int:
        """Of the final interest; 0 for a model without."""
        return 0

    @property
    def widths(self) -> dict[str, int]:
        """Of the head's inputs by part, in order."""
        item = self.embeddings.item_width
        known = {"side": self.embeddings.side_width, "target": item, "pooled": self.behavior_width, "crossed": item}
        known["final"] = self.final_width
        return {part: known[part] for part in self.parts}

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits `[B]`."""
        behaviors = self.behaviors(inputs)
        return self.logits(inputs, behaviors, self.interests(behaviors, inputs.lengths))

    def behaviors(self, inputs: Inputs) -> Tensor:
        """The behaviour layer, steps first: `[T, B, E + A]` (DIEN section 3.1)."""
        return self.embeddings.behaviors(inputs.history.t(), inputs.actions.t())

    def interests(self, behaviors: Tensor, lengths: Tensor) -> Tensor:
        """What the user's interest is told by at each step, `[T, B, K]`: without a GRU the behaviours themselves."""
        return behaviors

    def logits(self, inputs: Inputs, behaviors: Tensor, states: Tensor) -> Tensor:
        """Logits `[B]` from `behaviors [T, B, E + A]` and interests `[T, B, K]`."""
        features = self.features(inputs, behaviors, states)
        return self.head(torch.cat([features[part] for part in self.parts], dim=-1))  # type: ignore[no-any-return]

    def features(self, inputs: Inputs, behaviors: Tensor, states: Tensor) -> dict[str, Tensor]:
        """All parts by name, each `[B, width]`; `final` where the model has one."""
        target = self.embeddings.items(inputs.target)
        real = mask(inputs.lengths, behaviors.shape[0]).to(behaviors.dtype)
        pooled = (behaviors * real.unsqueeze(-1)).sum(0) / inputs.lengths.clamp(min=1).unsqueeze(-1)
        features = {"target": target, "pooled": pooled}
        if "final" in self.parts:
            features["final"] = self.final(states, target, inputs.lengths)
        features["crossed"] = target * pooled[:, : target.shape[1]]
        return features | {"side": self.embeddings.side(inputs.user, inputs.context)}

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, final_width]` towards `target [B, E]`."""
        raise TypeError(f"{type(self).__name__} has no final interest")

    def losses(self, inputs: Inputs, following: Following, clicks: Tensor) -> dict[str, Tensor]:
        """`target` and `auxiliary` losses (DIEN eq. 6-8), and the logits."""
        behaviors = self.behaviors(inputs)
        states = self.interests(behaviors, inputs.lengths)
        logits = self.logits(inputs, behaviors, states)
        losses = {"logits": logits, "target": F.binary_cross_entropy_with_logits(logits, clicks)}
        if self.auxiliary is not None:
            if not self.config.definition.recurrent:
                states = interest_states(self.auxiliary.extractor, behaviors, inputs.lengths)
            after = Following(*(part.t()[1:] for part in following))
            items = behaviors[1:, :, : self.embeddings.item_width]
            losses["auxiliary"] = auxiliary_loss(self.auxiliary, states[:-1], items, after, self.embeddings.items)
        return losses

    def parameter_groups(self, embedding_decay: float) -> list[dict[str, Any]]:
        """Parameters for the optimiser: embeddings with weight decay, all others without."""
        embedded = {id(parameter) for parameter in self.embeddings.parameters()}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in embedded]
        return [
            {"params": list(self.embeddings.parameters()), "weight_decay": embedding_decay},
            {"params": rest, "weight_decay": 0.0},
        ]


class Attending(Network):
    """A model with attention over the history, and a final interest by it."""

    parts = ("side", "target", "pooled", "crossed", "final")
    attention: Bilinear | ActivationUnit

    def make_attention(self, key: int, *, mapped: bool) -> None:
        """Set `attention` over keys of a width; `mapped` where they are no embeddings."""
        item, config = self.embeddings.item_width, self.config
        if config.attention == "bilinear":
            self.attention = Bilinear(item, key)
        else:
            self.attention = ActivationUnit(item, key, config.activation, mapped=mapped)

    def attend(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """Attention `[T, B]` of `target [B, E]` over real steps; all zero for an empty history."""
        real = mask(lengths, states.shape[0])
        relevance = self.attention.relevance(states, target, real)
        return normalized(relevance, real) if self.normalized else relevance * real


class Recurrent(Attending):
    """A model with an interest extractor, whose states are what is attended to."""

    def make_layers(self) -> None:
        """The extractor and the attention over states."""
        self.extractor = Gru(self.behavior_width, self.config.hidden, inner_bias=self.config.inner_bias)
        self.make_attention(self.config.hidden, mapped=True)

    @property
    def final_width(self) -> int:
        """H."""
        return self.config.hidden

    def interests(self, behaviors: Tensor, lengths: Tensor) -> Tensor:
        """Interest states `[T, B, H]` (DIEN section 3.2); past the length the last real one."""
        return interest_states(self.extractor, behaviors, lengths)


def interest_states(layer: Gru, inputs: Tensor, lengths: Tensor) -> Tensor:
    """The states `[T, B, H]` of a plain GRU over `inputs [T, B, I]`; past the length the last real one."""
    return layer(inputs, mask(lengths, inputs.shape[0]).to(inputs.dtype), lengths)  # type: ignore[no-any-return]


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """`[B, K]` of `weights [T, B]`, which are 0 past the length, and `values [T, B, K]`."""
    return (weights.unsqueeze(-1) * values).sum(0)
