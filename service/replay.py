"""Answered requests, kept so that another model can be asked the same."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from model.scorer import ScoreInput
from service.actions import UNKNOWN
from service.decode import ScoreAsk
from service.jobs import NOTHING, History, catalogue_user, history_of
from service.models import Served
from service.stores.records import IntArray, Records

KEPT = 32  # requests for each model


class Replay(NamedTuple):
    """A request in no model's terms; a model reads of it what it knows."""

    asked: ScoreAsk
    records: Records | None = None  # the user's stored behaviours; None where the request had its own

    def history(self, served: Served) -> History:
        """The most recent part that the model can use; actions it does not have are unknown ones."""
        asked = self.asked
        if asked.history is None:
            return NOTHING if self.records is None else history_of(self.records, served)
        first = max(0, len(asked.history) - served.scorer.max_history)
        actions = None if asked.history_actions is None else _places(asked.history_actions[first:], served)
        return History(asked.history[first:], actions)

    def context(self, served: Served) -> dict[str, int]:
        """The context fields that the model has."""
        return {name: self.asked.context[name] for name in served.scorer.context_fields if name in self.asked.context}

    def as_input(self, served: Served, most: int) -> ScoreInput:
        """What the model's scorer is asked, with the first `most` candidates."""
        history = self.history(served)
        return ScoreInput(
            item_ids=self.asked.item_ids[:most],
            history=history.item_ids,
            actions=history.actions,
            context=self.context(served),
            user_id=catalogue_user(self.asked.user_id),
        )


def _places(names: list[str], served: Served) -> IntArray:
    place = {name: number for number, name in enumerate(served.actions.names)}
    return np.array([place.get(name, UNKNOWN) for name in names], dtype=np.int64)


class Recent:
    """The last few requests that each model answered. Lives on the event loop."""

    def __init__(self) -> None:
        self._of: dict[str, deque[Replay]] = {}

    def keep(self, name: str, replay: Replay) -> None:
        """Remembers a request in place of the oldest one."""
        kept = self._of.get(name)
        if kept is None:
            kept = self._of[name] = deque(maxlen=KEPT)
        kept.append(replay)

    def of(self, name: str) -> list[Replay]:
        """Those of a model, oldest first."""
        return list(self._of.get(name, ()))
