from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_parts import ITEMS, SETTINGS, FlakyStore, Service, event, memory, post, score
from test_tensors import packed

from model.scorer import Scorer
from service import oip
from service.engine import State

PATH = "/v2/models/tiny/infer"
USER = {"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["1"]}
ITEM = {"name": "item_id", "shape": [len(ITEMS)], "datatype": "INT64", "data": ITEMS}


def tensor(name: str, *values: Any, **changes: Any) -> dict[str, Any]:
    kind = "BYTES" if values and isinstance(values[0], str) else "INT64"
    return {"name": name, "shape": [len(values)], "datatype": kind, "data": list(values)} | changes


async def infer(service: Service, *inputs: dict[str, Any], path: str = PATH, **more: Any) -> dict[str, Any]:
    answer = await post(service, path, {"inputs": [USER, ITEM, *inputs]} | more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["server-timing"].startswith("queue;dur=")
    found: dict[str, Any] = answer.json()
    return found


def error_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error: str = answer.json()["error"]
    assert error
    return error


def test_scores_are_those_of_the_first_api(with_service: Any, scorer: Scorer) -> None:
    async def scenario(service: Service) -> None:
        await post(service, "/v1/behaviors", {"events": [event(101, 1), event(102, 2, action="buy")]})
        found = await infer(service, tensor("tab", 2), id="a-1")
        (output,) = found.pop("outputs")
        assert output.pop("data") == pytest.approx((await score(service, context={"tab": 2}))["scores"], abs=1e-6)
        assert output == {"name": "score", "datatype": "FP32", "shape": [len(ITEMS)]}
        assert found == {
            "model_name": "tiny",
            "model_version": scorer.version,
            "id": "a-1",
            "parameters": {"history_length": 2, "unknown_items": 0},
        }
        own = await infer(
            service,
            tensor("history_item_id", 103, 104),
            tensor("history_action", "buy", "click"),
            parameters={"tab": 2},
        )
        alone = await score(service, context={"tab": 2}, history=[103, 104], history_actions=["buy", "click"])
        assert own["outputs"][0]["data"] == pytest.approx(alone["scores"], abs=1e-6)
        assert "id" not in own
        of_version = await infer(service, path=f"/v2/models/tiny/versions/{scorer.version}/infer", outputs=[])
        assert of_version["outputs"][0]["data"] == pytest.approx((await score(service))["scores"], abs=1e-6)

    with_service(scenario)


@pytest.mark.parametrize(
    ("more", "binary"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "score", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "score"}], "parameters": {"binary_data_output": True}}, True),
        (
            {"outputs": [{"name": "score", "parameters": {"binary_data": False}}]}
            | {"parameters": {"binary_data_output": True}},
            False,
        ),
    ],
)
def test_outputs_come_as_they_are_asked_for(with_service: Any, more: dict[str, Any], binary: bool) -> None:
    async def scenario(service: Service) -> None:
        expected = (await score(service))["scores"]
        answer = await post(service, PATH, {"inputs": [USER, ITEM], **more})
        if binary:
            assert answer.headers["content-type"] == "application/octet-stream"
            length = int(answer.headers["inference-header-content-length"])
            (output,) = json.loads(answer.content[:length])["outputs"]
            assert output["parameters"] == {"binary_data_size": 4 * len(ITEMS)}
            scores = np.frombuffer(answer.content[length:], dtype="<f4").tolist()
        else:
            assert "inference-header-content-length" not in answer.headers
            scores = answer.json()["outputs"][0]["data"]
        assert scores == pytest.approx(expected, abs=1e-6)

    with_service(scenario)


