"""`/docs` and `/openapi.json`. The page and its scripts come from this server, so that it works without a network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.staticfiles import StaticFiles

from service import wire
from service.batch import BatchRequest
from service.explain import ExplainRequest
from service.keys import PROBES, is_admin
from service.oip_shapes import InferRequest
from service.settings import Settings

router = APIRouter(include_in_schema=False)

# Bodies that routes read themselves, which the framework therefore does not see.
BODIES: tuple[type[BaseModel], ...] = (
    wire.ScoreRequest,
    wire.BehaviorsRequest,
    wire.LoadRequest,
    BatchRequest,
    ExplainRequest,
    InferRequest,
)

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Augur</title>
<link rel="icon" href="/docs/assets/favicon-32x32.png"><link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body><div id="page"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, tryItOutEnabled: true, displayRequestDuration: true,
  validatorUrl: null, presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
# Nothing from elsewhere, no script within the page; the viewer writes styles of its own and draws with data: images.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/docs")
async def page() -> Response:
    """The viewer."""
    return Response(PAGE, media_type="text/html", headers={"content-security-policy": POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """What starts the viewer; a file of its own, as the policy allows no script in the page."""
    return Response(START, media_type="text/javascript")


def add_docs(app: FastAPI, settings: Settings) -> None:
    """Adds the page, its files and the document that it shows."""
    app.mount("/docs/assets", StaticFiles(directory=_assets()))
    app.include_router(router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings)
        return app.openapi_schema

    # The framework's own way to replace the document (its guide, "Extending OpenAPI").
    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    if settings.api_keys.strip():
        document["components"]["securitySchemes"] = SCHEMES
        document["security"] = [{name: []} for name in SCHEMES]
        for path in PROBES & document["paths"].keys():
            for operation in document["paths"][path].values():
                operation["security"] = []
    _add_refusals_of_keys(document, settings)
    template = "#/components/schemas/{model}"
    _, bodies = models_json_schema([(shape, "validation") for shape in BODIES], ref_template=template)
    schemas = document["components"]["schemas"]
    schemas |= bodies["$defs"]
    _drop_the_frameworks_errors(document)
    schemas["BatchRequest"]["properties"]["requests"]["maxItems"] = settings.max_requests
    for shape, most in (("ScoreRequest", settings.max_items), ("ExplainRequest", settings.max_explained)):
        asked = schemas[shape]["properties"]
        asked["item_ids"]["maxItems"] = most
        for name in ("history", "history_actions"):
            choices = asked[name]["anyOf"]
            next(each for each in choices if each["type"] == "array")["maxItems"] = settings.max_history
    return document


def _add_refusals_of_keys(document: dict[str, Any], settings: Settings) -> None:
    """What the door answers in a route's stead: to requests without a key, and without the right one."""
    for path, operations in document["paths"].items():
        error = "InferError" if path.startswith("/v2") else "ErrorAnswer"
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
        for method, operation in operations.items():
            admin = is_admin(method.upper(), path)
            if admin or (settings.api_keys.strip() and path not in PROBES):
                operation["responses"]["401"] = {"description": "No key that is known", "content": content}
            if admin:
                operation["responses"]["403"] = {"description": "A key without the right to this", "content": content}


def _drop_the_frameworks_errors(document: dict[str, Any]) -> None:
    """It announces a form of its own for what a path could have wrong; no answer here has it."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _assets() -> Path:
    """Where the installed package keeps the viewer's files; found without importing it."""
    package = find_spec("fastapi_swagger")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("fastapi-swagger is not installed: it has the files of /docs")
    return Path(package.submodule_search_locations[0]) / "resources"
