"""Turns requests into batches for the scorer, and its scores into answers.

A request is admitted (a queue bounded in candidates, a deadline), gets its user's history (one read for all requests of
a tick of the event loop, in which each user stands once), and waits for a lane (`lanes.py`), which takes all that waits
as one batch. Nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context

from service.errors import (
    ClientGoneError,
    DeadlineExceededError,
    DrainingError,
    InternalError,
    QueueFullError,
)
from service.jobs import History, Job, Scored, history_of
from service.lanes import Batch, Lanes, computed
from service.models import Served
from service.settings import Settings
from service.stores.guarded import GuardedStore, Recalled
from service.stores.records import IntArray
from service.tallies import Tallies

log = logging.getLogger("augur.batcher")

# Seconds within which nearly all requests are answered: what waits longer gets a timer for its deadline, and its
# client's connection is watched.
WATCH_AFTER = 0.02
NOBODYS = Context()  # what runs for several requests does not run in the context of one
Gone = Callable[[], Awaitable[None]]  # returns when the client has closed its connection


class Batcher:
    """Between the routes and the lanes; everything here runs on the event loop.

    `counts` grows with what happened: batches, requests and candidates computed, `histories` (users whose interest
    states were computed for them), users fetched, `shared` (requests that rode on the fetch of another one of their
    user), and dropped, expired, abandoned and refused requests; of jobs that nobody waits for, `shadow_candidates`
    alone.
    """

    def __init__(self, store: GuardedStore, settings: Settings) -> None:
        self.counts: Counter[str] = Counter()
        self.tallies = Tallies()
        self._store = store
        self._settings = settings
        self._budget = settings.batch_candidates
        self._arrived: list[Job] = []  # in this turn of the event loop
        self._fetching = 0  # candidates of jobs that wait for their history
        self._background: set[asyncio.Task[None]] = set()
        self._open_jobs: set[Job] = set()
        self._young: list[tuple[Job, int, Gone | None]] = []  # arrived since the timer of `_grow` was set
        self._draining = False
        self._loop: asyncio.AbstractEventLoop
        self.lanes = Lanes(
            settings.compute_lanes, self._budget, max(1, self._budget // 4), settings.max_wait_us / 1e6, self._hand_over
        )

    @property
    def waiting(self) -> int:
        """Candidates that were admitted and are not computed yet."""
        return self._fetching + self.lanes.queue.candidates

    def start(self) -> None:
        """Starts the lanes; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self.lanes.start()

    async def close(self, drain_seconds: float) -> None:
        """Takes no more jobs, finishes those it has within a bound, and refuses what is left."""
        self._draining = True
        answers = [job.answer for job in self._open_jobs]
        if answers:
            await asyncio.wait(answers, timeout=drain_seconds)
        self.refuse()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.to_thread(self.lanes.close)

    def refuse(self) -> None:
        """Takes no more jobs, and fails those it has."""
        self._draining = True
        for job in self._open_jobs:
            job.fail(DrainingError("the server stopped before these scores were ready"))

    async def score(
        self,
        served: Served,
        user_id: str,
        item_ids: IntArray,
        context: Mapping[str, int],
        history: History | None,
        timeout_ms: int,
        gone: Gone | None = None,
    ) -> Scored:
        """The scores of one request; cancelled, the request costs no compute if it had none yet.

        `gone` returns when the client has closed its connection; it is asked once the request has waited for a while.

        Raises:
            QueueFullError: more candidates wait than are allowed to.
            DeadlineExceededError: `timeout_ms` passed.
            DrainingError: the server is stopping.
            ClientGoneError: `gone` returned.
            InvalidInputError: the scorer refused the input.
        """
        self._admit(len(item_ids))
        seconds = timeout_ms / 1000
        deadline = time.perf_counter() + seconds
        job = Job(served, user_id, item_ids, context, history, deadline, self._loop.create_future())
        if seconds > WATCH_AFTER:
            if not self._young:
                self._loop.call_later(WATCH_AFTER, self._grow, context=NOBODYS)
            self._young.append((job, timeout_ms, gone))
        else:
            job.timer = self._loop.call_later(seconds, self._expire, job, timeout_ms)
        self._open_jobs.add(job)
        self._enqueue(job)
        try:
            scored = await job.answer
        finally:
            if job.timer is not None:
                job.timer.cancel()
                job.timer = None  # which has the context of this request, in which the job is known
            self._open_jobs.discard(job)
            self._leave(job)
        self.tallies.scored(job, scored)
        return scored

    def follow(self, job: Job) -> bool:
        """Takes a job that nobody waits for, to be computed when nothing else is; False if there is no room for it.

        There is none once a quarter of the queue is in use, and what was taken by then ends with QueueFullError.
        """
        room = self._settings.queue_candidates // 4
        if self.waiting > room:
            for other in self.lanes.behind.clear():
                other.fail(QueueFullError("requests wait"))
            return False
        if self._draining or self.lanes.behind.candidates + len(job.item_ids) > room:
            return False
        self.lanes.put_behind(job.parts(self.lanes.piece))
        return True

    def _leave(self, job: Job) -> None:
        """Frees what place a job still has in the queues."""
        if job.fetching:
            job.fetching = False
            self._fetching -= len(job.item_ids)
        self.lanes.queue.leave(job)

    def _admit(self, candidates: int) -> None:
        if self._draining:
            raise DrainingError("the server is stopping")
        waiting = self.waiting
        if waiting + candidates > self._settings.queue_candidates:
            self.counts["refused"] += 1
            raise QueueFullError(
                f"{waiting} candidates wait already: {candidates} more would pass "
                f"AUGUR_QUEUE_CANDIDATES ({self._settings.queue_candidates})"
            )

    def _expire(self, job: Job, timeout_ms: int) -> None:
        if not job.answer.done():
            self.counts["expired"] += 1
            job.fail(DeadlineExceededError(f"no scores within {timeout_ms} ms"))

    def _grow(self) -> None:
        """Sets the timers of the jobs that arrived lately and wait; most are answered before they need any."""
        young, self._young = self._young, []
        now = time.perf_counter()
        for job, timeout_ms, gone in young:
            if not job.answer.done():
                job.timer = self._loop.call_later(max(0.0, job.deadline - now), self._expire, job, timeout_ms)
                if gone is not None:
                    self._watch(job, gone)

    def _watch(self, job: Job, gone: Gone) -> None:
        """Gives a job up when its client goes."""
        watch = self._loop.create_task(self._give_up(job, gone))
        self._background.add(watch)
        watch.add_done_callback(self._background.discard)
        job.answer.add_done_callback(lambda _: watch.cancel())

    async def _give_up(self, job: Job, gone: Gone) -> None:
        await gone()
        self.counts["abandoned"] += 1
        job.fail(ClientGoneError("the client closed the connection before its scores were ready"))

    # First stage: histories.

    def _enqueue(self, job: Job) -> None:
        if not self._arrived:
            self._loop.call_soon(self._begin)
        self._arrived.append(job)
        job.fetching = True
        self._fetching += len(job.item_ids)

    def _begin(self) -> None:
        """All that arrived in a turn of the event loop."""
        jobs, self._arrived = self._without_dropped(self._arrived), []
        lacking = [job for job in jobs if job.history is None]
        if lacking and self._store.local:
            self._give(lacking, self._store.recall_local({job.user_id for job in lacking}))
        elif lacking:
            fetch = self._loop.create_task(self._fetch(lacking))
            self._background.add(fetch)
            fetch.add_done_callback(self._background.discard)
        self._line_up([job for job in jobs if job.history is not None])

    async def _fetch(self, jobs: list[Job]) -> None:
        """Gives each job its user's history and lets it go on: one read for all of them."""
        begun = time.perf_counter()
        try:
            await self._recall(jobs)
        except Exception:
            log.exception("the fetch of %d requests failed", len(jobs))
            for job in jobs:
                job.fail(InternalError("the server failed at this request; its log says why"))
        seconds = time.perf_counter() - begun
        for job in jobs:
            job.store = seconds
        self._line_up(self._without_dropped(jobs))

    async def _recall(self, jobs: list[Job]) -> None:
        users = list(dict.fromkeys(job.user_id for job in jobs))
        self._give(jobs, dict(zip(users, await self._store.recall(users), strict=True)))

    def _give(self, jobs: list[Job], recalled: dict[str, Recalled]) -> None:
        """What is known of users, to the jobs of each."""
        self.counts["fetched_users"] += len(recalled)
        self.counts["shared"] += len(jobs) - len(recalled)
        # One object for all jobs of a user, so that the scorer sees at once that they are equal.
        found: dict[tuple[str, Served], History] = {}
        for job in jobs:
            job.records, job.degraded = recalled[job.user_id]
            key = job.user_id, job.served
            history = found.get(key)
            if history is None:
                history = found[key] = history_of(job.records, job.served)
            job.history = history

    def _without_dropped(self, jobs: list[Job]) -> list[Job]:
        """Leaves out jobs that nobody waits for any more: their deadline passed or their client went."""
        now = time.perf_counter()
        alive = [job for job in jobs if not job.answer.done() and job.deadline > now]
        self.counts["dropped"] += len(jobs) - len(alive)
        return alive

    # Second stage: scores.

    def _line_up(self, jobs: list[Job]) -> None:
        """Lets jobs with a history be computed: by the lanes, or here where handing over would cost more than that."""
        total = 0
        for job in jobs:
            self._leave(job)
            total += len(job.item_ids)
        settings = self._settings
        if jobs and total <= settings.inline_candidates and not settings.max_wait_us and self.lanes.idle:
            self._deliver(computed([part for job in jobs for part in job.parts(self._budget)]))
        else:
            for job in jobs:
                self.lanes.put(job.parts(self._budget))

    def _hand_over(self, batch: Batch) -> None:
        """From a lane's thread to the event loop."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, batch)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.debug("a batch of %d parts came after the end", len(batch.outcomes))

    def _deliver(self, batch: Batch) -> None:
        counts, outcomes = self.counts, batch.outcomes
        if batch.behind:
            self._deliver_behind(batch)
            return
        counts["dropped"] += batch.dropped
        counts["batches"] += bool(outcomes)
        counts["histories"] += batch.histories
        if outcomes:
            candidates = sum(each.part.candidates for each in outcomes)
            self.tallies.computed(len(outcomes), candidates, batch.histories, batch.seconds)
        for part, scores, unknown, error in outcomes:
            counts["candidates"] += part.last - part.first
            if error is not None or scores is None:
                part.job.fail(error or InternalError("no scores"))
            else:
                part.job.add(part, scores, unknown, batch.seconds)
                counts["requests"] += part.job.parts_left == 0

    def _deliver_behind(self, batch: Batch) -> None:
        self.tallies.busy_seconds += batch.seconds
        for part, scores, unknown, error in batch.outcomes:
            self.counts["shadow_candidates"] += part.candidates
            if error is not None or scores is None:
                part.job.fail(error or InternalError("no scores"))
            else:
                part.job.add(part, scores, unknown, batch.seconds)