def test_tensors_in_binary_need_no_type_and_can_be_mixed_with_json(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        items = {
            "name": "item_id",
            "shape": [1, len(ITEMS)],
            "datatype": "INT64",
            "parameters": {"binary_data_size": 8 * len(ITEMS)},
        }
        header = json.dumps({"inputs": [items, USER]}).encode()
        for headers in ({}, {"content-type": "application/octet-stream"}, {"content-type": "application/json"}):
            stated = headers | {"Inference-Header-Content-Length": str(len(header))}
            answer = await service.client.post(PATH, content=header + packed(ITEMS), headers=stated)
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["data"] == pytest.approx((await score(service))["scores"], abs=1e-6)

    with_service(scenario)


def test_a_store_that_is_away_and_a_deadline_are_said(with_service: Any) -> None:
    store = FlakyStore(memory())

    async def scenario(service: Service) -> None:
        store.down = True
        assert (await infer(service))["parameters"]["degraded"] == "store_unavailable"
        store.free.clear()
        late = await post(service, PATH, {"inputs": [USER, ITEM], "parameters": {"timeout": 1}})
        assert late.status_code == 504
        assert error_of(late) == "no scores within 1 ms"
        store.free.set()

    with_service(scenario, store=store)


def test_server_and_models_say_what_they_are(with_service: Any, scorer: Scorer) -> None:
    of_version = f"/v2/models/tiny/versions/{scorer.version}"

    async def scenario(service: Service) -> None:
        get = service.client.get
        assert (await get("/v2")).json()["extensions"] == ["binary_tensor_data"]
        assert (await get("/v2/health/live")).json() == {"live": True}
        assert (await get("/v2/health/ready")).json() == {"ready": True}
        model = (await get("/v2/models/tiny")).json()
        assert (await get(of_version)).json() == model
        assert (model["name"], model["versions"]) == ("tiny", [scorer.version])
        assert {each["name"]: (each["datatype"], each["shape"]) for each in model["inputs"]} == {
            "user_id": ("BYTES", [1]),
            "item_id": ("INT64", [-1]),
            "history_item_id": ("INT64", [-1]),
            "history_action": ("BYTES", [-1]),
            "tab": ("INT64", [1]),
        }
        assert model["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1]}]
        for path in ("/v2/models/tiny/ready", f"{of_version}/ready"):
            assert (await get(path)).json() == {"name": "tiny", "ready": True}
        service.app.state.engine.state = State.STARTING
        for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
            answer = await get(path)
            assert answer.status_code == 503
            assert error_of(answer) == "the server is starting"
        assert (await get("/v2/health/live")).status_code == 200

    with_service(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v2/models/other", 404, "there are tiny"),
        ("GET", "/v2/models/tiny/versions/other", 404, "there is"),
        ("GET", "/v2/models/other/ready", 404, "there are tiny"),
        ("GET", "/v2/models/tiny/versions/1/ready", 404, "there is"),
        ("POST", "/v2/models/other/infer", 404, "there are tiny"),
        ("POST", "/v2/models/tiny/versions/other/infer", 404, "there is"),
        ("POST", "/v2/models/tiny/other/1/infer", 404, "no such route"),
        ("POST", "/v2/models/a/b/infer", 404, "no such route"),
        ("GET", "/v2/models/tiny/infer", 405, "not with this method"),
        ("GET", "/v2/nothing", 404, "no such route"),
        ("GET", "/v2/", 404, "no such route"),
    ],
)
def test_what_there_is_not_is_told_in_the_protocols_form(
    with_service: Any, method: str, path: str, status: int, says: str
) -> None:
    async def scenario(service: Service) -> None:
        headers = {"content-type": "application/json"}
        answer = await service.client.request(
            method, path, content=b"{}" if method == "POST" else None, headers=headers
        )
        assert answer.status_code == status
        assert says in error_of(answer)

    with_service(scenario)


def infer_of(*inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [*inputs], **more}


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "missing required field `inputs`"),
    (infer_of(), "item_id: required"),
    (infer_of(USER), "item_id: required"),
    (infer_of(ITEM), "user_id: required"),
    (infer_of(USER, tensor("item_id")), "one element at least"),
    (infer_of(tensor("user_id", "a", "b"), ITEM), "one element of 1 to 128"),
    (infer_of(tensor("user_id", ""), ITEM), "one element of 1 to 128"),
    (infer_of(tensor("user_id", "u" * 129), ITEM), "one element of 1 to 128"),
    (infer_of(tensor("user_id", 1), ITEM), "its datatype is BYTES"),
    (infer_of(USER, tensor("item_id", *range(51))), "at most 50 (AUGUR_MAX_ITEMS)"),
    (infer_of(USER, ITEM, tensor("history_item_id", *range(41))), "at most 40 (AUGUR_MAX_HISTORY)"),
    (infer_of(USER, ITEM, tensor("history_action", "buy")), "for no history"),
    (infer_of(USER, ITEM, tensor("history_item_id", 1), tensor("history_action", "jump")), "no action of the model"),
    (infer_of(USER, ITEM, tensor("hour", 1)), '"hour": not known; there are user_id, item_id'),
    (infer_of(USER, ITEM, tensor("tab", 1, 2)), "one element, and no parameter"),
    (infer_of(USER, ITEM, tensor("tab", 1), parameters={"tab": 1}), "one element, and no parameter"),
    (infer_of(USER, ITEM, parameters={"tab": "1"}), 'parameter "tab"="1": a whole number'),
    (infer_of(USER, ITEM, parameters={"tab": 2**63}), "a whole number"),
    (infer_of(USER, ITEM, parameters={"priority": 1}), "not known here; there are binary_data_output, timeout, tab"),
    (infer_of(USER, ITEM, parameters={"timeout": 0}), "a whole number"),
    (infer_of(USER, ITEM, parameters={"binary_data_output": 1}), "true or false"),
    (infer_of(USER, ITEM, outputs=[{"name": "other"}]), '"other": there is one, score'),
    (infer_of(USER, ITEM, outputs=[{"name": "score"}] * 2), "there is one, score"),
    (infer_of(USER, ITEM, outputs=[{"name": "score", "parameters": {"classification": 3}}]), "there are binary_data"),
    (infer_of(USER, ITEM, outputs=[{"name": "score", "parameters": {"binary_data": "yes"}}]), "true or false"),
    (infer_of(USER, ITEM, id="i" * 1025), "length <= 1024"),
]


