"""The HTTP contract: each route reads, checks, asks the engine, and writes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.convertors import Convertor, register_url_convertor

from service import body, wire
from service.decode import parse
from service.engine import Engine
from service.errors import InvalidInputError, StoreUnavailableError, shorten
from service.models import Served
from service.stores import StoreError

Model = TypeVar("Model", bound=BaseModel)


class TextConvertor(Convertor[str]):
    """A part of a path that is any text: slashes and line breaks too, which the framework's own ones stop at."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """From the path."""
        return value

    def to_string(self, value: str) -> str:
        """To a path."""
        return value


register_url_convertor("text", TextConvertor())
router = APIRouter()

MEANINGS = {
    400: "Not JSON, JSON that could be read two ways, or compressed data that is damaged",
    404: "There is no model of this name",
    405: "Not with this method",
    409: "The model is being loaded already",
    413: "The body has too many bytes",
    415: "The body is not `application/json`, or compressed by other than gzip or deflate",
    422: "A field breaks its rule",
    429: "The queue is full; `Retry-After` says when to come back",
    503: "Starting, stopping, or the behaviour store does not answer",
    504: "The deadline passed",
}


def may_fail(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its documentation."""
    return {status: {"model": wire.ErrorAnswer, "description": MEANINGS[status]} for status in statuses}


def takes(shape: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The body of a route that reads it itself, for its documentation."""
    reference = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference}}}}


def answer(content: Any) -> Response:
    """JSON; numbers are written so that reading them as float32 gives the very same."""
    return Response(to_json(content, inf_nan_mode="null"), media_type="application/json")


@router.post(
    "/v1/score",
    summary="Click probabilities of candidates for a user",
    tags=["scoring"],
    openapi_extra=takes(wire.ScoreRequest),
    response_model=wire.ScoreAnswer,
    responses=may_fail(400, 404, 413, 415, 422, 429, 503, 504),
)
async def score(request: Request) -> Response:
    """One probability for each candidate, from what the user did most recently.

    Behaviours come from the store, or from `history` in the request. When the store does not answer, the scores come
    from what this server last read for the user (`degraded` is `store_stale`), else they are those of a user without
    behaviours (`store_unavailable`).
    """
    raise NotImplementedError("the door hands this path to service.scoring")


@router.post(
    "/v1/behaviors",
    summary="Record what users did",
    tags=["behaviours"],
    openapi_extra=takes(wire.BehaviorsRequest),
    response_model=wire.BehaviorsAnswer,
    responses=may_fail(400, 413, 415, 422, 503),
)
async def record(request: Request) -> Response:
    """Adds events to users' sequences, each once: it is safe to send the same request again.

    After a 503 some users' events may be stored and others not; send all of them again.
    """
    engine = _engine(request)
    asked = await _read(request, wire.BehaviorsRequest)
    records = engine.records(asked.events)
    try:
        appended = await engine.store.append(records)
    except StoreError as error:
        raise _unavailable(error) from error
    return answer(
        {
            "accepted": appended.accepted,
            "duplicates": appended.duplicates,
            "outside_window": appended.outside_window,
        }
    )


@router.get(
    "/v1/users/{user_id:text}/behaviors",
    summary="A user's stored behaviours, oldest first",
    tags=["behaviours"],
    response_model=wire.UserBehaviorsAnswer,
    responses=may_fail(422, 503),
)
async def recall(
    request: Request,
    user_id: str,
    limit: Annotated[int | None, Query(ge=1, le=1_000_000, description="the most recent so many")] = None,
) -> Response:
    """What the store knows of a user; nothing for one it does not know."""
    engine = _engine(request)
    _check_user(request, user_id)
    try:
        sequence = (await engine.store.histories([user_id]))[0]
    except StoreError as error:
        raise _unavailable(error) from error
    if sequence is None:
        raise StoreUnavailableError("what is stored for this user cannot be read now")
    names = ("item_id", "timestamp_ms", "action")
    columns = [sequence[name][-(limit or len(sequence)) :].tolist() for name in names]
    events = [
        {"item_id": item_id, "timestamp_ms": timestamp_ms, "action": engine.action_name(code)}
        for item_id, timestamp_ms, code in zip(*columns, strict=True)
    ]
    return answer({"user_id": user_id, "events": events})


@router.delete(
    "/v1/users/{user_id:text}/behaviors",
    summary="Forget a user's behaviours",
    tags=["behaviours"],
    response_model=wire.DeletedAnswer,
    responses=may_fail(422, 503),
)
async def forget(request: Request, user_id: str) -> Response:
    """Everything stored for the user is gone."""
    _check_user(request, user_id)
    try:
        deleted = await _engine(request).store.delete(user_id)
    except StoreError as error:
        raise _unavailable(error) from error
    return answer({"user_id": user_id, "deleted": deleted})


