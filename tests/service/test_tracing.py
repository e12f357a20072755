from __future__ import annotations

import asyncio
import builtins
import sys
from dataclasses import replace
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from service_parts import SETTINGS, VALID, FlakyStore, TwinScorer, memory

from service import tracing
from service.app import create_app
from service.settings import ConfigError
from service.tracing import Tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced(twin: TwinScorer, scenario: Any, **parts: Any) -> list[Any]:
    """The spans of a scenario, in the order they ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.app.open_provider", lambda version: provider)
        store = parts.get("store") or memory()
        app = create_app(replace(SETTINGS, traces=1), scorer=twin, store=store)  # type: ignore[arg-type]

    async def whole() -> None:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://augur") as client:
                await scenario(client)

    asyncio.run(whole())
    return list(exporter.get_finished_spans())


def test_a_request_is_a_span_with_its_parts_within_the_callers_trace(twin: TwinScorer) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        headers = {"traceparent": PARENT, "x-request-id": "r-1"}
        assert (await client.post("/v1/score", json=VALID, headers=headers)).status_code == 200

    spans = traced(twin, scenario, store=FlakyStore(memory()))  # one that is asked, as the embedded one is not
    request = spans[-1]
    assert [span.name for span in spans] == ["fetch", "queue", "compute", "POST /v1/score"]
    assert {f"{span.context.trace_id:032x}" for span in spans} == {PARENT.split("-")[1]}
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    assert request.kind.name == "SERVER"
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
        "augur.request_id": "r-1",
        "augur.model": "twin",
        "augur.model.version": "1",
        "augur.candidates": 1,
        "augur.history_length": 0,
        "augur.degraded": "",
    }
    for part in spans[:-1]:
        assert part.parent.span_id == request.context.span_id
        # The clocks are read apart.
        assert request.start_time - 5e6 <= part.start_time <= part.end_time <= request.end_time + 5e6
    assert spans[0].end_time <= spans[1].start_time + 1000
    assert spans[1].end_time <= spans[2].start_time + 1000


def test_degraded_failed_and_unknown_requests_say_so_and_probes_are_left_out(twin: TwinScorer) -> None:
    store = FlakyStore(memory())

    async def scenario(client: httpx.AsyncClient) -> None:
        store.down = True
        await client.post("/v1/score", json=VALID)
        twin.poison = {13: RuntimeError("bad")}
        await client.post("/v1/score", json=VALID | {"item_ids": [13]})
        await client.get("/nobody/secret")
        await client.get("/v1/users/secret/behaviors")
        await client.get("/readyz")

    spans = [span for span in traced(twin, scenario, store=store) if span.kind.name == "SERVER"]
    names = ["POST /v1/score", "POST /v1/score", "GET unmatched", "GET /v1/users/{user_id}/behaviors"]
    assert [span.name for span in spans] == names
    assert spans[0].attributes["augur.degraded"] == "store_unavailable"
    assert [span.status.status_code.name for span in spans] == ["UNSET", "ERROR", "UNSET", "ERROR"]
    assert "secret" not in str([dict(span.attributes) for span in spans])


def test_the_setting_turns_it_on(twin: TwinScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    provider = tracing.open_provider("1.2")
    assert provider.resource.attributes["service.name"] == "augur"
    assert provider.resource.attributes["service.version"] == "1.2"
    assert provider.resource.attributes["deployment.environment"] == "test"
    provider.shutdown()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ads")
    provider = tracing.open_provider("1.2")
    assert provider.resource.attributes["service.name"] == "ads"
    monkeypatch.setattr("service.app.open_provider", lambda version: provider)
    app = create_app(replace(SETTINGS, traces=1), scorer=twin, store=memory())  # type: ignore[arg-type]
    assert isinstance(app.middleware_stack, Tracing)
    provider.shutdown()


def test_without_the_packages_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"AUGUR_TRACES=1: needs opentelemetry-sdk .*\[traces\]"):
        tracing.open_provider("1")


def test_without_the_setting_nothing_of_it_is_there(twin: TwinScorer) -> None:
    app = create_app(SETTINGS, scorer=twin, store=memory())  # type: ignore[arg-type]
    assert "Tracing" not in str(app.user_middleware)
