"""Where scores are computed: lanes, each a thread that takes what waits, and the queue they take it from.

Work-conserving: a batch is what waits when a lane is free, up to a budget of candidates. A lane takes its next batch by
itself, without asking the event loop, and hands results to the loop in one call.

Behind the queue is another one, of work that nobody waits for. It is taken when nothing else waits, in small pieces,
and never by all lanes at once where there are several, so that a request finds a lane free or soon to be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from model.scorer import ScoreInputError
from service.errors import AugurError, InternalError, InvalidInputError
from service.jobs import Job, Part, Scores
from service.models import Served

log = logging.getLogger("augur.lanes")


class PartQueue:
    """Parts of jobs that can be computed, by user: users take turns, and what one user waits for goes together.

    Filled from the event loop, emptied by lanes. A turn is at most `turn` candidates, or one part; a user who waits
    alone has the whole batch.
    """

    def __init__(self, budget: int, turn: int) -> None:
        self._budget, self._turn = budget, turn
        self._lock = threading.Lock()
        self._users: OrderedDict[str, deque[Part]] = OrderedDict()
        self._candidates = 0

    @property
    def candidates(self) -> int:
        """How many wait."""
        return self._candidates

    def put(self, parts: Sequence[Part]) -> None:
        """Lines all parts of a job up behind what their user waits for already."""
        job = parts[0].job
        with self._lock:
            self._users.setdefault(job.user_id, deque()).extend(parts)
            job.queued = len(job.item_ids)
            self._candidates += job.queued

    def leave(self, job: Job) -> None:
        """Nobody waits for a job any more: its place is free, and what is left of it will be dropped."""
        if job.queued:
            with self._lock:
                self._candidates -= job.queued
                job.queued = 0

    def clear(self) -> set[Job]:
        """Empties the queue; the jobs that were not taken whole."""
        with self._lock:
            jobs = {part.job for waiting in self._users.values() for part in waiting}
            self._users.clear()
            self._candidates = 0
            for job in jobs:
                job.queued = 0
        return jobs

    def oldest(self) -> float | None:
        """When the job arrived whose user is next; None when nothing waits."""
        with self._lock:
            return next(iter(self._users.values()))[0].job.arrived if self._users else None

    def take(self) -> tuple[list[Part], int]:
        """The next batch, and how many parts were dropped because nobody waits for them any more."""
        batch: list[Part] = []
        room, dropped, now = self._budget, 0, time.perf_counter()
        with self._lock:
            full = False
            while self._users and not full:
                user_id, waiting = next(iter(self._users.items()))
                turn = self._turn  # what is left of it
                while waiting:
                    part = waiting[0]
                    weight = part.candidates
                    if part.job.answer.done() or part.job.deadline <= now:
                        dropped += 1
                    elif batch and weight > room:
                        full = True
                        break
                    elif weight > turn and turn < self._turn:
                        break
                    else:
                        batch.append(part)
                        room -= weight
                        turn -= weight
                    waiting.popleft()
                    if part.job.queued:
                        part.job.queued -= weight
                        self._candidates -= weight
                if not waiting:
                    del self._users[user_id]
                elif turn < self._turn:
                    self._users.move_to_end(user_id)
        return batch, dropped


class Outcome(NamedTuple):
    """What became of a part: its scores, or the error that its job ends with."""

    part: Part
    scores: Scores | None
    unknown_items: int = 0
    error: AugurError | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A computed batch."""

    outcomes: list[Outcome]
    seconds: float
    dropped: int
    histories: int  # users' interest states that were computed
    behind: bool = False  # of work that nobody waits for


