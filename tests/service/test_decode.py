from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import decode, wire
from service.decode import ScoreAsk, score_ask
from service.errors import AugurError

INTEGERS = st.one_of(st.integers(-5, 5), st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30]))
TEXTS = st.one_of(st.text(max_size=6), st.sampled_from(["", "a", "user_id", "x" * 64, "x" * 65, "x" * 129, '"', "\\"]))
ODD = st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), TEXTS, INTEGERS, st.lists(INTEGERS, max_size=2))
FIELDS = {
    "user_id": TEXTS,
    "item_ids": st.lists(INTEGERS, max_size=4),
    "context": st.dictionaries(TEXTS, INTEGERS, max_size=3),
    "history": st.one_of(st.none(), st.lists(INTEGERS, max_size=3)),
    "history_actions": st.one_of(st.none(), st.lists(TEXTS, max_size=3)),
    "top_k": st.one_of(st.none(), INTEGERS),
    "timeout_ms": st.one_of(st.none(), INTEGERS),
    "model": st.one_of(st.none(), TEXTS),
    "more": ODD,
}
GOOD = {"user_id": "1", "item_ids": [1, 2]}


def same(one: ScoreAsk, other: ScoreAsk) -> bool:
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
        else a == b
        for a, b in zip(one, other, strict=True)
    )


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects of mostly good fields, some odd, some twice."""
    names = draw(st.lists(st.sampled_from([*FIELDS, "user_id", "item_ids"]), max_size=9))
    pairs = [(name, draw(FIELDS[name] if draw(st.integers(0, 9)) else ODD)) for name in ["user_id", "item_ids", *names]]
    if not draw(st.integers(0, 2)):
        pairs = list(dict(pairs).items())
    ascii_only = draw(st.booleans())
    text = ",".join(f"{json.dumps(name)}:{json.dumps(value, ensure_ascii=ascii_only)}" for name, value in pairs)
    return ("{" + text + "}").encode("utf-8", "surrogatepass")


@pytest.mark.no_cover
@settings(max_examples=1500, deadline=None)
@given(bodies())
def test_the_quick_reader_takes_nothing_that_the_strict_one_reads_differently(body: bytes) -> None:
    quick = decode._quickly(body)
    try:
        strict = decode.from_wire(decode.parse(body, wire.ScoreRequest))
    except AugurError:
        assert quick is None
    else:
        assert quick is None or same(quick, strict)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"context": {"tab": 1, "hour": -9}},
        {"history": [], "history_actions": []},
        {"history": [1, 2, 3], "history_actions": [*["click", "", "buy"][::2], "x"]},
        {"history": None, "top_k": None, "timeout_ms": None, "model": None, "context": {}},
        {"top_k": 3, "timeout_ms": 10**30, "model": "kuairand"},
        {"user_id": "ü" * 128},
    ],
)
def test_what_clients_send_is_read_quickly(more: dict[str, Any]) -> None:
    body = json.dumps(GOOD | more, ensure_ascii=False).encode()
    quick = decode._quickly(body)
    assert quick is not None
    assert same(quick, decode.from_wire(wire.ScoreRequest.model_validate(GOOD | more)))
    assert same(score_ask(body), quick)


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id": "1", "item_ids": [1], "item_ids": [2]}',
        b'{"user_id": "item_ids", "item_ids": [1], "item_ids": [2]}',
        b'{"user_id": "1", "item_ids": [1], "context": {"tab": 1, "tab": 2}}',
        b'{"user_id": "\\ud800", "item_ids": [1]}',
    ],
)
def test_what_can_be_read_two_ways_is_not_read(body: bytes) -> None:
    assert decode._quickly(body) is None
    with pytest.raises(AugurError):
        score_ask(body)
