"""`POST /v1/score:batch`: several users' requests in one call, each with its own outcome.

They reach the batcher within one turn of the event loop, so that those of one user share a fetch and a batch.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from service import body, scoring, wire
from service.decode import ScoreAsk, check, from_wire, score_ask, strict_json
from service.engine import Engine
from service.errors import AugurError, ClientGoneError, InvalidInputError, detail
from service.jobs import Scored
from service.models import Served
from service.routes import may_fail, takes

# What another try can cure, and a fault of the server, which must not hide behind 200.
WHOLE = (429, 500, 503, 504)


class BatchRequest(wire.Wire):
    """Requests of any users, one of them several times or not."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"requests": [{"user_id": "42", "item_ids": [1527]}, {"user_id": "7", "item_ids": [1527, 9]}]}]
        }
    )

    requests: list[wire.ScoreRequest] = Field(min_length=1)


class EntryError(wire.ErrorDetail):
    """Why one request has no scores."""

    status: int = Field(description="the status it would have had as a request of its own")


class Failed(BaseModel):
    """In the place of an answer."""

    error: EntryError


class BatchAnswer(BaseModel):
    """What became of each request, in the order asked."""

    results: list[wire.ScoreAnswer | Failed]


class _Document(wire.Wire):
    """The part that all requests have in common, for the strict reader."""

    requests: Annotated[list[Any], Field(min_length=1)]


class _Quick(msgspec.Struct, forbid_unknown_fields=True):
    """The same for the quick reader, which leaves the requests to that of a single one."""

    requests: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


_quick = msgspec.json.Decoder(_Quick)
Ask = ScoreAsk | AugurError
router = APIRouter()


@router.post(
    "/v1/score:batch",
    summary="Scores for several users",
    tags=["scoring"],
    openapi_extra=takes(BatchRequest),
    response_model=BatchAnswer,
    responses=may_fail(400, 413, 415, 422, 429, 503, 504),
)
async def score_batch(request: Request) -> Response:
    """The answers of `/v1/score` to several requests.

    One that is refused or fails has its `error` in its place, with the status it would have had alone, and does not
    touch the others.

    429, 503 and 504 answer the whole where none has scores and another try could give some; 400 and 422 a document that
    is no list of requests, or has more than the server takes at a time. All else is 200.
    """
    raise NotImplementedError("the door hands this path to BatchRoute")


class BatchRoute:
    """An ASGI application for one path."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads, checks, has all scored at once, answers; errors are the caller's."""
        settings = self._engine.settings
        asks = batch_asks(await body.receive_json(scope, receive, settings.max_body_bytes), settings.max_requests)
        check_candidates(asks, settings.queue_candidates)
        outcomes = await asyncio.gather(*(self._outcome(asked, receive) for asked in asks))
        check_worth_answering(outcomes)
        content = b'{"results":[%s]}' % b",".join(
            _failed(each) if isinstance(each, AugurError) else scoring.answer(*each) for each in outcomes
        )
        scored = [each[2] for each in outcomes if not isinstance(each, AugurError)]
        await scoring.respond(scope, send, content, *scored)

    async def _outcome(self, asked: Ask, receive: Receive) -> tuple[Served, ScoreAsk, Scored] | AugurError:
        if isinstance(asked, AugurError):
            return asked
        try:
            served = self._engine.served(asked)
            scored = await self._engine.score(asked, served, functools.partial(scoring.until_gone, receive))
        except AugurError as error:
            return error
        return served, asked, scored


def batch_asks(content: bytes, most: int) -> list[Ask]:
    """The requests of a body, each as it is read or as the error that it is.

    Raises:
        MalformedBodyError: not strict JSON, be it within one of the requests.
        InvalidInputError: no list of requests, or more than `most`.
    """
    raws = _quickly(content)
    if raws is not None:
        _check_number(len(raws), most)
        return [_ask(raw) for raw in raws]
    return _strictly(content, most)


def _strictly(content: bytes, most: int) -> list[Ask]:
    document = check(strict_json(content), _Document)
    _check_number(len(document.requests), most)
    return [_strict_ask(each) for each in document.requests]


def _quickly(content: bytes) -> list[bytes] | None:
    """The bytes of each request; None unless they are sure to be what the strict reader would see."""
    if b"\\" in content:
        return None
    try:
        raws = [bytes(raw) for raw in _quick.decode(content).requests]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    # Outside the requests stands nothing but the one name; a second one would have two quotes more.
    return raws if sum(raw.count(b'"') for raw in raws) + 2 == content.count(b'"') else None


def _ask(raw: bytes) -> Ask:
    try:
        return score_ask(raw)
    except InvalidInputError as error:
        return error


def _strict_ask(document: Any) -> Ask:
    try:
        return from_wire(check(document, wire.ScoreRequest))
    except InvalidInputError as error:
        return error


def _check_number(requests: int, most: int) -> None:
    if requests > most:
        raise InvalidInputError(
            f"requests has {requests} entries: at most {most} (AUGUR_MAX_REQUESTS)", field="requests"
        )


def check_candidates(asks: Sequence[Ask], most: int) -> None:
    """All of them together must fit the queue, or they could never be taken at once."""
    candidates = sum(len(asked.item_ids) for asked in asks if isinstance(asked, ScoreAsk))
    if candidates > most:
        raise InvalidInputError(
            f"requests have {candidates} candidates together: at most {most} (AUGUR_QUEUE_CANDIDATES)", field="requests"
        )


def check_worth_answering(outcomes: Sequence[object]) -> None:
    """Raises the first error that is not the request's own, where there are no scores at all."""
    failures = [each for each in outcomes if isinstance(each, AugurError)]
    if len(failures) < len(outcomes):
        return
    for error in failures:
        if error.status in WHOLE or isinstance(error, ClientGoneError):
            raise error


def _failed(error: AugurError) -> bytes:
    return json.dumps({"error": {**detail(error), "status": error.status}}).encode()