@pytest.mark.parametrize(("body", "says"), BAD, ids=[str(place) for place in range(len(BAD))])
def test_a_bad_request_is_told_why(with_service: Any, body: dict[str, Any], says: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await post(service, PATH, body)
        assert answer.status_code == 400, answer.text
        assert says in error_of(answer)

    with_service(scenario)


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"content-type": "text/plain"}, 415, "send application/json or application/octet-stream"),
        ({"inference-header-content-length": "x"}, 400, "a number"),
        ({"inference-header-content-length": "-1"}, 400, "a number"),
        ({"inference-header-content-length": "9" * 5000}, 400, "and the body"),
        ({"content-encoding": "br"}, 415, "gzip or deflate"),
        ({"content-length": "1000000"}, 413, "at most 100000"),
    ],
)
def test_bad_headers_are_told_too(with_service: Any, headers: dict[str, str], status: int, says: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.post(PATH, content=json.dumps(infer_of(USER, ITEM)), headers=headers)
        assert answer.status_code == status, answer.text
        assert says in error_of(answer)

    with_service(scenario)


def test_paths_are_taken_apart() -> None:
    assert oip.model_of("/v2/models/a b/infer") == ("a b", None)
    assert oip.model_of("/v2/models/a/versions/1/infer") == ("a", "1")
    for path in ("/v2/models/infer", "/v2/models/a/versions/infer/1", "/v1/models/a/infer", "/v2/models/a/x/1/infer"):
        assert oip.model_of(path) is None


@pytest.fixture
def runner_service(serving: Any, scorer: Scorer) -> Iterator[Any]:
    """One started application for many requests."""
    with asyncio.Runner() as runner:
        context = serving(SETTINGS, scorer=scorer, store=memory())
        yield runner.run, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


def test_whatever_is_sent_the_fault_is_not_the_servers(runner_service: Any) -> None:
    run, service = runner_service
    names = st.sampled_from(["user_id", "item_id", "history_item_id", "history_action", "tab", "x"])
    words = st.sampled_from(["1", "buy"])
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), words)
    sizes = st.sampled_from(["binary_data_size", "x"])
    tensors = st.fixed_dictionaries(
        {
            "name": names,
            "shape": st.lists(st.integers(-1, 3), max_size=3),
            "datatype": st.sampled_from(["INT64", "BYTES", "FP32"]),
        },
        optional={
            "data": st.lists(st.one_of(leaf, st.lists(leaf, max_size=2)), max_size=3),
            "parameters": st.dictionaries(sizes, st.one_of(leaf, st.integers(0, 24)), max_size=2),
        },
    )
    parameters = st.dictionaries(st.sampled_from(["tab", "timeout", "binary_data_output"]), leaf, max_size=2)

    @hypothesis.settings(max_examples=400, deadline=None)
    @given(st.lists(tensors, max_size=3), parameters, st.binary(max_size=24), st.booleans())
    def check(more: list[Any], parameters: Any, behind: bytes, whole: bool) -> None:
        header = json.dumps({"inputs": [USER, ITEM, *more] if whole else more, "parameters": parameters}).encode()
        headers = {"inference-header-content-length": str(len(header))}
        answer = run(service.client.post(PATH, content=header + behind, headers=headers))
        assert answer.status_code in (200, 400, 504), answer.text
        if answer.status_code != 200:
            error_of(answer)

    check()
