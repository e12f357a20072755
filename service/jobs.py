"""What passes through the batcher: jobs, the histories they need, the scores they end with."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.scorer import ScoreInput
from service.errors import AugurError
from service.models import Served
from service.stores.records import IntArray, Records
from service.visit import request_id

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What a user did, oldest first."""

    item_ids: IntArray  # [T]
    actions: Sequence[str] | IntArray | None = None  # [T] names, or places in the model's list


NOTHING = History(np.zeros(0, dtype=np.int64))


def history_of(records: Records, served: Served) -> History:
    """The part of a stored sequence that a model can use, in its terms."""
    if not len(records):
        return NOTHING
    recent = records[max(0, len(records) - served.scorer.max_history) :]
    return History(recent["item_id"].astype(np.int64), served.actions.places(recent["action"]))


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a job."""

    scores: Scores  # [C]
    history_length: int
    unknown_items: int
    degraded: str | None
    queued: float  # seconds until a lane took the job up, without `store`
    store: float  # seconds that the store took
    computed: float  # seconds of the batches that the job was part of
    records: Records | None = None  # the stored behaviours that were read for it


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the batcher. All times are of `time.perf_counter`."""

    served: Served
    user_id: str
    item_ids: IntArray  # [C]
    context: Mapping[str, int]
    history: History | None  # None: the stored one
    deadline: float
    answer: asyncio.Future[Scored]
    timer: asyncio.TimerHandle | None = None  # of the deadline, once it may matter
    degraded: str | None = None
    records: Records | None = None  # the stored behaviours, once they are read
    arrived: float = field(default_factory=time.perf_counter)
    store: float = 0.0
    fetching: bool = False  # waits for its history
    queued: int = 0  # candidates that wait for a lane; the queue's own
    taken: float = 0.0  # when a lane took up the first part
    computed: float = 0.0
    parts_left: int = 1
    unknown_items: int = 0
    scores: Scores | None = None  # [C] of a job in several parts
    request_id: str | None = field(default_factory=request_id)

    def fail(self, error: AugurError) -> None:
        """Answers with an error, unless there is an answer or nobody waits for one."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def parts(self, most: int) -> list[Part]:
        """The job in equal parts of at most so many candidates."""
        if len(self.item_ids) <= most:
            return [Part(self, 0, len(self.item_ids))]
        count = -(-len(self.item_ids) // most)
        cuts = [len(self.item_ids) * n // count for n in range(count + 1)]
        self.parts_left = count
        return [Part(self, *pair) for pair in itertools.pairwise(cuts)]

    def add(self, part: Part, scores: Scores, unknown: int, seconds: float) -> None:
        """The result of a part; the last one answers."""
        self.unknown_items += unknown
        self.computed += seconds
        self.parts_left -= 1
        if len(scores) == len(self.item_ids):
            self.scores = scores
        else:
            if self.scores is None:
                self.scores = np.empty(len(self.item_ids), dtype=np.float32)
            self.scores[part.first : part.last] = scores
        if self.parts_left == 0 and not self.answer.done():
            queued = self.taken - self.arrived - self.store
            length = min(len(self.history.item_ids), self.served.scorer.max_history) if self.history else 0
            times = queued, self.store, self.computed
            self.answer.set_result(Scored(self.scores, length, self.unknown_items, self.degraded, *times, self.records))


class Part(NamedTuple):
    """Candidates `first` to `last` of a job: what a batch is made of."""

    job: Job
    first: int
    last: int

    @property
    def candidates(self) -> int:
        """What it weighs in a batch."""
        return self.last - self.first

    def as_input(self) -> ScoreInput:
        """What the scorer is asked."""
        job = self.job
        history = job.history or NOTHING
        return ScoreInput(
            item_ids=job.item_ids[self.first : self.last],
            history=history.item_ids,
            actions=history.actions,
            context=job.context,
            user_id=catalogue_user(job.user_id),
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
