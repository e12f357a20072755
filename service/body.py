"""The bytes of a request: their type as stated, their number bounded."""

from __future__ import annotations

from starlette.types import Receive, Scope

from service.errors import BodyTooLargeError, ClientGoneError, UnsupportedMediaError, shorten


async def receive_json(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body of a request that states JSON.

    Raises:
        UnsupportedMediaError: not `application/json`, or compressed.
        BodyTooLargeError: more than `limit` bytes, whatever the headers claim.
        ClientGoneError: the connection ended within the body.
    """
    kind = encoding = length = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encoding = value
    if kind != b"application/json":
        _check_type(kind.decode("latin-1"))
    if encoding.lower() not in (b"", b"identity"):
        stated = shorten(encoding.decode("latin-1"))
        raise UnsupportedMediaError(f"content-encoding {stated}: send the body as it is")
    if length.isdigit() and int(length[:20]) > limit:
        raise BodyTooLargeError(f"a body of {length[:20].decode()} bytes: at most {limit}")
    return await receive_all(receive, limit)


async def receive_all(receive: Receive, limit: int) -> bytes:
    """The whole body of a request, whatever it is; raises as `receive_json`."""
    message = await receive()
    chunks, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client closed the connection within its request")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError(f"a body of more than {limit} bytes: at most {limit}")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        message = await receive()


def _check_type(stated: str) -> None:
    kind, _, parameters = stated.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise UnsupportedMediaError(f"content-type {shorten(stated)}: send JSON as application/json")
