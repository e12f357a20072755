"""The reader of safetensors against the library's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from model import safe_tensors

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "half": torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
    "odd": torch.tensor([True, False, True]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "double": torch.tensor([[0.1]], dtype=torch.float64),
}


def test_it_reads_what_the_library_writes() -> None:
    packed = safetensors.torch.save(TENSORS, {"made": "up"})
    for content in (packed, memoryview(bytearray(packed))):
        found, expected = safe_tensors.load(content), safetensors.torch.load(packed)
        assert set(found) == set(expected)
        for name, tensor in expected.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found[name], tensor)
    assert safe_tensors.load(safetensors.torch.save({})) == {}


def test_tensors_have_memory_of_their_own() -> None:
    packed = bytearray(safetensors.torch.save({"a": torch.ones(3)}))
    found = safe_tensors.load(memoryview(packed))["a"]
    packed[-4:] = b"\0\0\0\0"
    assert found.tolist() == [1, 1, 1]


def written(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: Any = (1,), offsets: Any = (0, 4), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BAD = {
    "nothing": b"",
    "short": b"\0" * 7,
    "header beyond the end": (100).to_bytes(8, "little") + b"{}",
    "huge header": b"\xff" * 64,
    "not JSON": written(b"{"),
    "not UTF-8": written(b'{"\xff": 1}'),
    "a name twice": written(b'{"a": 1, "a": 2}'),
    "no object": written([]),
    "entry no object": written({"a": 1}),
    "entry with more": written({"a": entry() | {"more": 1}}, b"1234"),
    "unknown dtype": written({"a": entry(dtype="F31")}, b"1234"),
    "dtype no text": written({"a": entry(dtype=[])}, b"1234"),
    "shape no list": written({"a": entry(shape=1)}, b"1234"),
    "shape negative": written({"a": entry(shape=[-1, -1])}, b"1234"),
    "shape not whole": written({"a": entry(shape=[1.0])}, b"1234"),
    "shape of a truth": written({"a": entry(shape=[True])}, b"1234"),
    "too large": written({"a": entry(shape=[2**62, 2**62])}, b"1234"),
    "nothing, hugely": written({"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}),
    "three offsets": written({"a": entry(offsets=[0, 4, 4])}, b"1234"),
    "wrong size": written({"a": entry(offsets=[0, 3])}, b"123"),
    "backwards": written({"a": entry(offsets=[4, 0])}, b"1234"),
    "overlap": written({"a": entry(), "b": entry()}, b"1234"),
    "gap": written({"a": entry(offsets=[1, 5])}, b"12345"),
    "bytes left": written({"a": entry()}, b"12345"),
    "bytes missing": written({"a": entry()}, b"123"),
}


@pytest.mark.parametrize("kind", BAD)
def test_it_refuses_what_the_library_refuses(kind: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        safe_tensors.load(BAD[kind])
    if kind not in ("entry with more", "a name twice", "nothing, hugely"):  # where it is stricter
        with pytest.raises((safetensors.SafetensorError, ValueError)):
            safetensors.torch.load(BAD[kind])


def test_damage_anywhere_in_the_header_is_refused_or_read_as_the_library_does() -> None:
    packed = bytearray(safetensors.torch.save({"a": torch.arange(4.0), "b": torch.arange(3)}))
    for place in range(len(packed) - 40):
        for bit in (0, 3, 6):
            damaged = bytearray(packed)
            damaged[place] ^= 1 << bit
            try:
                found = safe_tensors.load(bytes(damaged))
            except ValueError:
                continue
            expected = safetensors.torch.load(bytes(damaged))
            assert found.keys() == expected.keys()
            assert all(found[name].equal(expected[name]) for name in found)
