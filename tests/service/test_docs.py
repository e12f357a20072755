from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from service_parts import Service, memory

from service import docs
from service.app import create_app
from service.settings import Settings

MODEL_PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")


@pytest.fixture
def document(scorer: Any) -> dict[str, Any]:
    app = create_app(
        Settings(max_items=77, max_history=33, max_requests=5, max_explained=6), scorer=scorer, store=memory()
    )
    found = app.openapi()
    assert app.openapi() is found
    return found


def test_the_page_needs_nothing_from_elsewhere(serving: Callable[..., Any], scorer: Any) -> None:
    async def scenario() -> None:
        async with serving(scorer=scorer, store=memory()) as service:
            await check(service)

    async def check(service: Service) -> None:
        page = await service.client.get("/docs")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe-inline" not in page.headers["content-security-policy"].split("style-src")[0]
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(addresses) == 4
        for address in [*addresses, "/openapi.json"]:
            answer = await service.client.get(address)
            assert answer.status_code == 200, address
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert "<script>" not in page.text
        assert "://" not in page.text

    asyncio.run(scenario())


def test_the_document_lists_every_route_with_its_errors(document: dict[str, Any]) -> None:
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {
        ("post", "/v1/score"),
        ("post", "/v1/score:batch"),
        ("post", "/v1/explain"),
        ("post", "/v1/behaviors"),
        ("get", "/v1/users/{user_id}/behaviors"),
        ("delete", "/v1/users/{user_id}/behaviors"),
        ("get", "/v1/models"),
        ("get", "/v1/catalogue"),
        ("get", "/v1/users"),
        ("post", "/v1/models/{name}/load"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/startupz"),
        ("get", "/metrics"),
        ("get", "/v2"),
        ("get", "/v2/health/live"),
        ("get", "/v2/health/ready"),
        *(("get", path) for path in MODEL_PATHS),
        *(("get", f"{path}/ready") for path in MODEL_PATHS),
        *(("post", f"{path}/infer") for path in MODEL_PATHS),
    }
    assert set(operations["post", "/v1/score"]["responses"]) == {
        *("200", "400", "404", "413", "415", "422", "429", "503", "504"),
    }
    for (_, path), operation in operations.items():
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            if "text/plain" in answer["content"]:  # metrics
                continue
            schema = answer["content"]["application/json"]["schema"]["$ref"]
            error = "InferError" if path.startswith("/v2") else "ErrorAnswer"
            assert schema.endswith(error) is (status != "200"), (path, status)


def test_references_resolve_and_bodies_have_examples_and_limits(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    used = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert used <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    assert schemas["ScoreRequest"]["examples"]
    assert schemas["BehaviorsRequest"]["examples"]
    assert schemas["LoadRequest"]["properties"]["path"]["anyOf"][0]["maxLength"] == 4096
    body = document["paths"]["/v1/models/{name}/load"]["post"]["requestBody"]
    assert body == {
        "required": False,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/LoadRequest"}}},
    }
    properties = schemas["ScoreRequest"]["properties"]
    assert properties["item_ids"]["maxItems"] == 77
    assert properties["history"]["anyOf"][0]["maxItems"] == 33
    assert schemas["BatchRequest"]["properties"]["requests"]["maxItems"] == 5
    assert schemas["ExplainRequest"]["properties"]["item_ids"]["maxItems"] == 6
    assert schemas["ExplainRequest"]["properties"]["history"]["anyOf"][0]["maxItems"] == 33
    assert schemas["Event"]["properties"]["user_id"]["maxLength"] == 128


def test_without_the_viewers_files_it_is_said_which_package_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="fastapi-swagger is not installed"):
        docs._assets()
