"""The Open Inference Protocol v2: what `tritonclient`, `kserve` and inference graphs speak.

https://github.com/kserve/open-inference-protocol, with the extension for binary tensors. A model takes `user_id`
BYTES [1] and `item_id` INT64 [C]; if given, `history_item_id` INT64 [T] with `history_action` BYTES [T] replaces the
stored behaviours, and each context field is an INT64 [1] or a parameter. It gives `score` FP32 [C].
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from service import body, scoring
from service.decode import ScoreAsk
from service.engine import Engine
from service.errors import InvalidInputError, MalformedBodyError, NotFoundError, shorten
from service.jobs import Scored
from service.models import Served
from service.oip_shapes import (
    InferAnswer,
    LiveAnswer,
    MetadataAnswer,
    ModelAnswer,
    ModelReadyAnswer,
    ReadyAnswer,
    infer_document,
    may_refuse,
)
from service.routes import answer
from service.tensors import BYTES, FP32, INT64, Document, Parameter, Tensors, flag, only, read, whole
from service.wire import LONGEST_USER_ID

INPUTS = ("user_id", "item_id", "history_item_id", "history_action")
# Clients that send no JSON of their own state the type of octets, or none.
KINDS = (body.JSON, body.OCTETS, b"")
JSON_LENGTH = b"inference-header-content-length"
# "timeout" is Triton's, in microseconds.
REQUEST_PARAMETERS = ("binary_data_output", "timeout")

router = APIRouter(tags=["open inference protocol"])


@router.get("/v2", summary="The server", response_model=MetadataAnswer)
async def server(request: Request) -> Response:
    """Name, version and extensions."""
    return answer({"name": "augur", "version": request.app.version, "extensions": ["binary_tensor_data"]})


@router.get("/v2/health/live", summary="The process answers", response_model=LiveAnswer)
async def live() -> Response:
    """As `/livez`."""
    return answer({"live": True})


@router.get("/v2/health/ready", summary="Requests are welcome", response_model=ReadyAnswer, responses=may_refuse(503))
async def ready(request: Request) -> Response:
    """As `/readyz`."""
    _engine(request).check_ready()
    return answer({"ready": True})


@router.get("/v2/models/{name}", summary="A model", response_model=ModelAnswer, responses=may_refuse(404))
@router.get(
    "/v2/models/{name}/versions/{version}",
    summary="A version of a model",
    response_model=ModelAnswer,
    responses=may_refuse(404),
)
async def model(request: Request, name: str, version: str | None = None) -> Response:
    """The tensors that it takes and gives. All but `user_id` and `item_id` can be left out."""
    served = _served(_engine(request), name, version)
    taken = [("user_id", BYTES, 1), ("item_id", INT64, -1), ("history_item_id", INT64, -1)]
    taken += [("history_action", BYTES, -1)] if served.actions.names else []
    taken += [(field, INT64, 1) for field in served.scorer.context_fields]
    return answer(
        {
            "name": served.name,
            "versions": [served.version],
            "platform": f"augur_{served.scorer.architecture}",
            "inputs": [{"name": each, "datatype": kind, "shape": [size]} for each, kind, size in taken],
            "outputs": [{"name": "score", "datatype": FP32, "shape": [-1]}],
        }
    )


@router.get(
    "/v2/models/{name}/ready",
    summary="A model can be asked",
    response_model=ModelReadyAnswer,
    responses=may_refuse(404, 503),
)
@router.get(
    "/v2/models/{name}/versions/{version}/ready",
    summary="A version of a model can be asked",
    response_model=ModelReadyAnswer,
    responses=may_refuse(404, 503),
)
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """404 for a model or version that is not served, 503 for a server that is not ready."""
    served = _served(_engine(request), name, version)
    _engine(request).check_ready()
    return answer({"name": served.name, "ready": True})


@router.post(
    "/v2/models/{name}/infer",
    summary="Scores of a model",
    openapi_extra=infer_document(),
    response_model=InferAnswer,
    responses=may_refuse(400, 404, 413, 415, 429, 503, 504),
)
@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    summary="Scores of a version of a model",
    openapi_extra=infer_document(),
    response_model=InferAnswer,
    responses=may_refuse(400, 404, 413, 415, 429, 503, 504),
)
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """One probability for each candidate, in JSON or, if asked by `binary_data` or `binary_data_output`, in binary.

    A parameter of the request is `timeout`, in microseconds, or a context field of the model.
    """
    raise NotImplementedError("the door hands this path to InferRoute")


class InferRoute:
    """An ASGI application for the paths that end in `/infer`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads, checks, has it scored, answers; errors are the caller's."""
        engine = self._engine
        content = await body.receive_typed(scope, receive, engine.settings.max_body_bytes, KINDS)
        served = _served(engine, *(model_of(scope["path"]) or ("", None)))
        tensors = read(content, _json_length(scope))
        binary = binary_output(tensors.document)
        asked = ask(tensors, served)
        scored = await engine.score(asked, served, functools.partial(scoring.until_gone, receive))
        head = to_json(served, tensors.document, scored, binary)
        if binary:
            content = head + scored.scores.astype("<f4", copy=False).tobytes()
            length = (b"inference-header-content-length", b"%d" % len(head))
            await scoring.respond(scope, send, content, scored, kind=body.OCTETS, more=(length,))
        else:
            await scoring.respond(scope, send, head, scored)


