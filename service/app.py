"""The application: an engine, the routes in front of it, and the door that every request passes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.scorer import Scorer, load_scorer
from service import batch, browse, console, errors, explain, metrics, oip
from service.access import Witness
from service.batch import BatchRoute
from service.docs import add_docs
from service.engine import Engine, State
from service.keys import Keys
from service.models import Models, Routes, Served
from service.oip import InferRoute
from service.routes import router
from service.scoring import ScoreRoute
from service.settings import Settings
from service.stores import BehaviorStore, open_store
from service.stores.guarded import GuardedStore
from service.tracing import Tracing, open_provider
from service.visit import NO_STORE, VISIT, Header, Visit

log = logging.getLogger("augur.http")

# HSTS is not among these: it is for whoever ends TLS to set.
NO_SNIFF = (b"x-content-type-options", b"nosniff")
NO_REFERRER = (b"referrer-policy", b"no-referrer")
CLOSE = (b"connection", b"close")
# An answer with an etag says itself how long it may be kept.
INFER = "/v2/models/{name}/infer"
CONSOLE = "/"  # the page and its files, counted as one
OURS = frozenset(
    (b"x-request-id", b"x-content-type-options", b"referrer-policy", b"connection", b"cache-control", b"etag")
)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}\Z")


class Application(FastAPI):
    """FastAPI behind the door.

    It would look for providers of telemetry at every request, where traces and metrics are our own, and its outermost
    part would answer in its own form for what nobody expected, as the door does in ours.
    """

    engine: Engine

    def build_middleware_stack(self) -> ASGIApp:
        """The door, the framework within, and in front of both what traces."""
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        door = Door(stack.app, self.engine)
        return Tracing(door, provider=open_provider(product_version())) if self.engine.settings.traces else door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        assert self.middleware_stack is not None
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def create_app(settings: Settings, *, scorer: Scorer | None = None, store: BehaviorStore | None = None) -> FastAPI:
    """The server as an ASGI application; its parts can be handed in, else they are what the settings name.

    Raises:
        model.artifact.ArtifactError: the artifact cannot be used.
        ConfigError: a setting cannot be used, or not with this model.
    """
    engine = Engine(settings, _models(settings, scorer), GuardedStore(store or open_store(settings), settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Builds the framework's routes too. Either is else built on the event loop when first asked for: 20 and 70 ms.
        app.openapi()
        await engine.start()
        lag = asyncio.create_task(engine.batcher.tallies.watch_loop())
        try:
            yield
        finally:
            lag.cancel()
            await engine.close()

    app = Application(
        title="Augur",
        version=product_version(),
        description="Click probabilities of candidates from a user's most recent behaviours, by DIEN or its kin.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.engine = app.state.engine = engine
    app.state.metrics = metrics.registry(engine, product_version())
    app.state.explainer = explain.Explainer()
    routers = (router, batch.router, explain.router, browse.router, oip.router, metrics.router)
    for each in routers:
        app.include_router(each)
    app.state.routes = [route for each in routers for route in each.routes]
    add_docs(app, settings)
    for kind in (errors.AugurError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, errors.handle)
    app.middleware_stack = app.build_middleware_stack()
    return app


def _models(settings: Settings, scorer: Scorer | None) -> Models:
    """What the settings name, or one model of a scorer."""
    if scorer is not None:
        return Models([Served(scorer.name, scorer)], Routes.parse(settings.routes))
    served = []
    for name, path in settings.model_paths:
        loaded = load_scorer(path, precision=settings.precision, threads=settings.threads)
        served.append(Served(name or loaded.name, loaded, path))
    return Models(served, Routes.parse(settings.routes))


def product_version() -> str:
    """The version that is installed."""
    try:
        return version("augur")
    except PackageNotFoundError:
        return "0"


class Door:
    """What holds for every request: a key, an id in and out, no exception past it, leave-taking while draining."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine
        # Served without the framework.
        pages = console.assets() if engine.settings.console else {}
        self._keys = Keys(engine.settings, pages)
        self._witness = Witness(engine.settings, engine.batcher.tallies)
        self._direct: dict[tuple[str, str], tuple[ASGIApp, str]] = {
            ("POST", "/v1/score"): (ScoreRoute(engine), "/v1/score"),
            ("POST", "/v1/score:batch"): (BatchRoute(engine), "/v1/score:batch"),
        }
        for path, page in pages.items():
            self._direct["GET", path] = self._direct["HEAD", path] = page, CONSOLE
        self._infer = InferRoute(engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit(_request_id(scope))
        VISIT.set(visit)
        app, template = self._route(scope["method"], scope["path"])
        visit.headers = [(b"x-request-id", visit.request_id.encode()), NO_SNIFF]
        # Clients that keep connections open move on to another server instead of meeting a closed one.
        visit.last = self._engine.state is State.DRAINING

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                headers = list(visit.headers)
                if app is self._app:  # there are pages among the framework's answers
                    headers.append(NO_REFERRER)
                if visit.last:
                    headers.append(CLOSE)
                stated = message.get("headers", ())
                names = {name for name, _ in stated}
                if names.isdisjoint(OURS):
                    message["headers"] = [*stated, *headers, NO_STORE]
                else:
                    message["headers"] = _merged(stated, headers)
            await send(message)

        try:
            visit.key = self._keys.check(scope)
            await app(scope, receive, send_with_headers)
        except errors.AugurError as error:
            await errors.to_response(error, scope["path"])(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The end of the server's patience with a request that is not even whole.
            if visit.status or self._engine.state is not State.DRAINING:
                raise
            stopped = errors.DrainingError("the server stopped before it had the whole request")
            await errors.to_response(stopped, scope["path"])(scope, receive, send_with_headers)
        except Exception:
            log.exception("%s failed, request id %s", scope["method"], visit.request_id)
            if visit.status:
                raise
            failed = errors.InternalError("the server failed at this request; its log says why")
            await errors.to_response(failed, scope["path"])(scope, receive, send_with_headers)
        finally:
            self._witness.note(scope, visit, template)

    def _route(self, method: str, path: str) -> tuple[ASGIApp, str | None]:
        """What answers a request: past the framework, with the template of its path, or within it."""
        direct = self._direct.get((method, path))
        if direct is not None:
            return direct
        if method == "POST" and oip.model_of(path) is not None:
            return self._infer, INFER
        return self._app, None


def _merged(stated: Sequence[Header], ours: Sequence[Header]) -> list[Header]:
    """An answer's headers and ours, those of the answer first."""
    names = {name for name, _ in stated}
    merged = [*stated, *(each for each in ours if each[0] not in names)]
    return merged if b"cache-control" in names or b"etag" in names else [*merged, NO_STORE]


# Unlike random ones these cost nothing; no two processes begin with the same.
_request_ids = map("{}-{:x}".format, itertools.repeat(secrets.token_hex(6)), itertools.count(1))


def _request_id(scope: Scope) -> str:
    """The client's own id if it can be repeated safely, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.match(value):
            return str(value, "ascii")
    return next(_request_ids)