@router.get("/v1/models", summary="The models served", tags=["models"], response_model=wire.ModelsAnswer)
async def models(request: Request) -> Response:
    """Names, versions, and what each model knows: its actions, its context fields, how far back it looks.

    And who answers whom: the weights of the routes, and how far shadows are from the answers.
    """
    engine = _engine(request)
    return answer({"models": [_info(served) for served in engine.models], "routes": engine.shadows.describe()})


@router.post(
    "/v1/models/{name}/load",
    summary="Load a model, or a new version of one",
    tags=["models"],
    openapi_extra=takes(wire.LoadRequest, required=False),
    response_model=wire.LoadAnswer,
    responses=may_fail(400, 404, 409, 413, 415, 422, 503),
)
async def load(request: Request, name: str) -> Response:
    """Reads, checks and warms it beside the one that serves, compares the two, and only then lets it answer.

    Requests in flight end with the version they began with. Whatever is wrong, the old version stays and the error says
    why: `model_rejected`. A name that is not served yet needs a `path`. The door asks for an admin key; this route
    knows nothing of keys.
    """
    asked = await _read_optional(request, wire.LoadRequest)
    loaded = await _engine(request).loader.load(name, asked.path, force=asked.force)
    return answer(
        {
            "name": loaded.served.name,
            "version": loaded.served.version,
            "previous_version": loaded.previous,
            "changed": loaded.changed,
            "seconds": loaded.seconds,
            "comparison": loaded.comparison and loaded.comparison._asdict(),
            "overruled": loaded.overruled,
        }
    )


@router.get(
    "/startupz",
    summary="The models are warm",
    tags=["probes"],
    response_model=wire.StatusAnswer,
    responses=may_fail(503),
)
async def started(request: Request) -> Response:
    """Fails until the server could answer for the first time, and never after."""
    _engine(request).check_started()
    return answer({"status": "started"})


@router.get(
    "/livez",
    summary="The process answers",
    tags=["probes"],
    response_model=wire.StatusAnswer,
    responses=may_fail(503),
)
async def live(request: Request) -> Response:
    """Succeeds while the event loop and the lanes run; a failure is cured by a restart."""
    _engine(request).check_alive()
    return answer({"status": "alive"})


@router.get(
    "/readyz",
    summary="Requests are welcome",
    tags=["probes"],
    response_model=wire.StatusAnswer,
    responses=may_fail(503),
)
async def ready(request: Request) -> Response:
    """Fails before the model is warm and from SIGTERM on.

    Says nothing of the store: without it requests are still answered, and a store that all servers share must not
    take all of them out at once.
    """
    _engine(request).check_ready()
    return answer({"status": "ready"})


@router.get("/", include_in_schema=False)
async def root() -> Response:
    """A person who opens the address finds the documentation, where there is no console."""
    return RedirectResponse("/docs")


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _read(request: Request, shape: type[Model]) -> Model:
    """The body of a request as an object of `shape`."""
    content = await body.receive_json(request.scope, request.receive, _engine(request).settings.max_body_bytes)
    return parse(content, shape)


async def _read_optional(request: Request, shape: type[Model]) -> Model:
    """As `_read`; no body at all is an empty object."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return shape()
    return await _read(request, shape)


def _info(served: Served) -> wire.ModelInfo:
    scorer = served.scorer
    return wire.ModelInfo(
        name=served.name,
        version=served.version,
        description=scorer.description,
        architecture=scorer.architecture,
        parameters=scorer.parameters,
        actions=list(scorer.actions),
        default_action=scorer.default_action,
        context_fields=list(scorer.context_fields),
        max_history=scorer.max_history,
        metrics=dict(scorer.metrics),
        loaded_at=datetime.fromtimestamp(served.loaded_at, UTC).isoformat(timespec="seconds"),
    )


def _check_user(request: Request, user_id: str) -> None:
    """An id in a path: the bounds of one in a body, and bytes that are text.

    The server puts U+FFFD where they are not, under which all such ids would be one user.
    """
    try:
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError("user_id: percent-encoded UTF-8", field="user_id") from None
    if not 1 <= len(user_id) <= wire.LONGEST_USER_ID:
        raise InvalidInputError(f"user_id={shorten(user_id)}: 1 to {wire.LONGEST_USER_ID} characters", field="user_id")


def _unavailable(error: StoreError) -> StoreUnavailableError:
    return StoreUnavailableError(f"the behaviour store does not do its part ({error}); try again")
