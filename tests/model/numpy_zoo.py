"""The models of the comparison written once more from the papers, as numpy_dien: float64, one user at a time, loops.

Nothing of the models is used but their configuration and weights, by their names.
"""

from collections.abc import Sequence

import numpy as np
from numpy_dien import Array, NumpyDien, Row, attention, final_interest, head, interest_states
from torch import nn

from model.config import ModelConfig
from model.features import FeatureSchema


class NumpyZoo(NumpyDien):
    """Any model of the zoo from a state dictionary."""

    def __init__(self, model: nn.Module, schema: FeatureSchema, config: ModelConfig) -> None:
        super().__init__(model, schema.item_rows, schema.item_fields, schema.context_fields)
        self.config = config

    def behaviors(self, row: Row) -> Array:
        """`[T, E + A]`."""
        with_actions = "embeddings.tables.action.weight" in self.all
        width = len(self.item(0)) + (self.table("action").shape[1] if with_actions else 0)
        steps = np.zeros((len(row.history), width))
        for t, (item, action) in enumerate(zip(row.history, row.actions, strict=True)):
            steps[t] = np.concatenate(
                [self.item(item), self.table("action")[action][: width - len(self.item(0))]]
                if with_actions
                else [self.item(item)]
            )
        return steps

    def unit(self, query: Array, key: Array) -> float:
        """DIN's activation unit of one pair; what a key has beyond the query's length is compared with nothing."""
        shared = key[: len(query)]
        features = np.concatenate([query, key, query - shared, query * shared])
        return head(self.part("attention.net"), features, 2, self.config.activation)

    def weights(self, keys: Array, target: Array) -> Array:
        """Attention of one target over the keys `[T, K]`."""
        if self.config.attention == "bilinear":
            return attention(keys, self.all["attention.weight"], target)
        query = self.all["attention.map.weight"] @ target if "attention.map.weight" in self.all else target
        found = np.array([self.unit(query, key) for key in keys])
        if self.config.model == "din" or not len(found):
            return found
        powers: Array = np.exp(found - found.max())
        return np.asarray(powers / powers.sum())

    def final(self, behaviors: Array, target: Array) -> Sequence[Array]:
        """The final interest, where there is one."""
        config = self.config
        if config.model in ("base", "wide_deep", "pnn"):
            return []
        if config.model == "din":
            return [self.weights(behaviors, target) @ behaviors]
        states = interest_states(self.part("extractor"), behaviors)
        if config.model == "gru_attention":
            upper = interest_states(self.part("second"), states)
            return [self.weights(upper, target) @ upper]
        return [final_interest(self.part("evolution"), states, self.weights(states, target), config.cell)]

    def score_logit(self, row: Row) -> float:
        """The logit of one impression."""
        behaviors, target, config = self.behaviors(row), self.item(row.target), self.config
        pooled = sum(behaviors, np.zeros(behaviors.shape[1])) / max(len(behaviors), 1)
        crossed = target * pooled[: len(target)]
        side = [self.table("user_id")[row.user]] if "embeddings.tables.user_id.weight" in self.all else []
        side += [self.table(name)[row.context[n]] for n, name in enumerate(self.context_fields)]
        parts = [*side, target, pooled]
        if config.model not in ("base", "wide_deep"):
            parts.append(crossed)
        parts += self.final(behaviors, target)
        logit = head(self.part("head"), np.concatenate(parts), len(config.head), config.activation)
        if config.model == "wide_deep":
            wide = self.part("wide")
            logit += float((wide["weight"] @ np.concatenate([target, pooled, crossed]) + wide["bias"])[0])
        return logit

    def of_auxiliary(self, row: Row) -> Array:
        """The states that the auxiliary loss asks, `[T, H]`."""
        own = "extractor.w_input" in self.all
        return interest_states(self.part("extractor" if own else "auxiliary.extractor"), self.behaviors(row))
