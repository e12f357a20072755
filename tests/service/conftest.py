from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from console_parts import Console, Look, browser, chromium
from playwright.sync_api import Browser, BrowserContext
from process_parts import running
from redis_parts import RedisCluster, RedisServer, SentinelGroup, TlsServer, lacking
from service_parts import SETTINGS, Service, TwinScorer, memory

from model.artifact import load_artifact, of_model, save_artifact
from model.config import ModelConfig
from model.data import open_data
from model.features import fit_schema
from model.scorer import Scorer, load_scorer
from model.zoo.dien import Dien
from service.app import create_app
from service.settings import BUNDLED_MODEL, Settings

USERS, CATALOGUE = range(1, 31), range(100, 160)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the canonical format; user 30 has no history."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(7)
    item_ids = np.array(CATALOGUE)
    pq.write_table(pa.table({"item_id": item_ids, "category": item_ids % 5}), folder / "items.parquet")
    rows = 600
    impressions = {
        "user_id": random.choice(USERS[:-1], rows),
        "item_id": random.choice(item_ids, rows),
        "timestamp_ms": 1_650_000_000_000 + np.sort(random.integers(0, 10**9, rows)),
        "click": random.integers(0, 2, rows),
        "tab": random.integers(0, 4, rows),
        "action": np.where(random.random(rows) < 0.5, "click", "buy"),
    }
    pq.write_table(pa.table(impressions), folder / "impressions.parquet")
    # The same items again and again, all at one time, as logs without exact times have them.
    lists = [random.choice(item_ids[:5], 12).tolist() for _ in USERS[:-1]]
    past = {"user_id": list(USERS[:-1]), "item_ids": lists, "actions": [["click"] * 12] * len(lists)}
    pq.write_table(pa.table(past), folder / "histories.parquet")
    return folder


@pytest.fixture(scope="session")
def artifact_folder(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with random weights, large enough that scores differ visibly."""
    torch.manual_seed(11)
    schema = fit_schema(open_data(f"canonical:{data_folder}"), max_history=16)
    config = ModelConfig(hidden=8, embedding=6, head=(16, 8), initial_deviation=0.7)
    folder = tmp_path_factory.mktemp("artifact") / "tiny"
    save_artifact(of_model("tiny", Dien(schema, config), schema, {}, {"test": {"auc": 0.5}}), folder)
    return folder


@pytest.fixture(scope="session")
def scorer(artifact_folder: Path) -> Scorer:
    return load_scorer(artifact_folder)


@pytest.fixture
def twin() -> TwinScorer:
    return TwinScorer()


@pytest.fixture
def serving() -> Callable[..., Any]:
    """`async with serving(settings, scorer=..., store=...) as service`"""

    @asynccontextmanager
    async def start(settings: Settings | None = None, **parts: Any) -> AsyncIterator[Service]:
        app = create_app(settings or Settings(drain_seconds=1.0), **parts)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://augur") as client:
                yield Service(app, client)

    return start


def started(server: Any) -> Iterator[Any]:
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from started(RedisServer(tmp_path_factory.mktemp("redis")))


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """A server with nothing in it; shared, so not to be stopped."""
    shared_redis.ask("FLUSHALL")
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """For a test that stops it."""
    yield from started(RedisServer(tmp_path))


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    yield from started(RedisCluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture
def redis_cluster(shared_cluster: RedisCluster) -> RedisCluster:
    """Three primaries and three replicas, with nothing in them; to be left with all six running."""
    shared_cluster.settle()
    for server in shared_cluster.primaries():
        server.ask("FLUSHALL")
    return shared_cluster


@pytest.fixture(scope="session")
def shared_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    yield from started(SentinelGroup(tmp_path_factory.mktemp("sentinels")))


@pytest.fixture
def redis_sentinels(shared_sentinels: SentinelGroup) -> SentinelGroup:
    """A primary and a replica watched by sentinels, with nothing in them; to be left with all running."""
    shared_sentinels.settle()
    shared_sentinels.primary().ask("FLUSHALL")
    return shared_sentinels


@pytest.fixture(scope="session")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A server that speaks TLS and knows one user."""
    yield from started(TlsServer(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def with_service(serving: Any, scorer: Scorer) -> Callable[..., Any]:
    """Runs a scenario against a started application with the real scorer and an empty memory store."""

    def run(scenario: Any, settings: Settings = SETTINGS, **parts: Any) -> Any:
        async def whole() -> Any:
            async with serving(settings, **({"scorer": scorer, "store": memory()} | parts)) as service:
                return await scenario(service)

        return asyncio.run(whole())

    return run


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    binary = chromium() or ""
    if not binary:
        lacking("no chromium on PATH")
    with browser(binary) as found:
        yield found


@pytest.fixture(scope="module")
def console_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled model with its users, and beside it another one with as good a face and other weights."""
    bundled = load_artifact(BUNDLED_MODEL)
    model = bundled.model()
    assert isinstance(model, Dien)
    with torch.no_grad():
        for part, factor in ((model.attention, 30), (model.evolution, 3)):
            for parameter in part.parameters():
                parameter.mul_(factor)
    folder = tmp_path_factory.mktemp("models") / "sharp"
    save_artifact(of_model("sharp", model, bundled.schema, {}, {}), folder)
    models = f"kuairand={BUNDLED_MODEL},sharp={folder}"
    with running(models=models, seed="kuairand:data/kuairand_pure", threads="1") as process:
        assert process.url, process.end()
        yield process.url


@pytest.fixture
def look(opened: Browser) -> Iterator[Look]:
    """Opens a window; at the end none has had anything to complain of but what was expected."""
    windows: list[tuple[BrowserContext, Console, str]] = []

    def start(url: str, fragment: str = "", expected: str = "^$", **how: Any) -> Console:
        context = opened.new_context(**how)
        console = Console(context.new_page(), url)
        windows.append((context, console, expected))
        console.open(fragment)
        return console

    yield start
    for context, console, expected in windows:
        context.close()
        assert [said for said in console.complaints if not re.search(expected, said)] == []