class Lanes:
    """Threads that compute. `deliver` is called on one of them with each batch."""

    def __init__(self, count: int, budget: int, turn: int, max_wait: float, deliver: Callable[[Batch], None]) -> None:
        self.queue = PartQueue(budget, turn)
        self.piece = max(1, budget // 8)
        self.behind = PartQueue(self.piece, self.piece)
        self._at_behind = threading.Semaphore(max(1, count - 1))
        self._budget, self._max_wait, self._deliver = budget, max_wait, deliver
        self.count = count
        self._begun: dict[int, float] = {}  # when the batches began that are being computed, by thread
        self._started = False
        self._work: SimpleQueue[bool] = SimpleQueue()  # one for each part that was put; False ends a lane
        self._threads = [
            threading.Thread(target=self._run, name=f"augur-lane-{number}", daemon=True) for number in range(count)
        ]

    @property
    def idle(self) -> bool:
        """Nothing waits, and nothing is computed."""
        return not self._begun and not self.queue.candidates

    def start(self) -> None:
        """Starts the threads."""
        self._started = True
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> int:
        """Lanes that compute."""
        return len(self._begun)

    def longest(self) -> float:
        """Seconds since the oldest batch began that is being computed."""
        begun = list(self._begun.values())
        return time.perf_counter() - min(begun) if begun else 0.0

    @property
    def dead(self) -> int:
        """Lanes that ended, which only `close` makes them do."""
        return sum(not thread.is_alive() for thread in self._threads) if self._started else 0

    def put(self, parts: Sequence[Part]) -> None:
        """Queues the parts of a job."""
        self.queue.put(parts)
        for _ in parts:
            self._work.put(True)

    def put_behind(self, parts: Sequence[Part]) -> None:
        """Queues the parts of a job that nobody waits for."""
        self.behind.put(parts)
        for _ in parts:
            self._work.put(True)

    def close(self) -> None:
        """Ends the threads after the batches they are at."""
        self._started = False
        for thread in self._threads:
            if thread.is_alive():
                self._work.put(False)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        while self._work.get():
            self._linger()
            self._step()

    def _step(self) -> None:
        """One batch; a function of its own, so that a lane that waits holds none of it, nor the model it met."""
        batch, dropped = self.queue.take()
        if self.queue.candidates:  # lingering may have used up the signs of what is left
            self._work.put(True)
        if batch or dropped:
            self._deliver(self._timed(batch, dropped))
        elif self.behind.candidates:
            self._step_behind()
            return
        if self._max_wait and self.behind.candidates:
            self._work.put(True)

    def _timed(self, batch: list[Part], dropped: int) -> Batch:
        """A batch, with its thread known to be at it."""
        self._begun[threading.get_ident()] = time.perf_counter()
        try:
            return computed(batch, dropped)
        finally:
            del self._begun[threading.get_ident()]

    def _step_behind(self) -> None:
        """A piece of what nobody waits for, unless all lanes that may are at one."""
        if not self._at_behind.acquire(blocking=False):
            return
        try:
            batch, dropped = self.behind.take()
            self._deliver(replace(self._timed(batch, dropped), behind=True))
        finally:
            self._at_behind.release()
        if self.behind.candidates:  # others may have passed it by meanwhile
            self._work.put(True)

    def _linger(self) -> None:
        """Waits for company, if the settings ask for it: until the first job has waited enough or a batch is full."""
        while self._max_wait and self.queue.candidates < self._budget:
            oldest = self.queue.oldest()
            if oldest is None:
                return
            left = oldest + self._max_wait - time.perf_counter()
            if left <= 0:
                return
            try:
                more = self._work.get(timeout=left)
            except Empty:
                return
            if not more:
                self._work.put(False)
                return


def computed(parts: list[Part], dropped: int = 0) -> Batch:
    """The results of parts, on this thread."""
    begun = time.perf_counter()
    groups: dict[Served, list[Part]] = {}
    for part in parts:
        part.job.taken = part.job.taken or begun
        groups.setdefault(part.job.served, []).append(part)
    outcomes = [outcome for served, group in groups.items() for outcome in compute(served, group)]
    histories = len({(part.job.served, id(part.job.history)) for part in parts})
    return Batch(outcomes, time.perf_counter() - begun, dropped, histories)


def compute(served: Served, parts: Sequence[Part]) -> list[Outcome]:
    """Scores parts that meet one version of a model. When it fails, each is tried alone: one must not fail others."""
    try:
        counted = served.scorer.score_counted([part.as_input() for part in parts])
        return [_outcome(part, *each) for part, each in zip(parts, counted, strict=True)]
    except ScoreInputError as error:
        if len(parts) == 1:
            return [Outcome(parts[0], None, error=InvalidInputError(str(error), field=error.field))]
    except Exception:
        if len(parts) == 1:
            extra = {"request_id": parts[0].job.request_id}
            log.exception("the scorer failed at a request of %d candidates", parts[0].candidates, extra=extra)
            return [Outcome(parts[0], None, error=InternalError("the server failed at this request; its log says why"))]
        log.warning("the scorer failed at a batch of %d requests; each is tried alone", len(parts), exc_info=True)
    return [outcome for part in parts for outcome in compute(served, [part])]


def _outcome(part: Part, scores: Scores, unknown_items: int) -> Outcome:
    if len(scores) != part.candidates or b"\0" in np.isfinite(scores).tobytes():
        raise ValueError(f"{len(scores)} scores for {part.candidates} candidates, or some not finite")
    return Outcome(part, scores, unknown_items)
