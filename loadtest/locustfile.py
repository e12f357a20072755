"""Readers of a feed, for locust: `locust -f loadtest/locustfile.py --host URL`.

A reader is one user of the log after another: each is shown what the log shows them, after the log's own pauses, made
shorter all alike. A request leaves when it is due, also when the one before has no answer yet: a user's requests lie as
close together as the user's pages did, which is what a server may join. After every tenth page the server is told of
something watched, which it will keep.

It asks by the Python client, as an application would, with no further tries: what was refused counts as an error. Its
times are an application's, the client's own work included; `loadtest.openloop` has those of the server alone.

The number of readers ramps up, stays, and for a while is several times as large. What the run has to keep decides the
exit status.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, TypeVar

from gevent.pool import Pool
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WorkerRunner

from loadtest.traffic import Traffic, wrong_counts, wrong_scores
from service.client import Appended, AugurClient, AugurError, Event, Model

Result = TypeVar("Result")

TIMEOUT_SECONDS = 10.0
# Requests of a reader under way at once, at most.
AT_ONCE = 8
# Longer pauses, already compressed, are somebody else's turn.
LONGEST_PAUSE = 2.0
SCORES_TO_BEHAVIORS = 10
# Parts of the run: the ramp ends, the spike begins, the spike ends.
RAMP, SPIKE, SPIKE_ENDS = 0.3, 0.6, 0.75


class WrongAnswerError(Exception):
    """An answer that came and is not right."""


class Reader(User):
    """Someone at the feed."""

    traffic: ClassVar[Traffic]
    options: ClassVar[Any]
    model: Model
    pages: Iterator[tuple[int, float]]

    def on_start(self) -> None:
        """Asks what the served model takes."""
        self.api = AugurClient(self.host or "", timeout=TIMEOUT_SECONDS, retries=0, connections=AT_ONCE)
        models = self._timed("GET", "/v1/models", self.api.models, lambda _: None)
        if models is None:
            raise StopUser
        self.model = models.models[0]
        self.pages, self.pause = iter(()), 0.0
        self.asked = Pool(AT_ONCE)
        # So that even short runs have some of both.
        self.shown = self.traffic.below(SCORES_TO_BEHAVIORS)

    def on_stop(self) -> None:
        """What is under way is waited for."""
        self.asked.join()
        self.api.close()

    def wait_time(self) -> float:
        """Until the next page."""
        return self.pause

    @task
    def open_page(self) -> None:
        """The next page of this user, or the first one of another."""
        page = next(self.pages, None)
        if page is None:
            self.pages = self.traffic.stay(self.options.speed, LONGEST_PAUSE)
            page = next(self.pages)
        row, self.pause = page
        self.asked.spawn(self._score, row)
        self.shown += 1
        if self.shown % SCORES_TO_BEHAVIORS == 0:
            self.asked.spawn(self._watch, row)

    def _score(self, row: int) -> None:
        asked = self.traffic.score(row, self.model.context_fields)
        if self.options.history_length:
            asked["history"] = self.traffic.history(row, self.options.history_length)
        candidates = len(asked["item_ids"])
        call = partial(self.api.score, **asked)
        self._timed("POST", "/v1/score", call, lambda answer: wrong_scores(answer.scores, candidates))

    def _watch(self, row: int) -> None:
        told = [Event(**event) for event in self.traffic.behavior(row, self.model.actions)["events"]]

        def judge(answer: Appended) -> str | None:
            return wrong_counts(answer.accepted + answer.duplicates + answer.outside_window, len(told))

        self._timed("POST", "/v1/behaviors", partial(self.api.append, told), judge)

    def _timed(
        self, method: str, path: str, call: Callable[[], Result], judge: Callable[[Result], str | None]
    ) -> Result | None:
        """The result, None where there is no right one; either way locust counts the call."""
        answer, error = None, None
        begun = time.perf_counter()
        try:
            answer = call()
        except AugurError as failed:
            # Not its message, which may differ each time: locust counts errors by what they say.
            error = WrongAnswerError(f"{type(failed).__name__} {failed.code}".strip())
        milliseconds = 1000 * (time.perf_counter() - begun)
        if answer is not None and (reason := judge(answer)):
            answer, error = None, WrongAnswerError(reason)
        self.environment.events.request.fire(
            request_type=method, name=path, response_time=milliseconds, response_length=0, exception=error, context={}
        )
        return answer


class RampAndSpike(LoadTestShape):
    """Up to `--users` evenly, there for a while, `--spike` times as many, and there again until `--run-time`."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Readers now, and how many to start a second; None at the end."""
        if self.runner is None or self.runner.environment.parsed_options is None:
            return None
        options = self.runner.environment.parsed_options
        part = self.get_run_time() / (options.run_time or 60)  # type: ignore[no-untyped-call]
        if part >= 1:
            return None
        users = readers(part, options.num_users or 1, options.spike)
        # Locust warns of more at a time.
        return users, min(100.0, users)


def readers(part: float, users: int, spike: float) -> int:
    """How many readers there are when this part of the run is over."""
    if SPIKE <= part < SPIKE_ENDS:
        return math.ceil(users * spike)
    return max(1, math.ceil(users * min(1.0, part / RAMP)))


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any) -> None:
    """Each is a variable of the environment, too."""

    def add(name: str, default: float, low: float, meaning: str) -> None:
        variable, kind = "LOADTEST_" + name.upper().replace("-", "_"), partial(_number, type(default), low)
        parser.add_argument(f"--{name}", type=kind, default=default, env_var=variable, help=f"{meaning} ({default:g})")

    add("p99-ms", 500.0, 0, "a run whose 99th percentile of scores is above it fails")
    add("max-error-rate", 0.0, 0, "a run of which a larger part is wrong fails")
    add("speed", 36_000.0, 1, "the log's pauses are so many times shorter")
    add("spike", 3.0, 1, "so many times the readers during the spike; 1: no spike")
    add("history-length", 0, 0, "behaviours sent along with each request; 0: those that the server has stored")


def _number(kind: type[float], low: float, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a {'whole ' if kind is int else ''}number") from None
    if not low <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: at least {low:g}")
    return value


@events.init.add_listener  # type: ignore[untyped-decorator]
def read_log(**_: Any) -> None:
    """Once for all readers, before the run's time counts."""
    Reader.traffic = Traffic()


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def take_options(environment: Environment, **_: Any) -> None:
    """Those of this run; locust's page can change them from one to the next."""
    Reader.options = environment.parsed_options


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge_run(environment: Environment, **_: Any) -> None:
    """What the run had to keep and did not makes the exit status 1; so does a run without scores."""
    if isinstance(environment.runner, WorkerRunner) or environment.parsed_options is None:
        return
    options, total = environment.parsed_options, environment.stats.total
    scores = environment.stats.get("/v1/score", "POST")
    p99 = scores.get_response_time_percentile(0.99) if scores.num_requests else math.inf
    kept = [
        _kept(f"p99 of scores {p99:g} ms", p99, options.p99_ms),
        _kept(f"error rate {total.fail_ratio:.4g}", total.fail_ratio, options.max_error_rate),
    ]
    environment.process_exit_code = 0 if all(kept) else 1


def _kept(said: str, value: float, bound: float) -> bool:
    print(f"{said}, at most {bound:g}: {'kept' if value <= bound else 'BROKEN'}")
    return value <= bound
