"""Models in the shadow: they score what another model has answered, unseen, and are compared with the answer."""

from __future__ import annotations

import asyncio
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.batcher import Batcher
from service.errors import QueueFullError
from service.jobs import Job, Scored, Scores
from service.models import Models, Served
from service.replay import Replay

AFTER = 0.002  # seconds; by then the answer is on its way


@dataclass(slots=True)
class ShadowReport:
    """How far one version of a shadow is from the answers; differences are absolute, of probabilities."""

    version: str
    requests: int = 0  # scored and compared
    shed: int = 0
    failed: int = 0
    candidates: int = 0
    sum_difference: float = 0.0
    max_difference: float = 0.0

    @property
    def mean_difference(self) -> float | None:
        """Over candidates; None while there are none."""
        return self.sum_difference / self.candidates if self.candidates else None

    def add(self, answered: Scores, scored: Scores) -> None:
        """Compares the scores of one request."""
        differences = np.abs(answered.astype(np.float64) - scored)
        self.requests += 1
        self.candidates += len(differences)
        self.sum_difference += float(differences.sum())
        self.max_difference = max(self.max_difference, float(differences.max(initial=0)))


class Shadows:
    """Sends answered requests after their answers to the shadows of their users. Lives on the event loop."""

    def __init__(self, models: Models, batcher: Batcher) -> None:
        self._models, self._batcher = models, batcher
        self.reports: dict[str, ShadowReport] = {}  # by name; a new version begins anew

    def report(self, served: Served) -> ShadowReport:
        """That of the version of a shadow."""
        found = self.reports.get(served.name)
        if found is None or found.version != served.version:
            found = self.reports[served.name] = ShadowReport(served.version)
        return found

    def follow(self, replay: Replay, answered_by: Served, answer: Scores) -> None:
        """Has a request scored by its user's shadows, later, if its answer came from the model of the routes."""
        user_id = replay.asked.user_id
        if replay.asked.model is not None and self._models.of_user(user_id).name != answered_by.name:
            return
        if shadows := self._models.shadows_of(user_id):
            asyncio.get_running_loop().call_later(AFTER, self._submit, replay, shadows, answer)

    def _submit(self, replay: Replay, shadows: list[Served], answer: Scores) -> None:
        for served in shadows:
            scored: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
            job = Job(
                served,
                replay.asked.user_id,
                replay.asked.item_ids,
                replay.context(served),
                replay.history(served),
                math.inf,
                scored,
            )
            scored.add_done_callback(functools.partial(self._compare, served, answer))
            if not self._batcher.follow(job):
                job.fail(QueueFullError("no room"))

    def _compare(self, served: Served, answer: Scores, scored: asyncio.Future[Scored]) -> None:
        error = scored.exception()
        if self._models.get(served.name).version != served.version:
            return  # a new version is being compared by now
        report, counts = self.report(served), self._batcher.counts
        if error is None:
            report.add(answer, scored.result().scores)
            counts["shadow_requests"] += 1
        elif isinstance(error, QueueFullError):
            report.shed += 1
            counts["shadow_shed"] += 1
        else:
            report.failed += 1
            counts["shadow_failed"] += 1

    def describe(self) -> dict[str, Any]:
        """`wire.RoutesInfo`."""
        routes = self._models.routes
        shadows = {name: self._describe(name, share) for name, share in routes.shadows.items()}
        return {"weights": dict(routes.weights), "shadows": shadows}

    def _describe(self, name: str, share: float) -> dict[str, Any]:
        report = self.report(self._models.get(name))
        figures = ("version", "requests", "shed", "failed", "candidates", "mean_difference", "max_difference")
        return {"share": share, **{figure: getattr(report, figure) for figure in figures}}
