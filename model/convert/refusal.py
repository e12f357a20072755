"""What of another library's DIEN ours cannot express, collected, so that a user hears of all of it at once."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """One part that is not expressible."""

    part: str  # the library's layer or setting
    computes: str
    needs: str  # of our DIEN

    def __str__(self) -> str:
        return f"{self.part}: {self.computes}; Augur's DIEN would need {self.needs}"


class NotExpressibleError(ValueError):
    """A model with parts that our DIEN does not compute; the message has a line for each."""

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        super().__init__("\n".join(map(str, refusals)))
        self.refusals = refusals


class Refusals:
    """The parts found so far."""

    def __init__(self) -> None:
        self._found: list[Refusal] = []

    def add(self, part: str, computes: str, needs: str) -> None:
        """One more part; reading goes on where it can."""
        self._found.append(Refusal(part, computes, needs))

    def check(self) -> None:
        """Raise NotExpressibleError where there are any."""
        if self._found:
            raise NotExpressibleError(tuple(self._found))
