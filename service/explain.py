"""`POST /v1/explain`: which behaviours a score comes from, as attention over the history and interest evolution tell.

The scores are those of `/v1/score`, by the same way; the rest is computed besides, on a thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from model.scorer import Evolution, ScoreInput
from service import body, scoring, wire
from service.decode import ScoreAsk, parse
from service.engine import Engine
from service.errors import DeadlineExceededError, InvalidInputError, QueueFullError, shorten
from service.jobs import History, Scored, catalogue_user, history_of
from service.models import Served
from service.routes import may_fail, takes
from service.stores.records import IntArray

WAITING = 16  # requests that may wait for the thread
MOST_EVOLVED = 10  # candidates whose evolution is told at a time: every state of it is kept

Result = TypeVar("Result")

router = APIRouter()


class ExplainRequest(wire.Wire):
    """A user and the candidates whose scores to explain; the fields are those of a request for scores."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "42", "item_ids": [1527, 7405], "context": {"tab": 1}}]}
    )

    user_id: wire.UserId
    item_ids: wire.Int64List = Field(min_length=1)
    context: Annotated[dict[str, wire.Int64], Field(max_length=wire.MAX_CONTEXT)] = Field(default_factory=dict)
    history: wire.Int64List | None = None
    history_actions: Annotated[list[wire.Action], Field(fail_fast=True)] | None = None
    timeout_ms: Annotated[int, Field(strict=True, ge=1)] | None = None
    model: Annotated[str, Field(strict=True, min_length=1, max_length=wire.LONGEST_NAME)] | None = None
    evolution: Annotated[bool, Field(strict=True)] = Field(
        default=False, description=f"tell interest evolution step by step too, of at most {MOST_EVOLVED} candidates"
    )


class UsedBehavior(BaseModel):
    """A behaviour as the model saw it."""

    item_id: int
    timestamp_ms: int | None = Field(description="null in a history of the request's own")
    action: str | None = Field(description="the model's default one where none was stated; null: none it knows")


class Evolved(BaseModel):
    """Interest evolution towards a candidate, behaviour by behaviour."""

    update: list[float] = Field(
        description="the update gate in effect at each behaviour (AUGRU: attention times gate), mean over hidden units"
    )
    moved: list[float] = Field(description="how far each behaviour moved the state, as a length")
    probabilities: list[float] = Field(
        description="the score if evolution had ended before the first behaviour, then after each; the last is `score`"
    )


class Explained(BaseModel):
    """A candidate's score and where it looked."""

    item_id: int
    score: float
    attention: list[float] = Field(
        description="for each behaviour of `history`; they add up to 1, but for DIN's activation unit"
    )
    evolution: Evolved | None = Field(default=None, description="where it was asked for")


class ExplainAnswer(BaseModel):
    """Attention of each candidate over the history that counts."""

    model: str
    version: str
    history: list[UsedBehavior] = Field(description="oldest first, no more than the model looks at")
    candidates: list[Explained] = Field(description="in the order of `item_ids`")
    unknown_items: int
    degraded: str | None = Field(description="why the history is less than it could be, or null")


class Seen(NamedTuple):
    """The history that a model sees, and what a person wants to know of it."""

    history: History
    timestamps_ms: IntArray | None  # [T]
    degraded: str | None
    store: float  # seconds


@router.post(
    "/v1/explain",
    summary="Which behaviours the scores come from",
    tags=["scoring"],
    openapi_extra=takes(ExplainRequest),
    response_model=ExplainAnswer,
    responses=may_fail(400, 404, 413, 415, 422, 429, 503, 504),
)
async def explain(request: Request) -> Response:
    """Scores as `/v1/score` gives them, with each candidate's attention over the user's behaviours.

    With `evolution` also how the state of interest evolution moves, behaviour by behaviour. A model without attention,
    or without evolution where that is asked for, answers 422, naming `model`. Made for people who ask why, not for
    every request: it is computed for one request at a time.
    """
    engine: Engine = request.app.state.engine
    settings = engine.settings
    content = await body.receive_json(request.scope, request.receive, settings.max_body_bytes)
    stated = parse(content, ExplainRequest)
    asked = from_explain(stated)
    served = engine.served(asked)
    check(stated, served, settings.max_explained)
    engine.check(asked, served)
    timeout_ms = min(asked.timeout_ms or settings.timeout_ms, settings.timeout_cap_ms)
    deadline = time.perf_counter() + timeout_ms / 1000
    seen = await see(engine, asked, served)
    gone = functools.partial(scoring.until_gone, request.receive)
    scored = await engine.batcher.score(
        served, asked.user_id, asked.item_ids, asked.context, seen.history, timeout_ms, gone
    )
    begun = time.perf_counter()
    explainer: Explainer = request.app.state.explainer
    one = ScoreInput(
        asked.item_ids, seen.history.item_ids, seen.history.actions, asked.context, catalogue_user(asked.user_id)
    )
    evolution, scorer = None, served.scorer
    if stated.evolution:
        evolution = await explainer.run(lambda: scorer.evolution(one), deadline)
        attention = evolution.attention
    else:
        attention = await explainer.run(lambda: scorer.attention(one), deadline)
    scored = replace(scored, store=seen.store, computed=scored.computed + time.perf_counter() - begun)
    headers = {"server-timing": scoring.server_timing(scored).decode()}
    content = answer(served, asked, seen, scored, attention, evolution)
    return Response(content, media_type="application/json", headers=headers)


