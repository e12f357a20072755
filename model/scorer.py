"""The scorer: requests in, click probabilities out, from any model of the zoo, split by what each term depends on.

C candidates of all requests, T steps of a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import kernels
from kernels.contract import check_options
from model.artifact import Artifact, load_artifact
from model.data.dataset import IntArray
from model.ragged import Ids, Ragged, Requests, ScoreInput, ScoreInputError, as_ids
from model.zoo import Runtime, Split, split_network
from model.zoo.dien import DienSplit
from model.zoo.split import AttendingSplit

__all__ = ["Evolution", "Ids", "ScoreInput", "ScoreInputError", "Scorer", "load_scorer"]

TABLE_BUDGET = 1 << 30  # bytes; what would be larger as a table is computed on the fly

Scores = npt.NDArray[np.float32]


class Evolution(NamedTuple):
    """How the interest of a history evolves towards C candidates, over the T behaviours that count."""

    attention: Scores  # [C, T], as `Scorer.attention` has it
    update: Scores  # [C, T] the update gate under attention (AUGRU: a·u, DIEN eq. 14), mean over the hidden units
    moved: Scores  # [C, T] length of the state's change
    probabilities: Scores  # [C, T + 1] were evolution to end here: before the first behaviour, then after each


class Scorer:
    """Click probabilities from an artifact. Safe to call from several threads at once."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "exact",
        threads: int | None = None,
        table_budget: int = TABLE_BUDGET,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        hidden = artifact.config.hidden if artifact.config.definition.recurrent else None
        self.backend = kernels.resolve_backend(backend, self.device.type, torch.float32, hidden)
        check_options(self.backend, threads, precision)
        self.precision, self.threads = precision, threads
        self.name, self.version = artifact.name, artifact.version
        self.training, self.metrics = artifact.training, artifact.metrics
        self.config, self.schema = artifact.config, artifact.schema
        self.parameters, self._title = artifact.parameters, artifact.title
        runtime = Runtime(self.device, self.backend, precision, threads)
        with torch.inference_mode():
            self._split: Split[Any] = split_network(artifact.model().to(self.device), runtime, table_budget)
        self._fused, self._side = self._split.fused, self._split.side
        self._requests = Requests(self.schema, self._side.first_rows)
        self.score([ScoreInput(item_ids=())])  # the kernels refuse here what they cannot do, not at the first request

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions the model knows; empty where it knows none."""
        return self.schema.actions

    @property
    def default_action(self) -> str | None:
        """The action of a behaviour that states none."""
        return self.schema.default_action

    @property
    def context_fields(self) -> tuple[str, ...]:
        """Names of the context fields."""
        return self.schema.context_fields

    @property
    def max_history(self) -> int:
        """How many of the newest behaviours count."""
        return self.schema.max_history

    @property
    def tensors(self) -> list[Tensor]:
        """What its memory goes to: weights, and tables over items, context and users."""
        return self._split.tensors

    @property
    def description(self) -> str:
        """Model, its parameters, backend (of native its instruction set) and device in one line."""
        backend = kernels.describe_backend(self.backend)
        return f"{self._title}, {backend} kernels ({self.precision}) on {self.device.type}"

    @property
    def architecture(self) -> str:
        """Which model of the zoo it is."""
        return self.config.model

    def count_unknown(self, item_ids: Ids) -> int:
        """How many of these items are not in the catalogue and score through the shared row."""
        return _unknown(self.schema.catalogue.rows(as_ids("item_ids", item_ids)))

    def score(self, inputs: Sequence[ScoreInput]) -> list[Scores]:
        """Click probabilities of each input's candidates, in their order.

        Inputs with the same history share its work. Raises ScoreInputError, naming the field, before any is scored.
        """
        return [scores for scores, _ in self.score_counted(inputs)]

    def score_counted(self, inputs: Sequence[ScoreInput]) -> list[tuple[Scores, int]]:
        """Like `score`; beside each input's probabilities how many of its candidates are unknown (`count_unknown`)."""
        if not inputs:
            return []
        batch = self._requests.ragged(inputs)
        probabilities = self._probabilities(batch)
        candidates = batch.rows.candidates
        return [(probabilities[begin:end], _unknown(candidates[begin:end])) for begin, end in pairwise(batch.ends)]

    @property
    def attends(self) -> bool:
        """Whether the model has attention."""
        return isinstance(self._split, AttendingSplit)

    def attention(self, one: ScoreInput) -> Scores:
        """Attention of each candidate over the history that counts: `[C, T]`.

        Rows sum to 1 (DIEN eq. 9), but for DIN's activation unit, whose weights are not normalised. Raises
        ScoreInputError for a model without attention, and as `score` does.
        """
        if not isinstance(self._split, AttendingSplit):
            raise ScoreInputError("model", f"{self.config.title} has no attention")
        rows = self._requests.ragged([one]).on(self.device)
        with torch.inference_mode():
            return self._split.attention(rows).cpu().numpy()

    @property
    def evolves(self) -> bool:
        """Whether the model has interest evolution."""
        return isinstance(self._split, DienSplit)

    def evolution(self, one: ScoreInput) -> Evolution:
        """Interest evolution towards each candidate, step by step; for few candidates, since every state is kept.

        States and attention are the kernels' own, the steps from there on exact whatever the precision: the last
        probability is that of `score` up to rounding (1e-6), with "fast" up to the error of that. Raises
        ScoreInputError for a model without interest evolution, and as `score` does.
        """
        if not isinstance(self._split, DienSplit):
            raise ScoreInputError("model", f"{self.config.title} has no interest evolution")
        rows = self._requests.ragged([one]).on(self.device)
        with torch.inference_mode():
            attention, update, moved, logits = self._split.evolution(rows)
            parts = (attention, update, moved, torch.sigmoid(logits))
            return Evolution(*(part.cpu().numpy() for part in parts))

    def _probabilities(self, batch: Ragged) -> Scores:
        """Click probabilities `[C]`: in one call where it can be, else by one operation after the other."""
        if self._fused is None:
            with torch.inference_mode():
                return torch.sigmoid(self._split.logits(batch.on(self.device))).cpu().numpy()
        table, rows = self._side.table, batch.rows
        if table is None:
            with torch.inference_mode():
                table = self._side(torch.from_numpy(rows.side))
            rows = rows._replace(side=np.arange(len(table)).reshape(-1, 1))
        return self._fused(rows, table, threads=self.threads)


def _unknown(rows: IntArray) -> int:
    return len(rows) - int(np.count_nonzero(rows))


def load_scorer(
    path: str | Path,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "exact",
    threads: int | None = None,
) -> Scorer:
    """A scorer of the artifact in a folder. `threads` is how many a CPU backend may use (None: torch's number).

    Raises ArtifactError for a bad artifact, KernelInputError or BackendUnavailableError for a bad choice of backend.
    """
    return Scorer(load_artifact(path), device=device, backend=backend, precision=precision, threads=threads)
