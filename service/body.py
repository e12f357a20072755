"""The bytes of a request: their type as stated, their number bounded, compressed or not."""

from __future__ import annotations

import zlib
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Scope

from service.errors import (
    BodyTooLargeError,
    ClientGoneError,
    MalformedBodyError,
    UnsupportedMediaError,
    shorten,
)

JSON = b"application/json"
OCTETS = b"application/octet-stream"
# The container that zlib looks for. "deflate" is what RFC 9110 says it is: deflated data in zlib's own.
WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
# JSON of ids comes to 2 to 20 times its compressed size; far more is meant to hurt. Small bodies may be as they like.
MAX_RATIO = 100
FREE_BYTES = 65_536


def receive_json(scope: Scope, receive: Receive, limit: int) -> Coroutine[Any, Any, bytes]:
    """The whole body of a request that states JSON.

    Raises:
        UnsupportedMediaError: not `application/json`, or compressed in an unknown way.
        BodyTooLargeError: more than `limit` bytes, whatever the headers claim, before or after inflating.
        MalformedBodyError: compressed data that is damaged or cut off.
        ClientGoneError: the connection ended within the body.
    """
    return receive_typed(scope, receive, limit, (JSON,))


async def receive_typed(scope: Scope, receive: Receive, limit: int, kinds: tuple[bytes, ...]) -> bytes:
    """The whole body of a request that states one of some types; raises as `receive_json`."""
    kind = encoding = length = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encoding = value
    if kind not in kinds:
        _check_type(kind.decode("latin-1"), kinds)
    if length.isdigit() and int(length[:20]) > limit:
        raise BodyTooLargeError(f"a body of {length[:20].decode()} bytes: at most {limit}")
    encoding = encoding.lower()
    if encoding in (b"", b"identity"):
        return await receive_all(receive, limit)
    window = WINDOWS.get(encoding)
    if window is None:
        stated = shorten(encoding.decode("latin-1"))
        raise UnsupportedMediaError(f"content-encoding {stated}: gzip or deflate, or send the body as it is")
    return await _inflate(receive, limit, window)


async def receive_all(receive: Receive, limit: int) -> bytes:
    """The whole body of a request, whatever it is; raises as `receive_json`."""
    chunk, more = await _chunk(receive, limit)
    if not more:
        return chunk
    chunks, size = [chunk], len(chunk)
    while more:
        chunk, more = await _chunk(receive, limit, size)
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


async def _chunk(receive: Receive, limit: int, before: int = 0) -> tuple[bytes, bool]:
    """The next bytes of a body, of which there were some before, and whether there are more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("the client closed the connection within its request")
    chunk: bytes = message.get("body", b"")
    if before + len(chunk) > limit:
        raise BodyTooLargeError(f"a body of more than {limit} bytes: at most {limit}")
    return chunk, message.get("more_body", False)


async def _inflate(receive: Receive, limit: int, window: int) -> bytes:
    """Inflates chunk by chunk, and never further than the bounds."""
    inflater = zlib.decompressobj(window)
    inflated: list[bytes] = []
    received = size = 0
    more = True
    while more:
        chunk, more = await _chunk(receive, limit, received)
        received += len(chunk)
        most = min(limit, max(FREE_BYTES, MAX_RATIO * received))
        try:
            part = inflater.decompress(chunk, most - size + 1)
        except zlib.error as error:
            raise MalformedBodyError(f"the body does not inflate: {error}") from None
        size += len(part)
        if size > most:
            ratio = "" if most == limit else f", and at most {MAX_RATIO} times what it was"
            raise BodyTooLargeError(f"a body that inflates to more than {most} bytes: at most {limit}{ratio}")
        if inflater.unused_data:
            raise MalformedBodyError("the body goes on after the end of its compressed data")
        inflated.append(part)
    if not inflater.eof:
        raise MalformedBodyError("the body is cut off within its compressed data")
    return b"".join(inflated)


def _check_type(stated: str, kinds: tuple[bytes, ...]) -> None:
    kind, _, parameters = stated.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower().encode("latin-1") not in kinds or charset not in ("", "charset=utf-8"):
        choices = " or ".join(each.decode() for each in kinds if each)
        raise UnsupportedMediaError(f"content-type {shorten(stated)}: send {choices}")
