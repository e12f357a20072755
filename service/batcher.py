"""Turns requests that wait into batches for the scorer, and its scores into answers.

Work-conserving: nothing waits for a timer. While the scorer computes, requests gather; when it is free, what has
gathered is the next batch, up to a budget of candidates. Before that, all that arrived while the store was busy share
one fetch, in which each user stands once. The two stages overlap: the next batch is fetched while one is computed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from model.scorer import ScoreInput, ScoreInputError
from service.actions import ActionCodes
from service.errors import (
    AugurError,
    DeadlineExceededError,
    DrainingError,
    InternalError,
    InvalidInputError,
    QueueFullError,
)
from service.jobs import NOTHING, BatchScorer, History, Job, Scored, Scores
from service.settings import Settings
from service.stores.guarded import GuardedStore
from service.stores.records import IntArray, Records

log = logging.getLogger("augur.batcher")


class Batcher:
    """Between the routes and a scorer. One event loop, one thread for the arithmetic.

    `counts` grows with what happened: batches, requests, candidates, users fetched, `shared` (requests that rode on
    the fetch of another one of their user), abandoned, expired, refused and degraded requests.
    """

    def __init__(self, scorer: BatchScorer, store: GuardedStore, actions: ActionCodes, settings: Settings) -> None:
        self.counts: Counter[str] = Counter()
        self._scorer = scorer
        self._store = store
        self._actions = actions
        self._settings = settings
        self._waiting = 0  # candidates in the two queues
        self._to_fetch: deque[Job] = deque()
        self._ready: deque[Job] = deque()
        self._fetch_wanted = asyncio.Event()
        self._batch_wanted = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="augur-scorer")
        self._tasks: list[asyncio.Task[None]] = []
        self._open_jobs: set[Job] = set()
        self._draining = False

    async def start(self) -> None:
        """Warms the scorer up, without a user and with a long history, and starts both stages."""
        items = np.zeros(200, dtype=np.int64)
        inputs = [ScoreInput(items[:1]), ScoreInput(items, np.zeros(self._scorer.max_history, dtype=np.int64))]
        await asyncio.get_running_loop().run_in_executor(self._thread, self._scorer.score, inputs)
        self._tasks = [asyncio.create_task(self._fetch_stage()), asyncio.create_task(self._score_stage())]

    async def close(self, drain_seconds: float) -> None:
        """Takes no more jobs, finishes those it has within a bound, and refuses what is left."""
        self._draining = True
        answers = [job.answer for job in self._open_jobs]
        if answers:
            await asyncio.wait(answers, timeout=drain_seconds)
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=True, cancel_futures=True)

    def refuse(self) -> None:
        """Takes no more jobs, and fails those it has."""
        self._draining = True
        for job in self._open_jobs:
            job.fail(DrainingError("the server stopped before these scores were ready"))

    async def score(
        self, user_id: str, item_ids: IntArray, context: Mapping[str, int], history: History | None, timeout_ms: int
    ) -> Scored:
        """The scores of one request; cancelled, the request costs no compute if it had none yet.

        Raises:
            QueueFullError: more candidates wait than are allowed to.
            DeadlineExceededError: `timeout_ms` passed.
            DrainingError: the server is stopping.
            InvalidInputError: the scorer refused the input.
        """
        self._admit(len(item_ids))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        job = Job(user_id, item_ids, context, history, deadline, loop.create_future())
        self._enqueue(job)
        try:
            async with asyncio.timeout_at(deadline):
                return await job.answer
        except TimeoutError:
            self.counts["expired"] += 1
            raise DeadlineExceededError(f"no scores within {timeout_ms} ms") from None
        finally:
            self._leave_queue(job)
            self._open_jobs.discard(job)

    def _admit(self, candidates: int) -> None:
        if self._draining:
            raise DrainingError("the server is stopping")
        if self._waiting + candidates > self._settings.queue_candidates:
            self.counts["refused"] += 1
            raise QueueFullError(
                f"{self._waiting} candidates wait already: {candidates} more would pass "
                f"AUGUR_QUEUE_CANDIDATES ({self._settings.queue_candidates})"
            )

    def _enqueue(self, job: Job) -> None:
        self._waiting += job.candidates
        self._open_jobs.add(job)
        if job.history is None:
            self._to_fetch.append(job)
            self._fetch_wanted.set()
        else:
            self._make_ready([job])

    def _leave_queue(self, job: Job) -> None:
        if job.queued:
            job.queued = False
            self._waiting -= job.candidates

    def _make_ready(self, jobs: Sequence[Job]) -> None:
        self._ready.extend(jobs)
        self._batch_wanted.set()

    # First stage: histories.

    async def _fetch_stage(self) -> None:
        while True:
            await self._fetch_wanted.wait()
            self._fetch_wanted.clear()
            jobs = self._without_dropped(self._to_fetch)
            self._to_fetch.clear()
            if not jobs:
                continue
            try:
                await self._fetch(jobs)
            except Exception:
                log.exception("the fetch of %d requests failed", len(jobs))
                for job in jobs:
                    job.fail(InternalError("the server failed at this request; its log says why"))
            else:
                self._make_ready(jobs)

    async def _fetch(self, jobs: Sequence[Job]) -> None:
        """Gives each job its user's history: one read for all of them, one object for all jobs of a user."""
        users = list(dict.fromkeys(job.user_id for job in jobs))
        self.counts["fetched_users"] += len(users)
        self.counts["shared"] += len(jobs) - len(users)
        recalled = await self._store.recall(users)
        found = {
            user: (self._history(known.records), known.degraded) for user, known in zip(users, recalled, strict=True)
        }
        for job in jobs:
            job.history, job.degraded = found[job.user_id]
            self.counts["degraded"] += job.degraded is not None

    def _history(self, sequence: Records) -> History:
        if not len(sequence):
            return NOTHING
        recent = sequence[max(0, len(sequence) - self._scorer.max_history) :]
        return History(recent["item_id"].astype(np.int64), self._actions.places(recent["action"]))

    # Second stage: scores.

    async def _score_stage(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._ready:
                self._batch_wanted.clear()
                await self._batch_wanted.wait()
            await self._linger()
            batch = self._next_batch()
            if not batch:
                continue
            self.counts.update(batches=1, requests=len(batch), candidates=sum(job.candidates for job in batch))
            results = await loop.run_in_executor(self._thread, self._compute, batch)
            for job, result in zip(batch, results, strict=True):
                if isinstance(result, AugurError):
                    job.fail(result)
                elif not job.answer.done():
                    job.answer.set_result(result)

    async def _linger(self) -> None:
        """Waits for company, if the settings ask for it: until the first job has waited enough or a batch is full."""
        seconds = self._settings.max_wait_us / 1e6
        while seconds and self._ready and sum(job.candidates for job in self._ready) < self._settings.batch_candidates:
            left = self._ready[0].arrived + seconds - asyncio.get_running_loop().time()
            self._batch_wanted.clear()
            try:
                async with asyncio.timeout(left):
                    await self._batch_wanted.wait()
            except TimeoutError:
                return

    def _next_batch(self) -> list[Job]:
        """The jobs that waited longest and fit the budget together; at least one, however large."""
        batch: list[Job] = []
        room = self._settings.batch_candidates
        while self._ready and (not batch or self._ready[0].candidates <= room):
            for job in self._without_dropped([self._ready.popleft()]):
                room -= job.candidates
                self._leave_queue(job)
                batch.append(job)
        return batch

    def _without_dropped(self, jobs: Sequence[Job]) -> list[Job]:
        """Leaves out jobs that nobody waits for any more: their deadline passed or their client went."""
        now = asyncio.get_running_loop().time()
        alive = [job for job in jobs if not job.answer.done() and job.deadline > now]
        self.counts["dropped"] += len(jobs) - len(alive)
        return alive

    def _compute(self, batch: Sequence[Job]) -> list[Scored | AugurError]:
        """Scores a batch, on the scorer's thread. When it fails, each job is tried alone: one must not fail others."""
        try:
            scores = self._scorer.score([job.as_input() for job in batch])
            return [self._scored(job, row) for job, row in zip(batch, scores, strict=True)]
        except ScoreInputError as error:
            if len(batch) == 1:
                return [InvalidInputError(str(error), field=error.field)]
        except Exception:
            if len(batch) == 1:
                log.exception("the scorer failed at a request of %d candidates", batch[0].candidates)
                return [InternalError("the server failed at this request; its log says why")]
            log.warning("the scorer failed at a batch of %d requests; each is tried alone", len(batch), exc_info=True)
        return [result for job in batch for result in self._compute([job])]

    def _scored(self, job: Job, scores: Scores) -> Scored:
        if len(scores) != job.candidates or not np.isfinite(scores).all():
            raise ValueError(f"{len(scores)} scores for {job.candidates} candidates, or some not finite")
        length = min(len(job.history.item_ids) if job.history else 0, self._scorer.max_history)
        return Scored(scores, length, self._scorer.count_unknown(job.item_ids), job.degraded)
