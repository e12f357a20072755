"""JSON as the standard has it: no NaN, no infinity, no key twice."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4


def dumps(value: Any) -> str:
    """The text of a value; a number that is not finite, which JSON cannot say, becomes null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: bytes) -> Any:
    """The value of a text in UTF-8. Raises ValueError for all that the standard leaves open."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair passes `loads`, and no writer after
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def write(file: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    writing = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        writing.write_text(dumps(value), encoding="utf-8")
        writing.replace(file)
    finally:
        writing.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value
