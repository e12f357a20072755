from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service import tensors
from service.errors import AugurError, InvalidInputError, MalformedBodyError

INT64S = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.one_of(st.lists(INT64S, max_size=6), st.lists(TEXTS, min_size=1, max_size=4))
NAMES = ["user_id", "item_id", "tab", "ü", ""]


def packed(values: list[Any]) -> bytes:
    """As the extension for binary tensors writes it."""
    if values and isinstance(values[0], str):
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    return np.array(values, dtype="<i8").tobytes()


def written(parts: dict[str, tuple[list[Any], bool, int]], spaces: int = 0) -> tuple[bytes, int]:
    """A body of tensors, each in JSON or in binary, in a shape of one of three forms; and how much of it is JSON."""
    inputs, behind = [], b""
    for name, (values, binary, form) in parts.items():
        kind = "BYTES" if values and isinstance(values[0], str) else "INT64"
        shape = [[len(values)], [1, len(values)], [len(values), 1]][form]
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": kind}
        if binary:
            tensor["parameters"] = {"binary_data_size": len(packed(values))}
            behind += packed(values)
        else:
            tensor["data"] = [values, [values], [[value] for value in values]][form]
        inputs.append(tensor)
    header = json.dumps({"inputs": inputs}).encode() + b" " * spaces
    return header + behind, len(header)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.tuples(VALUES, st.booleans(), st.integers(0, 2)), max_size=4),
    st.integers(0, 8),
)
def test_what_was_written_is_read(parts: dict[str, tuple[list[Any], bool, int]], spaces: int) -> None:
    body, length = written(parts, spaces)
    found = tensors.read(body, length).values
    assert list(found) == list(parts)
    for name, (values, _, _) in parts.items():
        each = found[name]
        if isinstance(each, np.ndarray):
            assert each.dtype == np.int64
            assert each.flags.aligned
            each = each.tolist()
        assert each == values


def test_integers_are_read_in_place_where_they_are_aligned() -> None:
    views = []
    for spaces in range(8):
        body, length = written({"item_id": (list(range(100)), True, 0)}, spaces)
        found = tensors.read(body, length).integers("item_id")
        assert found is not None
        assert found.flags.aligned
        assert found.tolist() == list(range(100))
        views.append(not found.flags.owndata)
    assert views.count(True) == 1


@pytest.mark.no_cover
@settings(max_examples=1500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.tuples(VALUES, st.booleans(), st.integers(0, 2)), max_size=3),
    st.data(),
)
def test_damage_is_an_error_of_the_client(parts: dict[str, tuple[list[Any], bool, int]], data: st.DataObject) -> None:
    body, length = written(parts)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(body)))]) if data.draw(st.booleans()) else bytes(changed)
    stated = data.draw(st.one_of(st.just(length), st.none(), st.integers(0, len(body) + 3)))
    with suppress(MalformedBodyError, InvalidInputError):
        tensors.read(cut, stated)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60), st.one_of(st.none(), st.integers(0, 70)))
@example(b'{"inputs":[{"name":"a","shape":[1],"datatype":"INT64","data":[' + b"9" * 5000 + b"]}]}", None)
@example(b'{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":["\\udc00"]}]}', None)
@example(b'{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":["\xff"]}]}', None)
@example(b'{"inputs":' + b"[" * 100_000, None)
def test_garbage_is_an_error_of_the_client(body: bytes, stated: int | None) -> None:
    with pytest.raises((MalformedBodyError, InvalidInputError)):
        tensors.read(body, stated)


def one(**changes: Any) -> dict[str, Any]:
    return {"name": "item_id", "shape": [2], "datatype": "INT64", "data": [1, 2]} | changes


