from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_parts import EVENT, SETTINGS, VALID, Service, error_of, memory, post

from model.scorer import Scorer

# Refusals. Each: a body, the status, the field, and what the message must say.

BAD_SCORES: list[tuple[Any, str | None, str]] = [
    ([], None, "object"),
    ("x", None, "the body"),
    ({}, "user_id", "required"),
    ({"user_id": "1"}, "item_ids", "required"),
    (VALID | {"user_id": 1}, "user_id", "in quotes"),
    (VALID | {"user_id": True}, "user_id", "string"),
    (VALID | {"user_id": ""}, "user_id", "at least 1"),
    (VALID | {"user_id": "u" * 129}, "user_id", "at most 128"),
    (VALID | {"user_id": None}, "user_id", "string"),
    (VALID | {"item_ids": []}, "item_ids", "at least 1"),
    (VALID | {"item_ids": [100] * 51}, "item_ids", "at most 50 (AUGUR_MAX_ITEMS)"),
    (VALID | {"item_ids": [100, "7"]}, "item_ids[1]", '="7": input should be a valid integer'),
    (VALID | {"item_ids": [100, 7.0]}, "item_ids[1]", "integer"),
    (VALID | {"item_ids": [True]}, "item_ids[0]", "integer"),
    (VALID | {"item_ids": [None]}, "item_ids[0]", "integer"),
    (VALID | {"item_ids": [2**63]}, "item_ids[0]", "less than or equal"),
    (VALID | {"item_ids": [-(2**63) - 1]}, "item_ids[0]", "greater than or equal"),
    (VALID | {"item_ids": [10**400]}, "item_ids[0]", "an integer of"),
    (VALID | {"item_ids": {"0": 1}}, "item_ids", "list"),
    (VALID | {"item_ids": 7}, "item_ids", "list"),
    (VALID | {"context": {"tab": "1"}}, "context.tab", "integer"),
    (VALID | {"context": {"tab": 2**63}}, "context.tab", "less than"),
    (VALID | {"context": {"hour": 1}}, "context", '"hour": no context field of the model; there are tab'),
    (VALID | {"context": [1]}, "context", "dictionary"),
    (VALID | {"context": {"a b": None}}, 'context["a b"]', "integer"),
    (VALID | {"context": {f"c{i}": 1 for i in range(65)}}, "context", "64"),
    (VALID | {"history": [100] * 41}, "history", "at most 40 (AUGUR_MAX_HISTORY)"),
    (VALID | {"history": [100], "history_actions": []}, "history_actions", "0 history_actions for a history of 1"),
    (VALID | {"history_actions": ["click"]}, "history_actions", "for no history"),
    (VALID | {"history": [1, 2], "history_actions": ["click", "jump"]}, "history_actions[1]", "there are buy, click"),
    (VALID | {"history": [1], "history_actions": [1]}, "history_actions[0]", "string"),
    (VALID | {"history": [1], "history_actions": [None]}, "history_actions[0]", "string"),
    (VALID | {"top_k": 0}, "top_k", "greater than or equal to 1"),
    (VALID | {"top_k": "1"}, "top_k", "integer"),
    (VALID | {"timeout_ms": 0}, "timeout_ms", "greater than or equal to 1"),
    (VALID | {"timeout_ms": 1.5}, "timeout_ms", "integer"),
    (VALID | {"topk": 1}, "topk", "no such field; there are user_id, item_ids"),
]
BAD_EVENTS: list[tuple[Any, str | None, str]] = [
    ({}, "events", "required"),
    ({"events": []}, "events", "at least 1"),
    ({"events": [EVENT] * 1001}, "events", "1000"),
    ({"events": {}}, "events", "list"),
    ({"events": [EVENT, EVENT | {"timestamp_ms": "now"}]}, "events[1].timestamp_ms", '="now"'),
    ({"events": [EVENT | {"timestamp_ms": -1}]}, "events[0].timestamp_ms", "greater"),
    ({"events": [EVENT | {"timestamp_ms": 2**53}]}, "events[0].timestamp_ms", "less"),
    ({"events": [EVENT | {"action": "jump"}]}, "events[0].action", "there are buy, click"),
    ({"events": [EVENT | {"action": ""}]}, "events[0].action", "at least 1"),
    ({"events": [EVENT | {"event_id": "e" * 65}]}, "events[0].event_id", "at most 64"),
    ({"events": [EVENT | {"user_id": 7}]}, "events[0].user_id", "in quotes"),
    ({"events": [EVENT | {"when": 1}]}, "events[0].when", "no such field"),
    ({"events": [1]}, "events[0]", "object"),
]


