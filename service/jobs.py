"""What passes through the batcher: jobs, the histories they need, the scores they end with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.scorer import ScoreInput
from service.errors import AugurError
from service.stores.records import IntArray

Scores = npt.NDArray[np.float32]


class BatchScorer(Protocol):
    """What the batcher asks of `model.scorer.Scorer`."""

    @property
    def max_history(self) -> int:
        """The most recent behaviours a score can depend on."""

    def score(self, inputs: Sequence[ScoreInput]) -> list[Scores]:
        """Click probabilities [C] of each input; equal histories are computed once."""

    def count_unknown(self, item_ids: IntArray) -> int:
        """Candidates the model does not know."""


@dataclass(frozen=True, slots=True)
class History:
    """What a user did, oldest first."""

    item_ids: IntArray  # [T]
    actions: Sequence[str] | IntArray | None = None  # [T] names, or places in the model's list


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a job."""

    scores: Scores  # [C]
    history_length: int
    unknown_items: int
    degraded: str | None


NOTHING = History(np.zeros(0, dtype=np.int64))


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the batcher."""

    user_id: str
    item_ids: IntArray  # [C]
    context: Mapping[str, int]
    history: History | None  # None: the stored one
    deadline: float  # of the loop's clock
    answer: asyncio.Future[Scored]
    degraded: str | None = None
    queued: bool = True  # weighs in the queue
    arrived: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def candidates(self) -> int:
        """What the job weighs in the queue and in a batch."""
        return len(self.item_ids)

    def fail(self, error: AugurError) -> None:
        """Answers with an error, unless there is an answer or nobody waits for one."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def as_input(self) -> ScoreInput:
        """What the scorer is asked."""
        history = self.history or NOTHING
        return ScoreInput(
            item_ids=self.item_ids,
            history=history.item_ids,
            actions=history.actions,
            context=self.context,
            user_id=catalogue_user(self.user_id),
        )


def catalogue_user(user_id: str) -> int | None:
    """The user's number in the training data; None unless the text is exactly how an int64 is written.

    "007" is not user 7: two texts must never share a user's row.
    """
    try:
        number = int(user_id)
    except ValueError:
        return None
    return number if str(number) == user_id and -(2**63) <= number < 2**63 else None