def check(stated: ExplainRequest, served: Served, most: int) -> None:
    """What may be asked of this model, beyond what a request for scores may.

    Raises:
        InvalidInputError: naming the field, its value and the rule.
    """
    count, scorer = len(stated.item_ids), served.scorer
    if count > most:
        raise InvalidInputError(f"item_ids has {count} entries: at most {most} (AUGUR_MAX_EXPLAINED)", field="item_ids")
    if stated.evolution and count > MOST_EVOLVED:
        rule = f"with evolution at most {MOST_EVOLVED}"
        raise InvalidInputError(f"item_ids has {count} entries: {rule}", field="item_ids")
    for asked, has, what in (
        (True, scorer.attends, "attention"),
        (stated.evolution, scorer.evolves, "interest evolution"),
    ):
        if asked and not has:
            rule = f"a model with {what}, which {scorer.architecture} has not"
            raise InvalidInputError(f"model {shorten(served.name)}: {rule}", field="model")


def from_explain(asked: ExplainRequest) -> ScoreAsk:
    """As the engine takes it."""
    fields = asked.model_dump(include={"user_id", "context", "history_actions", "timeout_ms", "model"})
    history = None if asked.history is None else np.array(asked.history, dtype=np.int64)
    return ScoreAsk(item_ids=np.array(asked.item_ids, dtype=np.int64), history=history, **fields)


async def see(engine: Engine, asked: ScoreAsk, served: Served) -> Seen:
    """The request's own history, else the stored one; the part of it that the model looks at."""
    newest = slice(-served.scorer.max_history, None)
    if asked.history is not None:
        actions = asked.history_actions and asked.history_actions[newest]
        return Seen(History(asked.history[newest], actions or None), None, None, 0.0)
    begun = time.perf_counter()
    ((records, degraded),) = await engine.store.recall([asked.user_id])
    history = history_of(records, served)
    return Seen(history, records["timestamp_ms"][newest], degraded, time.perf_counter() - begun)


class Explainer:
    """A thread that computes explanations, of one request at a time; few may wait for it."""

    def __init__(self, most: int = WAITING) -> None:
        self._thread = ThreadPoolExecutor(1, "augur-explain")
        self._places = threading.Semaphore(most)

    async def run(self, compute: Callable[[], Result], deadline: float) -> Result:
        """What `compute` gives.

        Raises:
            QueueFullError: too many wait.
            DeadlineExceededError: `deadline`, of `time.perf_counter`, passed.
        """
        if not self._places.acquire(blocking=False):
            raise QueueFullError("too many requests wait to be explained already")
        computed = self._thread.submit(compute)
        # A place is free when the thread is done, also if nobody waits for the answer any more.
        computed.add_done_callback(lambda _: self._places.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(computed), max(0.0, deadline - time.perf_counter()))
        except TimeoutError:
            raise DeadlineExceededError("no explanation before the deadline") from None


def answer(
    served: Served,
    asked: ScoreAsk,
    seen: Seen,
    scored: Scored,
    attention: npt.NDArray[np.float32],
    evolution: Evolution | None,
) -> bytes:
    """`ExplainAnswer` as JSON."""
    items = seen.history.item_ids.tolist()
    times: Sequence[int | None] = [None] * len(items)
    if seen.timestamps_ms is not None:
        times = seen.timestamps_ms.tolist()
    behaviors = zip(items, times, action_names(served, seen.history), strict=True)
    weights = np.ascontiguousarray(attention[:, : len(items)])
    rows = zip(asked.item_ids.tolist(), scored.scores, weights, strict=True)
    candidates: list[dict[str, Any]] = [
        {"item_id": item_id, "score": score, "attention": row} for item_id, score, row in rows
    ]
    if evolution is not None:
        for candidate, *steps in zip(candidates, *evolution[1:], strict=True):
            candidate["evolution"] = dict(zip(Evolved.model_fields, steps, strict=True))
    content: dict[str, Any] = {
        "model": served.name,
        "version": served.version,
        "history": [dict(zip(UsedBehavior.model_fields, each, strict=True)) for each in behaviors],
        "candidates": candidates,
        "unknown_items": scored.unknown_items,
        "degraded": seen.degraded,
    }
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def action_names(served: Served, history: History) -> Sequence[str | None]:
    """What the model takes each behaviour's action to be."""
    names, actions = served.actions.names, history.actions
    if not names:
        return [None] * len(history.item_ids)
    if actions is None:
        return [served.scorer.default_action] * len(history.item_ids)
    return [action if isinstance(action, str) else names[action] if action >= 0 else None for action in actions]
