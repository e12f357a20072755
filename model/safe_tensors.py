"""Reading safetensors from memory, tensor by tensor, so that a server can do so beside its requests.

The library's reader copies everything in one go and lets no other thread run meanwhile: 24 ms for 80 MB. Every copy
here leaves the interpreter to others. It is as strict as the library's (https://github.com/huggingface/safetensors,
"Format").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import strict_json

LARGEST_HEADER = 100_000_000
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def load(packed: bytes | memoryview) -> dict[str, Tensor]:
    """All tensors by name, in memory of their own. Raises ValueError unless every byte is accounted for."""
    view = memoryview(packed)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > min(LARGEST_HEADER, len(view) - 8):
        raise ValueError("the header is longer than the file")
    header = strict_json.loads(bytes(view[8 : 8 + length]))
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    header.pop("__metadata__", None)
    data = view[8 + length :]
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for first, last, name in sorted((*place[2:], name) for name, place in places.items()):
        if first != end:
            raise ValueError(f"{name}: its bytes do not begin where those before it end")
        end = last
    if end != len(data):
        raise ValueError(f"{len(data)} bytes of tensors where the header has {end}")
    return {name: _tensor(data, *place) for name, place in places.items()}


def _place(name: str, entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    """Dtype, shape, first and last byte."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: must have dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name}: dtype {dtype!r}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{name}: shape and data_offsets must be counts")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name}: {offsets[1] - offsets[0]} bytes for a shape of {shape}")
    return DTYPES[dtype], shape, offsets[0], offsets[1]


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _tensor(data: memoryview, dtype: torch.dtype, shape: list[int], first: int, last: int) -> Tensor:
    try:
        tensor = torch.empty(shape, dtype=dtype)
    except RuntimeError as error:  # no bytes, and a shape beyond what torch can count
        raise ValueError(f"shape {shape}: {error}") from None
    if last > first:
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(data, np.uint8, last - first, first)
    return tensor
