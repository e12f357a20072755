"""`POST /v1/score` as it is served: between the server and the batcher there is nothing but what this module says.

The framework's own way to a route costs more than the rest of the server together (docs/performance.md), so the door
sends these requests here. The route is declared in `routes.py` all the same, for its documentation.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from starlette.types import Receive, Scope, Send

from service import body
from service.decode import ScoreAsk, score_ask
from service.engine import Engine
from service.jobs import Scored
from service.models import Served
from service.protocol import WHOLE
from service.visit import NO_STORE, VISIT, Header


class ScoreRoute:
    """An ASGI application for one path."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads, checks, has it scored, answers; errors are the caller's."""
        engine = self._engine
        asked = score_ask(await body.receive_json(scope, receive, engine.settings.max_body_bytes))
        served = engine.served(asked)
        scored = await engine.score(asked, served, functools.partial(until_gone, receive))
        await respond(scope, send, answer(served, asked, scored), scored)


async def respond(
    scope: Scope,
    send: Send,
    content: bytes,
    *scored: Scored,
    kind: bytes = b"application/json",
    more: Sequence[Header] = (),
) -> None:
    """Sends an answer and says in its head where the time went."""
    timing = server_timing(*scored)
    whole, visit = scope.get(WHOLE), VISIT.get()
    if whole is not None and visit is not None:
        lines = b"".join(b"%s: %s\r\n" % each for each in (*more, *visit.headers, NO_STORE))
        head = _HEAD % (kind, len(content), timing, lines)
        if whole(head, content, visit.last):
            visit.status = 200
            return
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), (b"server-timing", timing), *more]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\nserver-timing: %s\r\n%s"


async def until_gone(receive: Receive) -> None:
    """Returns when the client closes its connection; until then there is nothing to receive, the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        continue


def answer(served: Served, asked: ScoreAsk, scored: Scored) -> bytes:
    """`wire.ScoreAnswer` as JSON. Numbers have the digits it takes to read them as float32, and no more."""
    degraded = b"null" if scored.degraded is None else b'"%s"' % scored.degraded.encode()
    return b'{"model":%s,"version":%s,%s,"history_length":%d,"unknown_items":%d,"degraded":%s}' % (
        *_identity(served.name, served.version),
        _scores(asked, scored),
        scored.history_length,
        scored.unknown_items,
        degraded,
    )


def _scores(asked: ScoreAsk, scored: Scored) -> bytes:
    if asked.top_k is None:
        return b'"scores":' + _json(scored.scores)
    best = np.argsort(-scored.scores, kind="stable")[: asked.top_k]
    pairs = zip(asked.item_ids[best].tolist(), scored.scores[best], strict=True)
    return b'"ranking":' + _json([{"item_id": item_id, "score": score} for item_id, score in pairs])


def _json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


@functools.lru_cache(maxsize=64)
def _identity(name: str, version: str) -> tuple[bytes, bytes]:
    return json.dumps(name).encode(), json.dumps(version).encode()


def server_timing(*scored: Scored) -> bytes:
    """Where the time went, in milliseconds: https://www.w3.org/TR/server-timing/.

    Of several answers, which ran side by side, each part's longest.
    """
    if len(scored) == 1:
        queued, store, computed = scored[0].queued, scored[0].store, scored[0].computed
    else:
        queued = max((each.queued for each in scored), default=0.0)
        store = max((each.store for each in scored), default=0.0)
        computed = max((each.computed for each in scored), default=0.0)
    return b"queue;dur=%.3f, store;dur=%.3f, compute;dur=%.3f" % (queued * 1e3, store * 1e3, computed * 1e3)
