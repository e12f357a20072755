"""From the bytes of a request to a checked object, refusing early whatever is too large or can be read two ways."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from service.errors import (
    BodyTooLargeError,
    ClientGoneError,
    InvalidInputError,
    MalformedBodyError,
    UnsupportedMediaError,
    invalid,
    shorten,
)

# An escape that is a character only together with the one after it.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, shape: type[Model], limit: int) -> Model:
    """The body of a request as an object of `shape`.

    Raises:
        UnsupportedMediaError: not `application/json`, or compressed.
        BodyTooLargeError: more than `limit` bytes, whatever the headers claim.
        MalformedBodyError: not JSON in UTF-8, a name twice in one object, NaN or infinite numbers, nested too deep.
        InvalidInputError: JSON of another shape.
    """
    _check_headers(request)
    document = decode(await _receive(request, limit))
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise _with_choices(invalid(problem), problem["type"], shape) from None


def decode(body: bytes) -> Any:
    """Strict JSON; the standard library's reader lets pass much that other readers refuse or read differently."""
    try:
        text = body.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError:
        raise MalformedBodyError("the body has one half of a surrogate pair, which is no character") from None
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise MalformedBodyError("the body is nested too deep") from None
    except json.JSONDecodeError as error:
        raise MalformedBodyError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        # The one other: Python's own bound on the digits of an integer.
        raise MalformedBodyError("the body is not JSON that can be read: a number has thousands of digits") from None


async def _receive(request: Request, limit: int) -> bytes:
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > limit:
        raise BodyTooLargeError(f"a body of {stated[:20]} bytes: at most {limit}")
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise BodyTooLargeError(f"a body of more than {limit} bytes: at most {limit}")
            chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection within its request") from None
    return b"".join(chunks)


def _check_headers(request: Request) -> None:
    stated = request.headers.get("content-type", "")
    kind, _, parameters = stated.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise UnsupportedMediaError(f"content-type {shorten(stated)}: send JSON as application/json")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaError(f"content-encoding {shorten(encoding)}: send the body as it is")


def _with_choices(error: InvalidInputError, problem: str, shape: type[BaseModel]) -> InvalidInputError:
    """Says which fields there are to whoever named one that there is not."""
    if problem == "extra_forbidden" and error.field and "[" not in error.field:
        error.message += f"; there are {', '.join(shape.model_fields)}"
    return error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedBodyError(f"{shorten(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBodyError(f"the body is not JSON: {name} is no number there")
