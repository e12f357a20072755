"""DIEN in eager PyTorch: the network that was trained, asked for one padded batch a request.

C candidates of a request, T behaviours of its user, K context fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from loadtest.baseline import fused as by_kernels
from model.artifact import load_artifact
from model.embeddings import Inputs
from model.features import OUT_OF_VOCABULARY

UNKNOWN_ACTION = -1


class History(NamedTuple):
    """What a user did, oldest first."""

    item_ids: list[int]
    actions: list[int]  # places in the model's list


class EagerDien:
    """The artifact's network, in evaluation mode; `fused`: its recurrences by the kernels."""

    def __init__(self, folder: Path, *, fused: bool = False) -> None:
        self.artifact = load_artifact(folder)
        self._schema = self.artifact.schema
        self._network = by_kernels.fused(self.artifact) if fused else self.artifact.model()
        self._recurrences = by_kernels.describe(self.artifact) if fused else "eager PyTorch"

    @property
    def max_history(self) -> int:
        """How many of the newest behaviours count."""
        return self._schema.max_history

    @property
    def description(self) -> str:
        """Architecture, size and what computes the recurrences in one line."""
        return f"{self.artifact.config.title}, {self._recurrences}, repeated for each candidate"

    def action_places(self, names: Sequence[str | None]) -> list[int]:
        """Places of actions by name; of the default one where there is none, -1 for an unknown one."""
        known = {name: place for place, name in enumerate(self._schema.actions)}
        default = known.get(self._schema.default_action or "", UNKNOWN_ACTION)
        return [default if name is None else known.get(name, UNKNOWN_ACTION) for name in names]

    def count_unknown(self, item_ids: Sequence[int]) -> int:
        """How many of these items are not in the catalogue."""
        return int((self._schema.catalogue.rows(item_ids) == OUT_OF_VOCABULARY).sum())

    def score(self, user_id: str, item_ids: Sequence[int], history: History, context: Mapping[str, int]) -> list[float]:
        """Click probabilities of the candidates."""
        inputs = self._inputs(user_id, item_ids, history, context)
        with torch.inference_mode():
            return torch.sigmoid(self._network(inputs)).tolist()

    def _inputs(self, user_id: str, item_ids: Sequence[int], history: History, context: Mapping[str, int]) -> Inputs:
        schema, count = self._schema, len(item_ids)
        length = len(history.item_ids)
        # A network needs a step to walk, also for a user without behaviours; the length says that it does not count.
        items = schema.catalogue.rows(history.item_ids or [0])
        actions = schema.action_rows(history.actions or [0]) if schema.actions else np.zeros_like(items)
        fields = [
            int(schema.vocabularies[name].rows(context[name])) if name in context else OUT_OF_VOCABULARY
            for name in schema.context_fields
        ]
        return Inputs(
            user=torch.full((count,), self._user_row(user_id)),
            context=torch.tensor([fields]).expand(count, -1),
            target=torch.from_numpy(schema.catalogue.rows(item_ids)),
            history=torch.from_numpy(items).expand(count, -1),
            actions=torch.from_numpy(actions).expand(count, -1),
            lengths=torch.full((count,), length),
        )

    def _user_row(self, user_id: str) -> int:
        known = self._schema.uses_user_id and user_id.isdecimal() and str(int(user_id)) == user_id
        return int(self._schema.vocabularies["user_id"].rows(int(user_id))) if known else OUT_OF_VOCABULARY
