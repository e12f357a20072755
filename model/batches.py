"""Impressions to padded batches: histories gathered point in time, negatives drawn, all by seed and step alone.

M impressions, N behaviours of all users end to end, B rows, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.data import DataSet
from model.data.dataset import TRAIN, Impressions, IntArray
from model.data.sequences import draw, popularity
from model.embeddings import Inputs
from model.features import FeatureSchema, seen_in_training
from model.zoo.auxiliary import Following


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training or evaluation step sees."""

    inputs: Inputs
    following: Following
    clicks: Tensor  # float32 [B]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        inputs = Inputs(*(part.to(device) for part in self.inputs))
        following = Following(*(part.to(device) for part in self.following))
        return Batch(inputs, following, self.clicks.to(device))


class Batcher:
    """One split of a data set in the terms of a schema."""

    def __init__(self, data: DataSet, schema: FeatureSchema, split: int, *, negatives: str = "sampled") -> None:
        self.schema = schema
        self.impressions: Impressions = data.split(split)
        self.sampled_negatives = data.sampled_negatives and split == TRAIN
        behaviors = data.behaviors
        first, self.end = behaviors.before(self.impressions.user_ids, self.impressions.timestamps_ms)
        self.start = np.maximum(first, self.end - schema.max_history)
        self.target = schema.catalogue.rows(self.impressions.item_ids)
        self.user = schema.vocabularies["user_id"].rows(self.impressions.user_ids) if schema.uses_user_id else None
        context = [schema.vocabularies[name].rows(self.impressions.context[name]) for name in schema.context_fields]
        self.context = np.stack(context, axis=1) if context else np.zeros((len(self.impressions), 0), dtype=np.int64)
        # Behaviours end to end, and one blank after the last, for padding to point at.
        self.history = np.append(schema.catalogue.rows(behaviors.item_ids), 0)
        self.actions = np.zeros(len(self.history), dtype=np.int64)
        if behaviors.actions is not None:
            self.actions[:-1] = schema.action_rows(behaviors.actions)
        self._foretell(data, negatives == "shown")
        train = data.split(TRAIN)
        frequent = np.concatenate([train.item_ids, behaviors.item_ids[seen_in_training(data)]])
        rows = schema.catalogue.rows(frequent)
        self.frequencies = popularity(rows[rows > 0])

    def _foretell(self, data: DataSet, shown: bool) -> None:
        """What the auxiliary loss asks at each behaviour and at the blank: chosen, its own negative, against, drawn.

        Negatives that were shown: an exposure is one itself; something chosen has the one the data gives. Drawn ones,
        for everything or where the data has none, come with each batch.
        """
        behaviors = data.behaviors
        items, given = self.history[:-1], None
        if shown and behaviors.negatives is not None:
            given = self.schema.catalogue.rows(behaviors.negatives)
        exposure = np.zeros(len(items), dtype=bool)
        if shown and data.shown_action is not None and behaviors.actions is not None:
            exposure = np.asarray(behaviors.actions == data.shown_action)
        own = exposure if given is None else exposure | (given != items)
        drawn = np.zeros(len(items), dtype=bool) if exposure.any() else ~own
        self.chosen, self.against, self.drawn = (np.append(part, False) for part in (~exposure, own | drawn, drawn))
        self.negatives = self.history.copy()
        if given is not None:
            self.negatives[:-1] = np.where(exposure, items, given)

    def __len__(self) -> int:
        """Impressions; a training positive that draws its negative counts once."""
        return len(self.impressions)

    def epoch(
        self,
        size: int,
        seed: int,
        epoch: int,
        *,
        unknown_rate: float = 0.0,
        first_step: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[Batch]:
        """Batches of one shuffled epoch from `first_step` on; of each, the share of one of `ranks` workers.

        A rest of fewer rows than workers is repeated among them: none may be left without a row. With `unknown_rate`
        so many ids are made unknown, see `with_unknowns`.
        """
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        for step in range(first_step, self.steps(size)):
            rows = order[step * size : (step + 1) * size]
            if len(rows) < ranks:
                rows = np.resize(rows, ranks)
            generator = np.random.default_rng([seed, epoch, step, rank])
            yield with_unknowns(self.batch(rows[rank::ranks], generator), unknown_rate, generator)

    def steps(self, size: int) -> int:
        """Batches in an epoch."""
        return -(-len(self) // size)

    def chunks(self, size: int) -> Iterator[tuple[IntArray, Batch]]:
        """All impressions once, for evaluation: their places, and the batch in that order."""
        order = np.argsort(self.start - self.end, kind="stable")
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            yield rows, self.batch(rows, np.random.default_rng(start))

    def batch(self, rows: IntArray, generator: np.random.Generator) -> Batch:
        """The impressions at `rows`; where negatives are sampled, each positive followed by its negative."""
        target, clicks = self.target[rows], self.impressions.clicks[rows]
        if self.sampled_negatives:
            target = np.concatenate([target, draw(self.frequencies, target, generator)])
            clicks = np.concatenate([clicks, np.zeros_like(clicks)])
            rows = np.concatenate([rows, rows])
        # Longest history first: the scans then work on ever fewer rows.
        order = np.argsort(self.start[rows] - self.end[rows], kind="stable")
        rows, target, clicks = rows[order], target[order], clicks[order]
        lengths = self.end[rows] - self.start[rows]
        steps = max(int(lengths.max(initial=0)), 1)
        place = self.start[rows, None] + np.arange(steps)
        place = np.where(np.arange(steps) < lengths[:, None], place, -1)
        inputs = Inputs(
            user=torch.from_numpy(self.user[rows] if self.user is not None else np.zeros(len(rows), dtype=np.int64)),
            context=torch.from_numpy(self.context[rows]),
            target=torch.from_numpy(target),
            history=torch.from_numpy(self.history[place]),
            actions=torch.from_numpy(self.actions[place]),
            lengths=torch.from_numpy(lengths),
        )
        return Batch(inputs, self._following(place, generator), torch.from_numpy(clicks.astype(np.float32)))

    def _following(self, place: IntArray, generator: np.random.Generator) -> Following:
        negatives, against = self.negatives[place], self.against[place]
        if len(self.frequencies[0]) > 1:
            drawn = draw(self.frequencies, self.history[place].reshape(-1), generator).reshape(place.shape)
            negatives = np.where(self.drawn[place], drawn, negatives)
        else:
            against = against & ~self.drawn[place]
        return Following(torch.from_numpy(self.chosen[place]), torch.from_numpy(negatives), torch.from_numpy(against))


def with_unknowns(batch: Batch, rate: float, generator: np.random.Generator) -> Batch:
    """The batch with each user, context value, item and action made unknown at this rate.

    An id that training never saw scores through the row of the unknown; only so has that row been trained.
    """
    if rate == 0:
        return batch
    kept = {
        name: part * torch.from_numpy(generator.random(part.shape) >= rate)
        for name, part in batch.inputs._asdict().items()
        if name != "lengths"
    }
    return Batch(batch.inputs._replace(**kept), batch.following, batch.clicks)
