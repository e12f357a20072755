"""What can go wrong with a request: one tree, each error with its status and code, one wire form for all.

`{"error": {"code", "message", "field"?}}`; under `/v2` the Open Inference Protocol's, `{"error": "message"}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

LONGEST_FIELD = 200


class AugurError(Exception):
    """An answer other than success.

    Args:
        message: what is wrong and the rule it breaks, for a person.
        field: the part of the request it is about, as in `events[3].timestamp_ms`.
    """

    status = 500
    code = "internal"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InternalError(AugurError):
    """A fault of the server itself, always logged with its traceback; no input should reach it."""


class MalformedBodyError(AugurError):
    """A body that is not JSON in UTF-8, or JSON that two readers could read differently."""

    status, code = 400, "malformed_body"


class MalformedRequestError(AugurError):
    """Bytes that are not HTTP."""

    status, code = 400, "malformed_request"
    headers = {"connection": "close"}  # noqa: RUF012


class InvalidInputError(AugurError):
    """A well-formed request that breaks a rule; `field` says where."""

    status, code = 422, "invalid_input"


class UnauthorizedError(AugurError):
    """No key, or one that is not known; the message never repeats it."""

    status, code = 401, "unauthorized"
    headers = {"www-authenticate": 'Bearer realm="augur"'}  # noqa: RUF012


class ForbiddenError(AugurError):
    """A key that is known, without the right to this."""

    status, code = 403, "forbidden"


class NotFoundError(AugurError):
    """No such route."""

    status, code = 404, "not_found"


class ModelRejectedError(AugurError):
    """A model that was asked for is not taken into service; what served before goes on."""

    status, code = 422, "model_rejected"


class LoadInProgressError(AugurError):
    """The model is being loaded already."""

    status, code = 409, "load_in_progress"


class MethodNotAllowedError(AugurError):
    """The route exists, under another method."""

    status, code = 405, "method_not_allowed"


class SlowRequestError(AugurError):
    """A request that was not whole in time."""

    status, code = 408, "slow_request"
    headers = {"connection": "close"}  # noqa: RUF012


class HeadTooLargeError(AugurError):
    """A request line and headers of too many bytes."""

    status, code = 431, "head_too_large"
    headers = {"connection": "close"}  # noqa: RUF012


class BodyTooLargeError(AugurError):
    """More bytes than a body may have. The connection closes, so that the rest is not read."""

    status, code = 413, "body_too_large"
    headers = {"connection": "close"}  # noqa: RUF012


class UnsupportedMediaError(AugurError):
    """A body of another type than the route reads, or compressed in another way than this server knows."""

    status, code = 415, "unsupported_media_type"


class QueueFullError(AugurError):
    """More candidates wait than the queue holds."""

    status, code = 429, "queue_full"
    headers = {"retry-after": "1"}  # noqa: RUF012


class ClientGoneError(AugurError):
    """The client closed its connection before the answer; nobody reads this."""

    status, code = 499, "client_gone"


class StoreUnavailableError(AugurError):
    """The behaviour store does not answer, so that a read or a write could not be done."""

    status, code = 503, "store_unavailable"
    headers = {"retry-after": "1"}  # noqa: RUF012


class TooManyConnectionsError(AugurError):
    """As many connections are open as may be, and none of them idle."""

    status, code = 503, "too_many_connections"
    headers = {"retry-after": "1", "connection": "close"}  # noqa: RUF012


class StuckError(AugurError):
    """A lane does not come back: only a restart frees it."""

    status, code = 503, "stuck"


class NotReadyError(AugurError):
    """The server has not finished starting."""

    status, code = 503, "not_ready"
    headers = {"retry-after": "1"}  # noqa: RUF012


class DrainingError(AugurError):
    """The server is about to stop; another one should be asked."""

    status, code = 503, "draining"
    headers = {"retry-after": "1", "connection": "close"}  # noqa: RUF012


class DeadlineExceededError(AugurError):
    """The request's own deadline passed before its scores were ready."""

    status, code = 504, "deadline_exceeded"


def detail(error: AugurError) -> dict[str, str]:
    """What an answer says of an error."""
    found = {"code": error.code, "message": error.message}
    if error.field is not None:
        found["field"] = error.field
    return found


def to_response(error: AugurError, path: str = "") -> Response:
    """The wire form of an error: that of the Open Inference Protocol for its paths.

    There `error` is a text, and 400 what the client could have known, where the rest of the API tells 422 from 400.
    """
    content: dict[str, Any] = {"error": detail(error)}
    status = error.status
    if path == "/v2" or path.startswith("/v2/"):
        content, status = {"error": error.message}, 400 if status == 422 else status
    # ASCII alone: a message can quote text that UTF-8 cannot carry, such as half a surrogate pair.
    return Response(json.dumps(content, ensure_ascii=True), status, dict(error.headers), "application/json")


async def handle(request: Request, error: Exception) -> Response:
    """The one exception handler: ours as they are, the framework's translated."""
    asked = request.scope["path"]
    if isinstance(error, AugurError):
        return to_response(error, asked)
    if isinstance(error, RequestValidationError):
        return to_response(invalid(error.errors()[0], skip=1), asked)
    path = shorten(asked)
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.NOT_FOUND:
        return to_response(NotFoundError(f"{path}: no such route; /docs lists them"), asked)
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        refused = MethodNotAllowedError(f"{request.method} {path}: not with this method")
        refused.headers = _allow(request) or dict(error.headers or {})
        return to_response(refused, asked)
    # Routing refuses in no other way: a fault, for the door to answer.
    raise error


def _allow(request: Request) -> dict[str, str]:
    """What may be asked of a path; several routes can stand on it, of which the framework names the first one's."""
    routes: list[Route] = request.app.state.routes
    standing = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in standing for method in route.methods or ()}
    return {"allow": ", ".join(sorted(found))} if found else {}


def invalid(problem: Mapping[str, Any], *, skip: int = 0) -> InvalidInputError:
    """One of pydantic's findings as an error; `skip` drops leading parts of its place, such as `query`."""
    field = field_path(tuple(problem["loc"])[skip:])
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    if problem["type"] == "missing":
        return InvalidInputError(f"{field}: required", field=field)
    if problem["type"] == "extra_forbidden":
        return InvalidInputError(f"{shorten(field)}: no such field", field=field)
    if problem["type"] == "model_type":
        message = "a JSON object is expected"
    if isinstance(problem["input"], dict | list):
        return InvalidInputError(f"{field or 'the body'}: {message}", field=field or None)
    return InvalidInputError(f"{field or 'the body'}={shorten(problem['input'])}: {message}", field=field or None)


def field_path(place: tuple[int | str, ...]) -> str:
    """A place in a document as a person writes it: `events[3].timestamp_ms`, `context["a b"]`."""
    path = ""
    for part in place:
        if part == "[key]":
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier():
            path += f".{part}" if path else part
        else:
            path += f"[{json.dumps(part)}]"
    return path[:LONGEST_FIELD]


def shorten(value: object, longest: int = 60) -> str:
    """A value as JSON writes it, cut to fit a message."""
    if isinstance(value, int) and value.bit_length() > 4 * longest:
        return f"an integer of {value.bit_length()} bits"
    text = json.dumps(value[: longest + 1] if isinstance(value, str) else value, default=repr)
    return text if len(text) <= longest else text[: longest - 3] + "..."
