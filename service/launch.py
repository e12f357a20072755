"""From settings to a serving process, and the lines that tell a person what came of it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shlex
import socket
import sys

import torch

from model.artifact import ArtifactError
from model.data import open_data
from model.data.dataset import DataError, DataSet
from model.scorer import Scorer
from service import announce
from service.app import create_app, product_version
from service.engine import Engine
from service.logs import say
from service.seeding import sequences
from service.server import Server
from service.settings import ConfigError, Settings
from service.stores import StoreError, redact

log = logging.getLogger("augur")

TRIED_ITEMS = 5
# How long a thread may keep the interpreter from the others; Python's own 5 ms would be seen in the tail.
SWITCH_SECONDS = 0.0005


def launch(settings: Settings, listener: socket.socket) -> None:
    """Serves on a bound socket until told to stop.

    Raises:
        ConfigError: the artifact, the data set or a setting cannot be used.
    """
    torch.set_num_threads(settings.threads)
    sys.setswitchinterval(SWITCH_SECONDS)
    # What the imports made stays: to look through it for cycles, again and again, holds every request for 90 ms.
    gc.collect()
    gc.freeze()
    try:
        app = create_app(settings)
        data = open_data(settings.seed) if settings.seed else None
    except (ArtifactError, DataError) as error:
        raise ConfigError(str(error)) from error
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        users = runner.run(_prepare_store(app.state.engine, data))
        example = try_line(url_of(listener), app.state.engine.models.default.scorer, data)
        url = url_of(listener)
        pages = "console: /, docs: /docs" if settings.console else "docs: /docs"
        lines = f"{start_line(app.state.engine, users)}\nserving {url}  ({pages})\ntry: {example}"
        if settings.log_format == "json":
            lines = announce.as_json(app.state.engine, product_version(), url, users, example)
        announce.warn_if_open(settings, listener)
        del data
        runner.run(Server(app, settings, lambda: say(lines)).serve([listener]))


def start_line(engine: Engine, seeded_users: int) -> str:
    """What is served, in one line."""
    settings = engine.settings
    models = ", ".join(f"{each.name} {each.version} ({each.scorer.description})" for each in engine.models)
    seeded = f", {seeded_users} users seeded" if settings.seed else ""
    return (
        f"augur {product_version()}: model {models}, "
        f"store {redact(settings.store)} (window {settings.window}{seeded}), "
        f"{settings.compute_lanes} lanes of {settings.threads} threads, "
        f"at most {settings.max_items} candidates a request and {settings.queue_candidates} waiting, "
        f"{settings.max_connections} connections, {announce.access(settings)}"
    )


def try_line(url: str, scorer: Scorer, data: DataSet | None) -> str:
    """A request to paste: with a data set, of one of its users and what they were really shown."""
    asked: dict[str, object] = {"user_id": "42", "item_ids": [1, 2, 3]}
    if data is not None and len(data.impressions):
        shown = data.impressions.take(data.impressions.user_ids == data.impressions.user_ids[-1])
        items = list(dict.fromkeys(shown.item_ids.tolist()))
        asked = {"user_id": str(shown.user_ids[-1]), "item_ids": items[:TRIED_ITEMS]}
        context = {name: int(values[-1]) for name, values in shown.context.items() if name in scorer.context_fields}
        if context:
            asked["context"] = context
    body = shlex.quote(json.dumps(asked))
    return f"curl -s {url}/v1/score -H 'content-type: application/json' -d {body}"


async def _prepare_store(engine: Engine, data: DataSet | None) -> int:
    """Checks that the store answers and seeds it; how many users were stored.

    A store that does not answer is no reason not to start: scores are then degraded, until it does.
    """
    try:
        await engine.store.ping()
        return await engine.store.seed(sequences(data)) if data is not None else 0
    except StoreError as error:
        log.warning("the store %s does not answer yet: %s", redact(engine.settings.store), error)
        return 0


def url_of(listener: socket.socket) -> str:
    """The address of a listening socket, to paste."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def loop_factory() -> type[asyncio.AbstractEventLoop]:
    """That of uvloop where there is one: plain asyncio was seen to hold keep-alive requests for 40 ms."""
    try:
        from uvloop import Loop
    except ImportError:
        log.warning("uvloop is not installed: expect a longer tail of latencies")
        return asyncio.SelectorEventLoop
    return Loop
