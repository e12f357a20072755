"""The parts of a running server, and the model's own rules for a request."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np

from model.scorer import Scorer
from service.actions import ActionCodes
from service.batcher import Batcher
from service.errors import DrainingError, InvalidInputError, NotReadyError, shorten
from service.jobs import History
from service.settings import Settings
from service.stores import BehaviorStore
from service.stores.guarded import GuardedStore
from service.stores.records import Records, pack
from service.wire import Event, ScoreRequest


class State(Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Engine:
    """A scorer, a store behind its guard, and the batcher between them."""

    def __init__(self, settings: Settings, scorer: Scorer, store: BehaviorStore) -> None:
        self.settings = settings
        self.scorer = scorer
        self.store = GuardedStore(store, settings)
        self.actions = ActionCodes(scorer.actions, scorer.default_action)
        self.batcher = Batcher(scorer, self.store, self.actions, settings)
        self.state = State.STARTING

    async def start(self) -> None:
        """Ready from here on."""
        await self.batcher.start()
        self.state = State.READY

    def drain(self) -> None:
        """Readiness fails from here on; requests are still answered."""
        self.state = State.DRAINING

    async def close(self) -> None:
        """Finishes what is in flight, within the bound of the settings."""
        self.drain()
        await self.batcher.close(self.settings.drain_seconds)
        await self.store.close()

    def check_ready(self) -> None:
        """Raises NotReadyError or DrainingError."""
        if self.state is State.STARTING:
            raise NotReadyError("the server is starting")
        if self.state is State.DRAINING:
            raise DrainingError("the server is about to stop")

    def check(self, asked: ScoreRequest) -> None:
        """What a request may ask of this model under these settings, beyond its shape.

        Raises:
            InvalidInputError: naming the field, its value and the rule.
        """
        _check_length("item_ids", len(asked.item_ids), self.settings.max_items, "AUGUR_MAX_ITEMS")
        for name in asked.context:
            if name not in self.scorer.context_fields:
                choices = ", ".join(self.scorer.context_fields) or "none at all"
                raise InvalidInputError(
                    f"context {shorten(name)}: no context field of the model; there are {choices}", field="context"
                )
        if asked.history is not None:
            _check_length("history", len(asked.history), self.settings.max_history, "AUGUR_MAX_HISTORY")
        if asked.history_actions is None:
            return
        if asked.history is None or len(asked.history) != len(asked.history_actions):
            behaviors = "no history" if asked.history is None else f"a history of {len(asked.history)}"
            raise InvalidInputError(
                f"{len(asked.history_actions)} history_actions for {behaviors}: one for each", field="history_actions"
            )
        self._check_actions(asked.history_actions, "history_actions[{}]")

    def history(self, asked: ScoreRequest) -> History | None:
        """The request's own history, the most recent part that the model can use; None to use the stored one."""
        if asked.history is None:
            return None
        first = max(0, len(asked.history) - self.scorer.max_history)
        item_ids = np.array(asked.history[first:], dtype=np.int64)
        return History(item_ids, asked.history_actions[first:] if asked.history_actions else None)

    def records(self, events: Iterable[Event]) -> dict[str, Records]:
        """Events as packed records by user, in the order given.

        Raises:
            InvalidInputError: an action that the model does not have.
        """
        rows: dict[str, list[Event]] = {}
        for place, event in enumerate(events):
            if event.action is not None:
                self._check_actions([event.action], f"events[{place}].action")
            rows.setdefault(event.user_id, []).append(event)
        return {user_id: self._pack(of_user) for user_id, of_user in rows.items()}

    def _pack(self, events: list[Event]) -> Records:
        return pack(
            np.array([event.item_id for event in events], dtype=np.int64),
            np.array([event.timestamp_ms for event in events], dtype=np.int64),
            np.array([self.actions.code(event.action) for event in events], dtype=np.uint32),
            [event.event_id for event in events],
        )

    def _check_actions(self, actions: list[str], field: str) -> None:
        for place, action in enumerate(actions):
            if action not in self.actions.names:
                where, choices = field.format(place), ", ".join(self.actions.names) or "none at all; leave it out"
                raise InvalidInputError(
                    f"{where}={shorten(action)}: no action of the model; there are {choices}", field=where
                )


def _check_length(field: str, length: int, most: int, variable: str) -> None:
    if length > most:
        raise InvalidInputError(f"{field} has {length} entries: at most {most} ({variable})", field=field)
