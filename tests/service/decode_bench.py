"""What it costs to read a request for scores: pydantic against msgspec, and what the server does with either.

`.venv/bin/python tests/service/decode_bench.py`. Every reader's answer is checked before it is timed; rounds go in
turn, a figure is the median of the rounds, in time of the processor. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from service import decode, tensors, wire

CANDIDATES = (50, 200, 1000)
ROUNDS, SECONDS = 15, 0.02
Reader = Callable[[bytes], Any]


def request(candidates: int) -> bytes:
    """As a client writes it: ids of six digits, a context."""
    items = np.random.default_rng(candidates).integers(100_000, 1_000_000, candidates).tolist()
    return json.dumps({"user_id": "712", "item_ids": items, "context": {"tab": 1, "hour": 9}}).encode()


def infer_json(candidates: int) -> bytes:
    """The same for the Open Inference Protocol."""
    items = json.loads(request(candidates))["item_ids"]
    inputs = [
        {"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["712"]},
        {"name": "item_id", "shape": [candidates], "datatype": "INT64", "data": items},
    ]
    return json.dumps({"inputs": inputs, "parameters": {"tab": 1, "hour": 9}}).encode()


def infer_binary(candidates: int) -> tuple[bytes, int]:
    """With the candidates in binary, and how much of it is JSON."""
    document = json.loads(infer_json(candidates))
    items = np.array(document["inputs"][1].pop("data"), dtype="<i8").tobytes()
    document["inputs"][1]["parameters"] = {"binary_data_size": len(items)}
    header = json.dumps(document).encode()
    return header + items, len(header)


def pydantic_json(body: bytes) -> Any:
    """Pydantic's own reader of JSON; duplicate names and half characters pass."""
    return np.array(wire.ScoreRequest.model_validate_json(body).item_ids, dtype=np.int64)


def pydantic_strict(body: bytes) -> Any:
    """The standard library's JSON with every refusal, and pydantic: the way of what the quick reader leaves."""
    return decode.from_wire(decode.parse(body, wire.ScoreRequest)).item_ids


def msgspec_quick(body: bytes) -> Any:
    """Msgspec with every refusal: the way of what clients send."""
    return decode.score_ask(body).item_ids


def readers(candidates: int) -> dict[str, tuple[Reader, bytes]]:
    """By name, each with the body that it reads."""
    body, (binary, length) = request(candidates), infer_binary(candidates)
    return {
        "pydantic, model_validate_json": (pydantic_json, body),
        "pydantic, strict (service)": (pydantic_strict, body),
        "msgspec, quick (service)": (msgspec_quick, body),
        "infer, JSON (service)": (lambda each: tensors.read(each, None).integers("item_id"), infer_json(candidates)),
        "infer, binary (service)": (lambda each: tensors.read(each, length).integers("item_id"), binary),
    }


def microseconds(reader: Reader, body: bytes) -> float:
    """Of one call, over as many as take a while."""
    calls, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < SECONDS:
        for _ in range(50):
            reader(body)
        calls += 50
    return spent / calls * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks, times, prints."""
    parser = argparse.ArgumentParser(description="What it costs to read a request for scores.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the last line, the results, to a file")
    file, results = parser.parse_args(arguments).json, []
    for candidates in CANDIDATES:
        ways = readers(candidates)
        expected = json.loads(request(candidates))["item_ids"]
        for reader, body in ways.values():
            assert reader(body).tolist() == expected
        rounds = [{name: microseconds(*way) for name, way in ways.items()} for _ in range(ROUNDS)]
        for name, (_, body) in ways.items():
            cost = statistics.median(each[name] for each in rounds)
            results.append({"candidates": candidates, "reader": name, "bytes": len(body), "microseconds": cost})
            print(f"{candidates:5} candidates  {name:30} {len(body):6} bytes  {cost:8.1f} us")
    packages = {name: version(name) for name in ("pydantic", "msgspec", "numpy")}
    text = json.dumps({"python": platform.python_version(), "packages": packages, "results": results})
    print(text)
    if file:
        file.write_text(text + "\n")


if __name__ == "__main__":
    main()
