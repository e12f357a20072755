"""The plain server's routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from loadtest.baseline.network import EagerDien, History
from model.data import DataSet

WINDOW = 100  # behaviours kept for a user, as many as Augur's default
NOTHING = History([], [])


class ScoreRequest(BaseModel):
    """A user and candidates."""

    user_id: str
    item_ids: list[int]
    context: dict[str, int] = {}
    history: list[int] | None = None
    history_actions: list[str] | None = None


class ScoreAnswer(BaseModel):
    """A probability for each candidate."""

    model: str
    version: str
    scores: list[float]
    history_length: int
    unknown_items: int
    degraded: str | None = None


class Event(BaseModel):
    """Something a user did."""

    user_id: str
    item_id: int
    timestamp_ms: int
    action: str | None = None


class Behaviors(BaseModel):
    """Things users did."""

    events: list[Event]


def create_app(network: EagerDien, histories: dict[str, History]) -> FastAPI:
    """The server as an ASGI application; `histories` by user grow with what it is told."""
    app = FastAPI(title="Baseline")
    artifact = network.artifact

    # A coroutine that computes: faster here than a function on FastAPI's pool of threads, which take the interpreter
    # from each other at every small operator of the network (docs/performance.md has both).
    @app.post("/v1/score")
    async def score(asked: ScoreRequest) -> ScoreAnswer:
        history = _history(network, histories, asked)
        scores = network.score(asked.user_id, asked.item_ids, history, asked.context)
        return ScoreAnswer(
            model=artifact.name,
            version=artifact.version,
            scores=scores,
            history_length=len(history.item_ids),
            unknown_items=network.count_unknown(asked.item_ids),
        )

    @app.post("/v1/behaviors")
    async def record(told: Behaviors) -> dict[str, int]:
        for event in told.events:
            items, actions = histories.setdefault(event.user_id, History([], []))
            items.append(event.item_id)
            actions += network.action_places([event.action])
            del items[:-WINDOW], actions[:-WINDOW]
        return {"accepted": len(told.events), "duplicates": 0}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        schema = artifact.schema
        described = {"name": artifact.name, "version": artifact.version, "max_history": schema.max_history}
        described["description"] = network.description
        return {"models": [described | {"actions": schema.actions, "context_fields": schema.context_fields}]}

    @app.get("/livez")
    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def _history(network: EagerDien, histories: dict[str, History], asked: ScoreRequest) -> History:
    """The request's own history or the stored one, the newest part that the model looks at."""
    if asked.history is None:
        items, actions = histories.get(asked.user_id, NOTHING)
    else:
        items, actions = asked.history, network.action_places(asked.history_actions or [None] * len(asked.history))
    first = max(0, len(items) - network.max_history)
    return History(items[first:], actions[first:])


def histories_of(data: DataSet) -> dict[str, History]:
    """What every user of a data set did most recently."""
    behaviors = data.behaviors
    actions = [0] * len(behaviors.item_ids) if behaviors.actions is None else behaviors.actions.tolist()
    items, edges = behaviors.item_ids.tolist(), behaviors.offsets.tolist()
    return {
        str(user): History(items[max(first, end - WINDOW) : end], actions[max(first, end - WINDOW) : end])
        for user, first, end in zip(behaviors.user_ids.tolist(), edges, edges[1:], strict=False)
    }
