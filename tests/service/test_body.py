from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_parts import VALID, Service, error_of

from service import body
from service.errors import BodyTooLargeError, ClientGoneError, MalformedBodyError

LIMIT = 100_000
PACK: dict[bytes, Any] = {b"gzip": gzip.compress, b"deflate": zlib.compress}


def read(content: bytes, encoding: bytes = b"gzip", chunk: int = 1000, limit: int = LIMIT, gone: bool = False) -> bytes:
    """As a server hands it over: in chunks."""
    parts = [content[first : first + chunk] for first in range(0, len(content), chunk)] or [b""]
    messages: list[Any] = [
        {"type": "http.request", "body": part, "more_body": gone or number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]
    messages += [{"type": "http.disconnect"}] * gone
    waiting = iter(messages)

    async def receive() -> Any:
        return next(waiting)

    headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding)]
    return asyncio.run(body.receive_json({"type": "http", "headers": headers}, receive, limit))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(sorted(PACK)), st.integers(1, 400))
def test_what_was_compressed_comes_back_in_whatever_pieces(content: bytes, encoding: bytes, chunk: int) -> None:
    assert read(PACK[encoding](content), encoding, chunk) == content


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(PACK)), st.booleans())
def test_damage_is_the_clients(content: bytes, encoding: bytes, real: bool) -> None:
    damaged = PACK[encoding](b"a" * 100)[:10] + content if real else content
    with pytest.raises(MalformedBodyError):
        read(damaged, encoding)


@pytest.mark.parametrize("encoding", sorted(PACK))
def test_what_is_cut_off_or_goes_on_is_refused(encoding: bytes) -> None:
    packed = PACK[encoding](json.dumps(VALID).encode() * 20)
    for end in (0, 1, len(packed) // 2, len(packed) - 1):
        with pytest.raises(MalformedBodyError, match="cut off"):
            read(packed[:end], encoding)
    for more in (b"x", packed):
        with pytest.raises(MalformedBodyError, match="goes on"):
            read(packed + more, encoding)
    with pytest.raises(ClientGoneError):
        read(packed, encoding, gone=True)


def test_the_size_is_bounded_after_inflating_too() -> None:
    content = b"".join(b"%d," % (number * 7919) for number in range(40_000))
    assert len(gzip.compress(content)) < len(content) / 2
    for size, fits in ((LIMIT, True), (LIMIT + 1, False)):
        if fits:
            assert len(read(gzip.compress(content[:size]))) == size
        else:
            with pytest.raises(BodyTooLargeError, match="inflates to more than 100000"):
                read(gzip.compress(content[:size]))
    with pytest.raises(BodyTooLargeError, match=r"at most 1000$"):
        read(gzip.compress(content), limit=1000)


def test_the_ratio_is_bounded_and_little_memory_is_used() -> None:
    bomb = gzip.compress(b"0" * 200_000_000)
    read(gzip.compress(b"0" * body.FREE_BYTES), limit=10**9)  # a small one may be what it likes
    tracemalloc.start()
    with pytest.raises(BodyTooLargeError, match="100 times"):
        read(bomb, limit=10**9)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_every_route_reads_compressed_bodies(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        events = {"events": [{"user_id": "1", "item_id": 100, "timestamp_ms": 1}]}
        for path, content in (
            ("/v1/score", VALID),
            ("/v1/score:batch", {"requests": [VALID]}),
            ("/v1/explain", VALID),
            ("/v1/behaviors", events),
        ):
            packed = gzip.compress(json.dumps(content).encode())
            headers = {"content-type": "application/json", "content-encoding": "GZIP"}
            answer = await service.client.post(path, content=packed, headers=headers)
            assert answer.status_code == 200, answer.text
            answer = await service.client.post(path, content=packed[:-9], headers=headers)
            assert (answer.status_code, error_of(answer)["code"]) == (400, "malformed_body")
            bomb = gzip.compress(b" " * 10**7)
            answer = await service.client.post(path, content=bomb, headers=headers)
            assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
            assert answer.headers["connection"] == "close"

    with_service(scenario)
