"""The client for asyncio."""

from __future__ import annotations

import asyncio
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


class AsyncAugurClient:
    """`AugurClient` for one event loop of asyncio: the same arguments, methods and errors.

    A task that is cancelled closes its connection, and so the server stops its work.
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
        self._pool = httpcore.AsyncConnectionPool(**transport.pool_options(connections, ssl_context))

    async def score(
        self,
        user_id: str,
        item_ids: Iterable[SupportsIndex],
        *,
        timeout: float | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """As `AugurClient.score`."""
        return await self._run(requests.score(ScoreRequest(user_id, item_ids, **options)), timeout)

    async def score_batch(
        self, asked: Iterable[ScoreRequest], *, timeout: float | None = None
    ) -> tuple[Scores | AugurError, ...]:
        """As `AugurClient.score_batch`."""
        return await self._run(requests.score_batch(asked), timeout)

    async def explain(
        self,
        user_id: str,
        item_ids: Iterable[SupportsIndex],
        *,
        evolution: bool = False,
        timeout: float | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """As `AugurClient.explain`."""
        return await self._run(requests.explain(ScoreRequest(user_id, item_ids, **options), evolution), timeout)

    async def append(self, events: Iterable[Event], *, timeout: float | None = None) -> Appended:
        """As `AugurClient.append`."""
        return await self._run(requests.append(events), timeout)

    async def behaviors(self, user_id: str, limit: int | None = None, *, timeout: float | None = None) -> Behaviors:
        """As `AugurClient.behaviors`."""
        return await self._run(requests.behaviors(user_id, limit), timeout)

    async def forget(self, user_id: str, *, timeout: float | None = None) -> bool:
        """As `AugurClient.forget`."""
        return (await self._run(requests.forget(user_id), timeout)).deleted

    async def models(self, *, timeout: float | None = None) -> Models:
        """As `AugurClient.models`."""
        return await self._run(requests.models(), timeout)

    async def ready(self, *, timeout: float | None = None) -> bool:
        """As `AugurClient.ready`."""
        try:
            await self._run(requests.ready(), timeout)
        except (UnavailableError, UnreachableError, DeadlineExceededError):
            return False
        return True

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._pool.aclose()

    async def __aenter__(self) -> AsyncAugurClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, call: Call[Result], timeout: float | None) -> Result:
        exchange = Exchange(call, self._settings, timeout)
        while True:
            try:
                return exchange.read(await self._send(exchange.request()))
            except AugurError as error:
                pause = exchange.pause_after(error)
            await asyncio.sleep(pause)

    async def _send(self, request: Request) -> Answer:
        url, headers = self._address.of(request)
        try:
            async with asyncio.timeout(request.deadline - time.monotonic()):
                response = await self._pool.request(
                    request.method, url, headers=headers, content=request.content or None
                )
        except (*transport.FAILURES, TimeoutError) as error:
            raise transport.failure(error, self._settings.url) from error
        return transport.answer(response)
