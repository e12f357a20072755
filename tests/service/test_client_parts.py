"""The client without a server: what it knows of the wire, held to the server's own document; its rules; its imports."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from typing import Any, SupportsIndex, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from process_parts import ROOT
from service_parts import TwinScorer, memory

from service import client as augur
from service.app import create_app
from service.client import answers, exchange, requests
from service.client.errors import by_status
from service.settings import Settings

# What a class here is called in the server's document.
NAMES: dict[type, str] = {
    answers.Scores: "ScoreAnswer",
    answers.RankedItem: "RankedItem",
    answers.Explanation: "ExplainAnswer",
    answers.ExplainedItem: "Explained",
    answers.UsedBehavior: "UsedBehavior",
    answers.Evolved: "Evolved",
    answers.Appended: "BehaviorsAnswer",
    answers.Behaviors: "UserBehaviorsAnswer",
    answers.StoredEvent: "StoredEvent",
    answers.Deleted: "DeletedAnswer",
    answers.Models: "ModelsAnswer",
    answers.Model: "ModelInfo",
    answers.Routes: "RoutesInfo",
    answers.Shadow: "ShadowInfo",
    answers.ErrorDetail: "EntryError",
    answers.Failed: "Failed",
    requests.Event: "Event",
}
SCALARS: dict[Any, str] = {
    int: "integer",
    SupportsIndex: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    types.NoneType: "null",
    Any: "any",
}
# Never null in an answer, and an empty tuple where the answer leaves them out.
LEFT_OUT = {(answers.Scores, "scores"), (answers.Scores, "ranking")}


def described(kind: Any) -> Any:
    """A type as a schema says it."""
    if kind in SCALARS:
        return SCALARS[kind]
    if kind in NAMES:
        return NAMES[kind]
    inner = [described(each) for each in get_args(kind) if each is not ...]
    if get_origin(kind) in (types.UnionType, Union):
        return frozenset(inner)
    return (inner[-1], "list" if get_origin(kind) is tuple else "by name")


def schema_of(schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return frozenset(schema_of(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return (schema_of(schema["items"]), "list")
    if schema.get("type") == "object":
        more = schema["additionalProperties"]
        return (schema_of({} if more is True else more), "by name")
    return schema.get("type", "any")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    twin: Any = TwinScorer()
    return create_app(Settings(), scorer=twin, store=memory()).openapi()


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_results_are_those_of_the_servers_document(document: dict[str, Any], kind: type) -> None:
    schema = document["components"]["schemas"][NAMES[kind]]
    hints = get_type_hints(kind)
    assert set(hints) == set(schema["properties"])
    for field in dataclasses.fields(kind):
        stated = schema_of(schema["properties"][field.name])
        if (kind, field.name) in LEFT_OUT:
            stated -= {"null"}
            (stated,) = stated
        assert described(hints[field.name]) == stated, field.name
        if field.default is dataclasses.MISSING:
            assert field.name in schema["required"]


def test_requests_are_those_of_the_servers_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    required = {"user_id", "item_ids"}
    told = set(schemas["ScoreRequest"]["properties"]) - {"timeout_ms"}
    assert {field.name for field in dataclasses.fields(augur.ScoreRequest)} == told
    assert set(get_type_hints(requests.ScoreOptions)) == told - required
    explained = set(schemas["ExplainRequest"]["properties"]) - {"timeout_ms"}
    # `evolution` is an argument of its own.
    assert set(get_type_hints(requests.ExplainOptions)) == explained - required - {"evolution"}
    calls: list[requests.Call[Any]] = [
        requests.score(augur.ScoreRequest("1", [1])),
        requests.score_batch([]),
        requests.explain(augur.ScoreRequest("1", [1])),
        requests.append([]),
        requests.behaviors("{user_id}", None),
        requests.forget("{user_id}"),
        requests.models(),
        requests.ready(),
    ]
    statuses: set[int] = set()
    for call in calls:
        route = document["paths"][call.path.replace("%7B", "{").replace("%7D", "}")][call.method.lower()]
        statuses |= {int(status) for status in route["responses"]}
    assert {by_status(status) for status in statuses - {200}} == {
        augur.InvalidInputError,
        augur.NotFoundError,
        augur.QueueFullError,
        augur.UnavailableError,
        augur.DeadlineExceededError,
    }


def test_the_client_brings_nothing_of_the_server() -> None:
    script = "import sys, service.client; print(*sorted(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert {each for each in loaded if each.startswith("service.")} == {
        "service.client",
        *(f"service.client.{path.stem}" for path in (ROOT / "service" / "client").glob("[!_]*.py")),
    }
    top = {each.partition(".")[0] for each in loaded} - sys.stdlib_module_names - {"coverage", "$coverage"}
    brought = {"anyio", "certifi", "h11", "httpcore", "idna", "msgspec", "service", "sniffio", "typing_extensions"}
    assert {each for each in top if not each.startswith("_")} <= brought


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "127.0.0.1:8000"}, "url='127.0.0.1:8000': http://"),
        ({"url": "http://h/?q=1"}, "url="),
        ({"url": "http://me:secret@h"}, "^url: no user and no password; a key goes into api_key$"),
        ({"url": "http://h/a b"}, "visible ASCII"),
        ({"url": "http://h:port"}, "Port"),
        ({"timeout": 0}, "timeout=0: seconds, more than 0"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"retries": -1}, "retries=-1: 0 or more"),
        ({"connections": 0}, "connections=0: 1 or more"),
        ({"api_key": "one\r\ntwo"}, "^api_key: printable ASCII characters$"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], says: str) -> None:
    for kind in (augur.AugurClient, augur.AsyncAugurClient):
        with pytest.raises(ValueError, match=says):
            kind(**options)


@given(tries=st.integers(1, 10_000), retry_after=st.none() | st.floats(0, 100), chance=st.floats(0, 1))
def test_a_pause_is_what_was_asked_for_and_a_bounded_bit(tries: int, retry_after: float | None, chance: float) -> None:
    asked = retry_after or 0.0
    pause = exchange.backoff(tries, retry_after, chance)
    assert asked <= pause <= asked + min(1.0, 0.05 * 2.0 ** min(tries - 1, 10)) + 1e-9
    assert exchange.backoff(tries, retry_after, 0.0) == asked
