"""The client for code that waits for its answers, in any number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from ssl import SSLContext
from types import TracebackType
from typing import SupportsIndex, Unpack

import httpcore

from service.client import requests, transport
from service.client.answers import Appended, Behaviors, Explanation, Models, Result, Scores
from service.client.errors import AugurError, DeadlineExceededError, UnavailableError, UnreachableError
from service.client.exchange import Answer, Exchange, Request, Settings
from service.client.requests import Call, Event, ExplainOptions, ScoreOptions, ScoreRequest


class AugurClient:
    """A client of one server, or of a proxy in front of many. Threads may share it; close it, or use it in a `with`.

    Args:
        url: `http://host:port` or `https://`, with a path where a proxy has the API under one.
        api_key: sent as a bearer's token.
        timeout: seconds that a call may take, from connecting to the last byte, further tries included; each method
            takes another one for itself.
        retries: further tries, at most, where one is safe and the time allows it.
        compress: whether bodies of 1 KiB or more are sent as gzip.
        connections: open at once, at most; a call that finds all of them busy waits for one.
        ssl_context: for `https`, in place of the certificates that are usually trusted.

    Every method raises `AugurError`, of the class that says what can be done about it. ValueError is for arguments of
    the client itself.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 1.0,
        retries: int = 2,
        compress: bool = False,
        connections: int = 100,
        ssl_context: SSLContext | None = None,
    ) -> None:
        self._settings = Settings(url, api_key, timeout, retries, compress)
        self._address = transport.Address(url)
        options = transport.pool_options(connections, ssl_context)
        self._pool = httpcore.ConnectionPool(**options, network_backend=transport.DeadlineBackend())

    def score(
        self,
        user_id: str,
        item_ids: Iterable[SupportsIndex],
        *,
        timeout: float | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """A click probability for each candidate, or with `top_k` the best of them; `ScoreOptions` has the rest."""
        return self._run(requests.score(ScoreRequest(user_id, item_ids, **options)), timeout)

    def score_batch(
        self, asked: Iterable[ScoreRequest], *, timeout: float | None = None
    ) -> tuple[Scores | AugurError, ...]:
        """The scores of each request, or the error in their place, which is returned and not raised."""
        return self._run(requests.score_batch(asked), timeout)

    def explain(
        self,
        user_id: str,
        item_ids: Iterable[SupportsIndex],
        *,
        evolution: bool = False,
        timeout: float | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Scores, each candidate's attention over the user's behaviours, and with `evolution` that step by step too."""
        return self._run(requests.explain(ScoreRequest(user_id, item_ids, **options), evolution), timeout)

    def append(self, events: Iterable[Event], *, timeout: float | None = None) -> Appended:
        """Records what users did.

        It is tried again after it may have arrived only if every event has an `event_id`. After an error whose
        `may_have_acted` is true some users' events may be stored; sending all of them again stores none twice.
        """
        return self._run(requests.append(events), timeout)

    def behaviors(self, user_id: str, limit: int | None = None, *, timeout: float | None = None) -> Behaviors:
        """A user's stored behaviours, or the most recent `limit` of them, oldest first."""
        return self._run(requests.behaviors(user_id, limit), timeout)

    def forget(self, user_id: str, *, timeout: float | None = None) -> bool:
        """Deletes a user's behaviours; whether there were any, as the last try saw it."""
        return self._run(requests.forget(user_id), timeout).deleted

    def models(self, *, timeout: float | None = None) -> Models:
        """What is served, and which model answers whom."""
        return self._run(requests.models(), timeout)

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server takes requests now; one that cannot be reached in time does not. Asks once."""
        try:
            self._run(requests.ready(), timeout)
        except (UnavailableError, UnreachableError, DeadlineExceededError):
            return False
        return True

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def __enter__(self) -> AugurClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[Result], timeout: float | None) -> Result:
        exchange = Exchange(call, self._settings, timeout)
        while True:
            try:
                return exchange.read(self._send(exchange.request()))
            except AugurError as error:
                pause = exchange.pause_after(error)
            time.sleep(pause)

    def _send(self, request: Request) -> Answer:
        url, headers = self._address.of(request)
        # A pool waits for a connection for so many seconds; the sockets are `DeadlineBackend`'s.
        until = dict.fromkeys(("connect", "read", "write"), request.deadline)
        until["pool"] = max(0.0, request.deadline - time.monotonic())
        try:
            response = self._pool.request(
                request.method,
                url,
                headers=headers,
                content=request.content or None,
                extensions={"timeout": until},
            )
        except transport.FAILURES as error:
            raise transport.failure(error, self._settings.url) from error
        return transport.answer(response)
