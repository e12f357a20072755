"""A circuit breaker: after some failures in a row, what fails is left alone for a while and then tried by one call."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable

log = logging.getLogger("augur.store")

# Failures that are further apart than this are no outage.
WITHIN_SECONDS = 10.0


class Breaker:
    """Closed, everything passes. Open, nothing does. Half open, one call at a time does, and its end decides.

    A call asks for a permit with `admit` and says with `report` what became of it. Reports of calls that were admitted
    before the breaker last changed say nothing of now, and are ignored.
    """

    def __init__(
        self, failures: int, probe_after: float, counts: Counter[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe_after = probe_after
        self._counts = counts
        self._clock = clock
        self._failed: deque[float] = deque(maxlen=failures)  # times of the latest failures in a row
        self._opened: float | None = None
        self._probing = False
        self._turn = 0  # of changes

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""
        if self._opened is None:
            return "closed"
        return "half_open" if self._probing or self._clock() - self._opened >= self._probe_after else "open"

    def admit(self) -> int | None:
        """A permit for a call, which must be reported or given back; None if the call is not to be made."""
        if self._opened is None:
            return self._turn
        if self._probing or self._clock() - self._opened < self._probe_after:
            return None
        self._probing = True
        self._turn += 1
        return self._turn

    def report(self, permit: int, *, well: bool) -> None:
        """What became of a call."""
        if permit != self._turn:
            return
        if well:
            self._failed.clear()
            if self._opened is not None:
                self._change(None)
            return
        now = self._clock()
        self._failed.append(now)
        in_a_row = len(self._failed) == self._failed.maxlen and now - self._failed[0] <= WITHIN_SECONDS
        if self._probing or in_a_row:
            self._change(now)

    def give_back(self, permit: int) -> None:
        """The call was given up by its caller, and says nothing."""
        if permit == self._turn:
            self._probing = False

    def _change(self, opened: float | None) -> None:
        if opened is None:
            log.warning("the store answers again")
        elif self._opened is None:
            log.warning("the store failed %d times in a row and is left alone", len(self._failed))
        self._counts["opened"] += opened is not None and self._opened is None
        self._opened, self._probing = opened, False
        self._turn += 1