def _places(cases: list[tuple[Any, str | None, str]]) -> list[str]:
    return [f"{place}-{field}" for place, (_, field, _) in enumerate(cases)]


@pytest.mark.parametrize(("body", "field", "says"), BAD_SCORES, ids=_places(BAD_SCORES))
def test_a_bad_score_request_is_told_where_and_why(with_service: Any, body: Any, field: str | None, says: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await post(service, "/v1/score", body)
        error = error_of(answer)
        assert (answer.status_code, error["code"], error.get("field")) == (422, "invalid_input", field)
        assert says in error["message"]

    with_service(scenario)


@pytest.mark.parametrize(("body", "field", "says"), BAD_EVENTS, ids=_places(BAD_EVENTS))
def test_bad_events_are_told_where_and_why_and_none_is_stored(
    with_service: Any, body: Any, field: str | None, says: str
) -> None:
    async def scenario(service: Service) -> None:
        answer = await post(service, "/v1/behaviors", body)
        error = error_of(answer)
        assert (answer.status_code, error["code"], error.get("field")) == (422, "invalid_input", field)
        assert says in error["message"]
        assert (await service.client.get("/v1/users/1/behaviors")).json()["events"] == []

    with_service(scenario)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"{}x", 400, "not JSON"),
        (b'\xef\xbb\xbf{"user_id": "1"}', 400, "not JSON"),
        (b'{"user_id": "\xff"}', 400, "not UTF-8"),
        ('{"user_id": "1", "item_ids": [1]}'.encode("utf-16"), 400, "not UTF-8"),
        (b'{"user_id": "1", "item_ids": [NaN]}', 400, "NaN is no number"),
        (b'{"user_id": "1", "item_ids": [-Infinity]}', 400, "-Infinity is no number"),
        (b'{"user_id": "1", "item_ids": [1e999]}', 422, "integer"),
        (b'{"user_id": "1", "user_id": "2", "item_ids": [1]}', 400, '"user_id" stands twice'),
        (b'{"user_id": "1", "item_ids": [1], "context": {"tab": 1, "tab": 2}}', 400, '"tab" stands twice'),
        (b"[" * 15_000, 400, "nested too deep"),
        (b'{"user_id":' * 1500, 400, "nested too deep"),
        (b'{"user_id": "1", "item_ids": [' + b"9" * 6000 + b"]}", 400, "thousands of digits"),
        (b'{"user_id": "\\ud800", "item_ids": [1]}', 400, "surrogate"),
        (b'{"user_id": "1", "item_ids": [1], "\\uD800": 1}', 400, "surrogate"),
        (b'{"user_id": "1", "item_ids": [1], "context": {"\\uDbff": 1}}', 400, "surrogate"),
        (b'{"user_id": "1", "item_ids": [1], "history": [1], "history_actions": ["\\udfff"]}', 400, "surrogate"),
        (b'{"user_id": "\\ud83d\\ude00", "item_ids": [true]}', 422, "item_ids[0]"),
        (b" " * 100_001, 413, "at most 100000"),
    ],
)
def test_bytes_that_are_no_good_json_are_refused(with_service: Any, body: bytes, status: int, says: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.post("/v1/score", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        assert says in error_of(answer)["message"]

    with_service(scenario)


def test_a_body_is_measured_as_it_comes(with_service: Any) -> None:
    """The size that a client claims is not the size it sends."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield b" " * 1000

    async def scenario(service: Service) -> None:
        answer = await service.client.post("/v1/score", content=endless(), headers={"content-type": "application/json"})
        assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"
        assert sent < 120

    with_service(scenario)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "application/json", "content-encoding": "br"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip, gzip"}, 415),
        ({"content-type": 'Application/JSON; charset="UTF-8"'}, 200),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
    ],
)
def test_bodies_are_json_as_it_is(with_service: Any, headers: dict[str, str], status: int) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.post("/v1/score", content=json.dumps(VALID).encode(), headers=headers)
        assert answer.status_code == status
        if status != 200:
            assert error_of(answer)["code"] == "unsupported_media_type"

    with_service(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/docs/assets/nothing.js", 404, "not_found"),
        ("GET", "/docs/assets/../../settings.py", 404, "not_found"),
        ("GET", "/v1/models/", 404, "not_found"),
        ("GET", "/v1/score", 405, "method_not_allowed"),
        ("POST", "/readyz", 405, "method_not_allowed"),
        ("PUT", "/v1/users/1/behaviors", 405, "method_not_allowed"),
        ("GET", "/v1/users/1/behaviors?limit=0", 422, "invalid_input"),
        ("GET", "/v1/users/1/behaviors?limit=x", 422, "invalid_input"),
        ("GET", "/v1/users/1/behaviors?limit=" + "9" * 5000, 422, "invalid_input"),
        ("GET", "/v1/users/" + "u" * 129 + "/behaviors", 422, "invalid_input"),
        ("DELETE", "/v1/users//behaviors", 422, "invalid_input"),
        ("DELETE", "/v1/users/%FF/behaviors", 422, "invalid_input"),
    ],
)
def test_the_framework_refuses_in_the_same_form(
    with_service: Any, method: str, path: str, status: int, code: str
) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.request(method, path)
        error = error_of(answer)
        assert (answer.status_code, error["code"]) == (status, code)
        if status == 422:
            assert error["field"] in ("limit", "user_id")
        if status == 405:
            assert answer.headers["allow"]

    with_service(scenario)


NAMES = ["user_id", "item_ids", "context", "history", "history_actions", "top_k", "timeout_ms", "events", "tab"]
EVENT_NAMES = ["user_id", "item_id", "timestamp_ms", "action", "event_id"]
leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=()), max_size=6),
    st.sampled_from(["1", "buy", "click"]),
)
names = st.one_of(st.sampled_from(NAMES + EVENT_NAMES), st.text(st.characters(exclude_categories=()), max_size=3))
value: Any = st.recursive(
    leaf, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)), max_leaves=8
)


def test_whatever_is_sent_the_fault_is_not_the_servers(serving: Any, scorer: Scorer) -> None:
    with asyncio.Runner() as runner:
        context = serving(SETTINGS, scorer=scorer, store=memory())
        service = runner.run(context.__aenter__())

        @hypothesis.settings(max_examples=400, deadline=None)
        @given(path=st.sampled_from(["/v1/score", "/v1/behaviors"]), changes=st.dictionaries(names, value, max_size=3))
        def check(path: str, changes: dict[str, Any]) -> None:
            body = (VALID if path == "/v1/score" else {"events": [EVENT | changes]}) | changes
            answer = runner.run(
                service.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
            )
            assert answer.status_code in (200, 400, 422, 504), answer.text
            if answer.status_code != 200:
                error_of(answer)

        @hypothesis.settings(max_examples=200, deadline=None)
        # The client itself takes dots out of a path.
        @given(user=st.binary(min_size=1, max_size=12).filter(lambda user: user not in (b".", b"..")))
        def check_path(user: bytes) -> None:
            answer = runner.run(service.client.get(f"/v1/users/{quote(user, safe='')}/behaviors"))
            assert answer.status_code in (200, 422), answer.text

        try:
            check()
            check_path()
        finally:
            runner.run(context.__aexit__(None, None, None))
