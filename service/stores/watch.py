"""Work in the background that is tried again until it is done: finding the servers of a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("augur.store")

PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0


class Watch:
    """Runs a step again and again until it says that all is well; one run at a time.

    A step returns whether it is done, and may raise `wrong`, which counts as not done.

    Args:
        every: seconds after which a step that is done is run again; None, to rest until it is started again.
    """

    def __init__(
        self, step: Callable[[], Awaitable[bool]], wrong: type[Exception], *, every: float | None = None
    ) -> None:
        self._step = step
        self._wrong = wrong
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._asked = asyncio.Event()

    def start(self) -> None:
        """Begins, unless it is under way."""
        self._asked.set()
        if self._task is None or self._task.done():
            self._tried.clear()
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def tried(self, deadline: float) -> None:
        """Begins if need be, and waits until the step was tried once, or for the deadline of the loop's clock."""
        if self._task is None:
            self.start()
        try:
            async with asyncio.timeout_at(deadline):
                await self._tried.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = PAUSE_SECONDS
        while True:
            self._asked.clear()
            if not await self._done():
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            elif self._asked.is_set():
                continue
            elif self._every is None:
                return
            else:
                pause = PAUSE_SECONDS
                await self._rest(self._every)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return

    async def _done(self) -> bool:
        try:
            return await self._step()
        except self._wrong as error:
            log.debug("not yet: %s", error)
            return False
        finally:
            self._tried.set()
