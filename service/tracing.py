"""OpenTelemetry spans of requests, when AUGUR_TRACES asks for them: request, and in it fetch, queue and compute.

The parts are written down when a request is done, from the times it has anyway. Without AUGUR_TRACES nothing of this
is imported or called. Where spans go, and how many, is OpenTelemetry's own `OTEL_*` variables' business.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from service.keys import PROBES
from service.settings import ConfigError
from service.visit import VISIT

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from service.jobs import Job, Scored

NEEDS = "AUGUR_TRACES=1: needs opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http (pip install '.[traces]')"


def open_provider(version: str) -> TracerProvider:
    """Spans in batches to an OTLP collector.

    Raises:
        ConfigError: the packages are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(NEEDS) from None
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say otherwise where they are set.
    named = Resource({"service.version": version}).merge(Resource.create())
    if str(named.attributes["service.name"]).startswith("unknown_service"):
        named = named.merge(Resource({"service.name": "augur"}))
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """A span around each request but those of probes; in front of the door."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app, self._provider = app, provider
        self._tracer = provider.get_tracer("augur")
        self._parent = TraceContextTextMapPropagator().extract
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # No path: it can have the id of a user in it.
        span = self._tracer.start_span(scope["method"], self._parent(carrier), self._kind)
        # Set anew, as a request that does not reach the door would else show the one before it on this connection.
        VISIT.set(None)
        try:
            await self._app(scope, receive, send)
        finally:
            self._finish(span, scope)

    def _finish(self, span: Span, scope: Scope) -> None:
        visit = VISIT.get()
        span.set_attribute("http.request.method", scope["method"])
        route = scope.get("augur.route")
        if route is not None:
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        if visit is not None:
            span.set_attribute("http.response.status_code", visit.status)
            span.set_attribute("augur.request_id", visit.request_id)
            if visit.status >= 500:
                span.set_status(self._failed)
            for job, scored in visit.scored:
                self._describe(span, job, scored)
        span.end()

    def _describe(self, span: Span, job: Job, scored: Scored) -> None:
        from opentelemetry.trace import set_span_in_context

        span.set_attributes(
            {
                "augur.model": job.served.name,
                "augur.model.version": job.served.version,
                "augur.candidates": len(job.item_ids),
                "augur.history_length": scored.history_length,
                "augur.degraded": scored.degraded or "",
            }
        )
        within = set_span_in_context(span)
        zero = time.time() - time.perf_counter()
        fetched, taken = job.arrived + scored.store, job.arrived + scored.store + scored.queued
        stages = (
            ("fetch", job.arrived, fetched),
            ("queue", fetched, taken),
            ("compute", taken, taken + scored.computed),
        )
        for name, begin, end in stages:
            if end > begin:
                part = self._tracer.start_span(name, within, start_time=int((zero + begin) * 1e9))
                part.end(int((zero + end) * 1e9))
