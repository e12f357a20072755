"""Readers of a feed, for locust: `locust -f loadtest/locustfile.py --host URL`.

A reader opens the feed at some impression of the log. In a quarter of the visits the page has two slots, and a request
for each is under way at once, for the same user: what a server may join. Of eleven requests ten ask for scores and one
says what was watched, which the server will keep.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, between, events, task
from locust.env import Environment
from locust.exception import StopUser

from loadtest.traffic import Traffic, wrong, wrong_counts, wrong_scores

TWO_SLOTS = 0.25


class Reader(FastHttpUser):
    """Someone at the feed."""

    wait_time = between(0.05, 0.2)
    connection_timeout = network_timeout = 10.0
    traffic: ClassVar[Traffic]
    model: dict[str, Any]

    def on_start(self) -> None:
        """Asks what the served model takes."""
        with self.client.get("/v1/models", catch_response=True) as response:
            reason = wrong(response.status_code, response.text or "", lambda answer: self._take(answer["models"][0]))
            if reason:
                response.failure(reason)
                raise StopUser

    # 1.25 requests each: ten of scores for one of behaviours.
    @task(8)
    def open_feed(self) -> None:
        """One slot of the page or two, and a request for each."""
        row = self.traffic.visit()
        slots = 2 if self.traffic.chance(TWO_SLOTS) else 1
        gevent.joinall([gevent.spawn(self._score, row) for _ in range(slots)], raise_error=True)

    @task(1)
    def watch(self) -> None:
        """Something was watched."""
        body = self.traffic.behavior(self.traffic.visit(), self.model["actions"])
        self._post("/v1/behaviors", body, partial(wrong_counts, events=len(body["events"])))

    def _score(self, row: int) -> None:
        body = self.traffic.score(row, self.model["context_fields"])
        self._post("/v1/score", body, partial(wrong_scores, candidates=len(body["item_ids"])))

    def _post(self, path: str, body: dict[str, Any], judge: Callable[[Any], str | None]) -> None:
        data, headers = json.dumps(body), {"content-type": "application/json"}
        with self.client.post(path, data=data, headers=headers, catch_response=True) as response:
            reason = wrong(response.status_code, response.text or "", judge)
            if reason:
                response.failure(reason)

    def _take(self, model: dict[str, Any]) -> None:
        self.model = {name: list(model[name]) for name in ("actions", "context_fields")}


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def read_log(environment: Environment, **_: Any) -> None:
    """Once for all readers, before the first."""
    Reader.traffic = Traffic()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge_run(environment: Environment, **_: Any) -> None:
    """One failure, or not one score, makes the exit status 1."""
    if environment.stats.total.num_failures or not environment.stats.get("/v1/score", "POST").num_requests:
        environment.process_exit_code = 1