BAD: list[tuple[dict[str, Any], bytes, type[AugurError], str]] = [
    (one(shape=[3]), b"", InvalidInputError, "2 elements for shape [3]"),
    (one(shape=[]), b"", InvalidInputError, "[1, N] or [N, 1]"),
    (one(shape=[2, 2]), b"", InvalidInputError, "[1, N] or [N, 1]"),
    (one(shape=[1, 1, 2]), b"", InvalidInputError, "[1, N] or [N, 1]"),
    (one(shape=[-1]), b"", MalformedBodyError, "shape"),
    (one(shape=[2.0]), b"", MalformedBodyError, "shape"),
    (one(datatype="INT32"), b"", InvalidInputError, '"INT32"; INT64 and BYTES are read'),
    (one(datatype="FP32", parameters={"binary_data_size": 8}, data=[]), b"12345678", InvalidInputError, '"FP32"'),
    (one(data=[1, 2**63]), b"", InvalidInputError, "no int64"),
    (one(data=[1, 2.5]), b"", MalformedBodyError, "expected `int`, got `float`"),
    (one(data=[1, True]), b"", MalformedBodyError, "expected `int`"),
    (one(data=[[1, 2]]), b"", MalformedBodyError, "expected `int`, got `array`"),
    (one(data=["1", "2"]), b"", MalformedBodyError, "expected `int`, got `str`"),
    (one(data=[1, 2], datatype="BYTES"), b"", MalformedBodyError, "expected `str`"),
    ({"name": "item_id", "shape": [2], "datatype": "INT64"}, b"", InvalidInputError, "neither data nor"),
    (one(parameters={"binary_data_size": 16}), b"0" * 16, InvalidInputError, "both data and"),
    (one(parameters={"binary_data_size": 16}, data=None), b"0" * 15, MalformedBodyError, "15 bytes are left"),
    (one(parameters={"binary_data_size": -1}, data=None), b"0" * 15, MalformedBodyError, "binary_data_size is -1"),
    (one(parameters={"binary_data_size": True}, data=None), b"0", MalformedBodyError, "binary_data_size is true"),
    (one(parameters={"binary_data_size": "16"}, data=None), b"0" * 16, MalformedBodyError, 'binary_data_size is "16"'),
    (one(parameters={"binary_data_size": 15}, data=None), b"0" * 15, InvalidInputError, "which takes 16"),
    (one(parameters={"binary_data_size": 16}, data=None), b"0" * 17, MalformedBodyError, "1 bytes after the last"),
    (one(), b"x", MalformedBodyError, "1 bytes after the last"),
    (one(datatype="BYTES", parameters={"binary_data_size": 3}, data=[]), b"\0\0\0", MalformedBodyError, "cut off"),
    (
        one(datatype="BYTES", parameters={"binary_data_size": 5}, data=[]),
        b"\2\0\0\0a",
        MalformedBodyError,
        "of 2 bytes",
    ),
    (one(datatype="BYTES", parameters={"binary_data_size": 5}, data=[]), b"\1\0\0\0\xff", InvalidInputError, "UTF-8"),
    (one(datatype="BYTES", parameters={"binary_data_size": 5}, data=[]), b"\1\0\0\0a", InvalidInputError, "1 elements"),
]


@pytest.mark.parametrize(("tensor", "behind", "kind", "says"), BAD, ids=[str(place) for place in range(len(BAD))])
def test_a_tensor_that_is_not_what_it_says_is_refused(
    tensor: dict[str, Any], behind: bytes, kind: type[AugurError], says: str
) -> None:
    header = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(kind) as refused:
        tensors.read(header + behind, len(header))
    assert says in refused.value.message


def test_an_input_stands_once_and_has_its_datatype() -> None:
    body = json.dumps({"inputs": [one(), one()]}).encode()
    with pytest.raises(InvalidInputError, match="stands twice"):
        tensors.read(body, None)
    read = tensors.read(
        json.dumps({"inputs": [one(), one(name="user_id", datatype="BYTES", data=["a", "b"])]}).encode(), None
    )
    assert read.texts("other") is None
    assert read.texts("user_id") == ["a", "b"]
    with pytest.raises(InvalidInputError, match="INT64"):
        read.integers("user_id")
    with pytest.raises(InvalidInputError, match="BYTES"):
        read.texts("item_id")
