"""The parts of a running server, and the rules that a model and the settings have for a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum

import numpy as np

from model.scorer import ScoreInput
from service.batcher import Batcher
from service.decode import ScoreAsk
from service.errors import DrainingError, InvalidInputError, NotReadyError, shorten
from service.jobs import History, Scored
from service.models import Models, Served
from service.reload import Loader
from service.replay import Recent, Replay
from service.settings import Settings
from service.shadow import Shadows
from service.stores.guarded import GuardedStore
from service.stores.records import NO_ACTION, Records, action_code, pack
from service.wire import Event


class State(Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Engine:
    """Models, a store and the batcher between them."""

    def __init__(self, settings: Settings, models: Models, store: GuardedStore) -> None:
        self.settings = settings
        self.models = models
        self.store = store
        self.batcher = Batcher(store, settings)
        self.state = State.STARTING
        self.recent = Recent()
        self.shadows = Shadows(models, self.batcher)
        self.loader = Loader(settings, models, self.recent, warm, lambda: self.state is State.DRAINING)

    async def start(self) -> None:
        """Ready from here on."""
        for served in self.models:
            await asyncio.to_thread(warm, served)
        self.batcher.start()
        self.state = State.READY

    def drain(self) -> None:
        """Readiness fails from here on; requests are still answered."""
        self.state = State.DRAINING

    async def close(self) -> None:
        """Finishes what is in flight, within the bound of the settings."""
        self.drain()
        await self.batcher.close(self.settings.drain_seconds)
        await self.loader.close()
        await self.store.close()

    def check_ready(self) -> None:
        """Raises NotReadyError or DrainingError."""
        if self.state is State.STARTING:
            raise NotReadyError("the server is starting")
        if self.state is State.DRAINING:
            raise DrainingError("the server is about to stop")

    def served(self, asked: ScoreAsk) -> Served:
        """The model that answers: the one that was named, else the user's own by the routes."""
        return self.models.of_user(asked.user_id) if asked.model is None else self.models.get(asked.model)

    async def score(self, asked: ScoreAsk, served: Served, gone: Callable[[], Awaitable[None]] | None = None) -> Scored:
        """Checks a request and scores it; see `Batcher.score` for `gone` and the errors.

        Raises:
            InvalidInputError: also for what this model or these settings do not take, naming the field and the rule.
        """
        self.check(asked, served)
        history = _own_history(asked, served)
        timeout_ms = min(asked.timeout_ms or self.settings.timeout_ms, self.settings.timeout_cap_ms)
        scored = await self.batcher.score(
            served, asked.user_id, asked.item_ids, asked.context, history, timeout_ms, gone
        )
        replay = Replay(asked, scored.records)
        self.recent.keep(served.name, replay)
        if self.models.routes.shadows:
            self.shadows.follow(replay, served, scored.scores)
        return scored

    def check(self, asked: ScoreAsk, served: Served) -> None:
        """What a request may ask of this model under these settings, beyond its shape.

        Raises:
            InvalidInputError: naming the field, its value and the rule.
        """
        _check_length("item_ids", len(asked.item_ids), self.settings.max_items, "AUGUR_MAX_ITEMS")
        fields = served.scorer.context_fields
        for name in asked.context:
            if name not in fields:
                choices = ", ".join(fields) or "none at all"
                raise InvalidInputError(
                    f"context {shorten(name)}: no context field of the model; there are {choices}", field="context"
                )
        history, actions = asked.history, asked.history_actions
        if history is not None:
            _check_length("history", len(history), self.settings.max_history, "AUGUR_MAX_HISTORY")
        if actions is None:
            return
        if history is None or len(history) != len(actions):
            behaviors = "no history" if history is None else f"a history of {len(history)}"
            raise InvalidInputError(
                f"{len(actions)} history_actions for {behaviors}: one for each", field="history_actions"
            )
        _check_actions(actions, served.actions.names, "history_actions[{}]")

    def records(self, events: Iterable[Event]) -> dict[str, Records]:
        """Events as packed records by user, in the order given.

        Raises:
            InvalidInputError: an action that none of the models has.
        """
        known = self.models.actions
        rows: dict[str, list[Event]] = {}
        for place, event in enumerate(events):
            if event.action is not None:
                _check_actions([event.action], known, f"events[{place}].action")
            rows.setdefault(event.user_id, []).append(event)
        return {user_id: _pack(of_user) for user_id, of_user in rows.items()}

    def action_name(self, code: int) -> str | None:
        """The name of a stored action; `#` and its code where no model has it."""
        names = (served.actions.name(code) for served in self.models)
        return next((name for name in names if name is None or not name.startswith("#")), f"#{code:08x}")


def warm(served: Served) -> None:
    """Scores without a user and with a long history, so that no request is the first."""
    items = np.zeros(200, dtype=np.int64)
    history = np.zeros(served.scorer.max_history, dtype=np.int64)
    served.scorer.score([ScoreInput(items[:1]), ScoreInput(items, history)])


def _own_history(asked: ScoreAsk, served: Served) -> History | None:
    """The request's own history, the most recent part that the model can use; None to use the stored one."""
    if asked.history is None:
        return None
    first = max(0, len(asked.history) - served.scorer.max_history)
    return History(asked.history[first:], asked.history_actions[first:] if asked.history_actions else None)


def _pack(events: list[Event]) -> Records:
    codes = [NO_ACTION if event.action is None else action_code(event.action) for event in events]
    return pack(
        np.array([event.item_id for event in events], dtype=np.int64),
        np.array([event.timestamp_ms for event in events], dtype=np.int64),
        np.array(codes, dtype=np.uint32),
        [event.event_id for event in events],
    )


def _check_actions(actions: Sequence[str], known: tuple[str, ...], field: str) -> None:
    for place, action in enumerate(actions):
        if action not in known:
            where, choices = field.format(place), ", ".join(known) or "none at all; leave it out"
            raise InvalidInputError(
                f"{where}={shorten(action)}: no action of the model; there are {choices}", field=where
            )


def _check_length(field: str, length: int, most: int, variable: str) -> None:
    if length > most:
        raise InvalidInputError(f"{field} has {length} entries: at most {most} ({variable})", field=field)