def model_of(path: str) -> tuple[str, str | None] | None:
    """Name and version in the path of a request to infer; None for another path."""
    parts = path.split("/")
    if parts[:3] != ["", "v2", "models"] or parts[-1] != "infer":
        return None
    if len(parts) == 5:
        return parts[3], None
    return (parts[3], parts[5]) if len(parts) == 7 and parts[4] == "versions" else None


def ask(tensors: Tensors, served: Served) -> ScoreAsk:
    """The request that tensors and parameters make.

    Raises:
        InvalidInputError: an input that is missing, not known, or of another datatype or shape.
    """
    fields = served.scorer.context_fields
    for name in tensors.values:
        if name not in INPUTS and name not in fields:
            choices = ", ".join((*INPUTS, *fields))
            raise InvalidInputError(f"input {shorten(name)}: not known; there are {choices}", field="inputs")
    parameters = only(tensors.document.parameters, (*REQUEST_PARAMETERS, *fields), "")
    timeout_us = whole(parameters, "timeout", 1, 2**63 - 1)
    item_ids = tensors.integers("item_id")
    if item_ids is None or not len(item_ids):
        raise InvalidInputError("input item_id: required, with one element at least", field="item_id")
    return ScoreAsk(
        user_id=_user(tensors),
        item_ids=item_ids,
        context=_context(tensors, parameters, fields),
        history=tensors.integers("history_item_id"),
        history_actions=tensors.texts("history_action"),
        timeout_ms=None if timeout_us is None else -(-timeout_us // 1000),
    )


def _user(tensors: Tensors) -> str:
    texts = tensors.texts("user_id")
    if texts is None or len(texts) != 1 or not 1 <= len(texts[0]) <= LONGEST_USER_ID:
        raise InvalidInputError(
            f"input user_id: required, one element of 1 to {LONGEST_USER_ID} characters", field="user_id"
        )
    return texts[0]


def _context(tensors: Tensors, parameters: Mapping[str, Parameter], fields: tuple[str, ...]) -> dict[str, int]:
    context: dict[str, int] = {}
    for name in fields:
        stated = whole(parameters, name, -(2**63), 2**63 - 1)
        tensor = tensors.integers(name)
        if tensor is not None and (len(tensor) != 1 or stated is not None):
            raise InvalidInputError(f"input {shorten(name)}: one element, and no parameter of this name", field=name)
        value = stated if tensor is None else int(tensor[0])
        if value is not None:
            context[name] = value
    return context


def binary_output(document: Document) -> bool:
    """Whether the one output is asked for in binary."""
    default = flag(document.parameters or {}, "binary_data_output") or False
    if not document.outputs:
        return default
    if [output.name for output in document.outputs] != ["score"]:
        names = ", ".join(shorten(output.name) for output in document.outputs[:9])
        raise InvalidInputError(f"outputs {names}: there is one, score", field="outputs")
    (output,) = document.outputs
    stated = flag(only(output.parameters, ("binary_data",), "output score: "), "binary_data")
    return default if stated is None else stated


def to_json(served: Served, document: Document, scored: Scored, binary: bool) -> bytes:
    """The JSON of an answer: all of it, or what comes before binary data."""
    output: dict[str, object] = {"name": "score", "datatype": FP32, "shape": [len(scored.scores)]}
    output |= {"parameters": {"binary_data_size": 4 * len(scored.scores)}} if binary else {"data": scored.scores}
    found: dict[str, object] = {"model_name": served.name, "model_version": served.version}
    if document.id is not None:
        found["id"] = document.id
    # Parameters of the protocol are never null: that of a score in full health is not there.
    found["parameters"] = {"history_length": scored.history_length, "unknown_items": scored.unknown_items} | (
        {} if scored.degraded is None else {"degraded": scored.degraded}
    )
    found["outputs"] = [output]
    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == JSON_LENGTH:
            if not value.isdigit():
                raise MalformedBodyError(
                    f"Inference-Header-Content-Length {shorten(value.decode('latin-1'))}: a number"
                )
            return int(value[:20])
    return None


def _served(engine: Engine, name: str, version: str | None) -> Served:
    served = engine.models.get(name)
    if version is not None and version != served.version:
        raise NotFoundError(f"version {shorten(version)} of {name}: not served; there is {served.version}")
    return served


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine
