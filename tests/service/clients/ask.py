"""Asks a server by the unmodified public clients and prints what they understood, as one JSON object.

`python ask.py URL MODEL VERSION`, with the interpreter of a place where `requirements.txt` is installed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ITEMS = np.array([100, 101, 7, 103], dtype=np.int64)
HISTORY = np.array([102, 104, 100], dtype=np.int64)
ACTIONS = np.array([b"click", b"buy", b"click"], dtype=np.object_)
USER = np.array([b"3"], dtype=np.object_)
TAB = np.array([2], dtype=np.int64)
EMPTY = np.array([], dtype=np.int64)
Pick = Callable[[str], bool]  # which inputs go in binary


def tensors(own: bool, items: Any = ITEMS) -> dict[str, Any]:
    """The inputs, by name."""
    found = {"user_id": USER, "item_id": items, "tab": TAB}
    return found | ({"history_item_id": HISTORY, "history_action": ACTIONS} if own else {})


def kind(values: Any) -> str:
    return "BYTES" if values.dtype == np.object_ else "INT64"


def triton_inputs(module: Any, values: dict[str, Any], binary: Pick) -> list[Any]:
    inputs = []
    for name, each in values.items():
        one = module.InferInput(name, list(each.shape), kind(each))
        one.set_data_from_numpy(each, binary_data=binary(name))
        inputs.append(one)
    return inputs


def ask_triton(url: str, model: str, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with triton.InferenceServerClient(urlsplit(url).netloc) as client:
        found["live"], found["ready"] = client.is_server_live(), client.is_server_ready()
        found["model ready"] = [client.is_model_ready(model), client.is_model_ready(model, version)]
        found["other ready"] = [client.is_model_ready("other"), client.is_model_ready(model, "other")]
        found["server"] = client.get_server_metadata()
        found["model"] = client.get_model_metadata(model, version)

        def scores(values: dict[str, Any], binary: Pick, **more: Any) -> list[float]:
            answer = client.infer(model, triton_inputs(triton, values, binary), **more)
            assert answer.get_output("score")["datatype"] == "FP32"
            return answer.as_numpy("score").tolist()  # type: ignore[no-any-return]

        json_output = [triton.InferRequestedOutput("score", binary_data=False)]
        binary_output = [triton.InferRequestedOutput("score", binary_data=True)]
        for own in (False, True):
            values = tensors(own)
            found[f"own={own}"] = [
                scores(values, lambda _: True),
                scores(values, lambda _: False),
                scores(values, lambda _: False, outputs=json_output),
                scores(values, lambda _: True, outputs=json_output, model_version=version, request_id="a"),
                scores(values, lambda name: name != "item_id", outputs=binary_output, timeout=5_000_000),
                scores(values, lambda _: True, request_compression_algorithm="gzip"),
                scores(values, lambda _: True, request_compression_algorithm="deflate"),
                scores(values, lambda _: True, response_compression_algorithm="gzip"),
                scores(tensors(own, ITEMS.reshape(1, -1)), lambda _: True),
                scores(tensors(own, ITEMS.reshape(-1, 1)), lambda _: False),
            ]
        nothing = tensors(False) | {"history_item_id": EMPTY}
        found["empty"] = [scores(nothing, lambda _: False), scores(nothing, lambda _: True)]
        found["id"] = client.infer(
            model, triton_inputs(triton, tensors(False), lambda _: True), request_id="x-1"
        ).get_response()["id"]
        found["error"] = []
        for values in ({"user_id": USER}, tensors(False) | {"nothing": TAB}):
            try:
                client.infer(model, triton_inputs(triton, values, lambda _: True))
            except triton.InferenceServerException as error:
                found["error"].append([error.status(), error.message()])
    return found


async def ask_triton_aio(url: str, model: str) -> list[Any]:
    async with triton_aio.InferenceServerClient(urlsplit(url).netloc) as client:
        answers = [
            await client.infer(model, triton_inputs(triton_aio, tensors(True), pick))
            for pick in (lambda _: True, lambda _: False)
        ]
        return [answer.as_numpy("score").tolist() for answer in answers]


async def ask_kserve(url: str, model: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["live"], found["ready"] = await client.is_server_live(url), await client.is_server_ready(url)
        found["model ready"] = await client.is_model_ready(url, model)
        found["other ready"] = await client.is_model_ready(url, "other")

        async def scores(values: dict[str, Any], binary: Pick, **more: Any) -> list[float]:
            inputs = []
            for name, each in values.items():
                one = InferInput(name, list(each.shape), kind(each))
                one.set_data_from_numpy(each, binary_data=binary(name))
                inputs.append(one)
            answer = await client.infer(url, InferRequest(model, inputs, **more), model_name=model)
            assert answer.model_name == model
            return answer.outputs[0].as_numpy().tolist()  # type: ignore[no-any-return]

        for own in (False, True):
            values = tensors(own)
            found[f"own={own}"] = [
                await scores(values, lambda _: True),
                await scores(values, lambda _: False),
                await scores(values, lambda name: name == "user_id"),
                await scores(values, lambda _: False, parameters={"binary_data_output": True}),
                await scores(values, lambda _: True, request_outputs=[RequestedOutput("score", {"binary_data": True})]),
            ]
        found["empty"] = [await scores(tensors(False) | {"history_item_id": EMPTY}, lambda _: True)]
        try:
            await scores({"user_id": USER}, lambda _: False)
        except httpx.HTTPStatusError as error:
            found["error"] = [error.response.status_code, str(error)]
    return found


def main() -> None:
    url, model, version = sys.argv[1:]
    found = {
        "versions": {name: importlib.metadata.version(name) for name in ("tritonclient", "kserve")},
        "triton": ask_triton(url, model, version),
        "triton_aio": asyncio.run(ask_triton_aio(url, model)),
        "kserve": asyncio.run(ask_kserve(url, model)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
