"""From the bytes of a request to a checked object, refusing whatever can be read two ways.

Two readers stand behind `score_ask`. The quick one takes what it can be sure of, which is every request that a client
means to send; all else goes to the strict one, which explains what is wrong. A test holds the two together.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from pydantic import BaseModel, ValidationError

from service import wire
from service.errors import InvalidInputError, MalformedBodyError, invalid, shorten
from service.stores.records import IntArray

# An escape that is a character only together with the one after it.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Model = TypeVar("Model", bound=BaseModel)


class ScoreAsk(NamedTuple):
    """A request for scores: what `wire.ScoreRequest` says, with ids as arrays."""

    user_id: str
    item_ids: IntArray  # [C]
    context: dict[str, int] = {}  # noqa: RUF012
    history: IntArray | None = None  # [T]
    history_actions: list[str] | None = None
    top_k: int | None = None
    timeout_ms: int | None = None
    model: str | None = None


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=wire.LONGEST_NAME)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Quick(msgspec.Struct, forbid_unknown_fields=True):
    """`wire.ScoreRequest` for the quick reader: never laxer. Lists become arrays of int64, which checks their range."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=wire.LONGEST_USER_ID)]
    item_ids: Annotated[list[int], msgspec.Meta(min_length=1)]
    context: Annotated[dict[str, _Int64], msgspec.Meta(max_length=wire.MAX_CONTEXT)] | UnsetType = UNSET
    history: list[int] | UnsetType | None = UNSET
    history_actions: list[_Text] | UnsetType | None = UNSET
    top_k: _Positive | UnsetType | None = UNSET
    timeout_ms: _Positive | UnsetType | None = UNSET
    model: _Text | UnsetType | None = UNSET


_quick = msgspec.json.Decoder(_Quick)
_OPTIONAL = ("context", "history", "history_actions", "top_k", "timeout_ms", "model")


def score_ask(body: bytes) -> ScoreAsk:
    """The body of a request for scores.

    Raises:
        MalformedBodyError: not JSON in UTF-8, a name twice in one object, NaN or infinite numbers, nested too deep.
        InvalidInputError: JSON of another shape.
    """
    return _quickly(body) or from_wire(parse(body, wire.ScoreRequest))


def from_wire(asked: wire.ScoreRequest) -> ScoreAsk:
    """What the strict reader read."""
    fields = {name: getattr(asked, name) for name in _OPTIONAL}
    fields["history"] = None if asked.history is None else np.array(asked.history, dtype=np.int64)
    return ScoreAsk(asked.user_id, np.array(asked.item_ids, dtype=np.int64), **fields)


def _quickly(body: bytes) -> ScoreAsk | None:
    """None unless this reader and the strict one cannot but agree."""
    if b"\\" in body:  # an escape could hide half a character
        return None
    try:
        read = _quick.decode(body)
        item_ids = np.array(read.item_ids, dtype=np.int64)
        stated = {name: value for name in _OPTIONAL if (value := getattr(read, name)) is not UNSET}
        history = stated.get("history")
        if history is not None:
            stated["history"] = np.array(history, dtype=np.int64)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError):
        return None
    # Names and strings have two quotes each; a name that stands in an object twice would be two more.
    strings = 3 + len(stated) + len(stated.get("context", ())) + len(stated.get("history_actions") or ())
    strings += stated.get("model") is not None
    return ScoreAsk(read.user_id, item_ids, **stated) if body.count(b'"') == 2 * strings else None


def parse(body: bytes, shape: type[Model]) -> Model:
    """A body as an object of `shape`; raises as `score_ask`."""
    return check(strict_json(body), shape)


def check(document: Any, shape: type[Model]) -> Model:
    """A document as an object of `shape`; raises InvalidInputError."""
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise _with_choices(invalid(problem), problem["type"], shape) from None


def strict_json(body: bytes) -> Any:
    """Strict JSON; the standard library's reader lets pass much that other readers refuse or read differently."""
    try:
        text = body.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError:
        raise MalformedBodyError("the body has one half of a surrogate pair, which is no character") from None
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise MalformedBodyError("the body is nested too deep") from None
    except json.JSONDecodeError as error:
        raise MalformedBodyError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        # The one other: Python's own bound on the digits of an integer.
        raise MalformedBodyError("the body is not JSON that can be read: a number has thousands of digits") from None


def _with_choices(error: InvalidInputError, problem: str, shape: type[BaseModel]) -> InvalidInputError:
    """Says which fields there are to whoever named one that there is not."""
    if problem == "extra_forbidden" and error.field and "[" not in error.field:
        error.message += f"; there are {', '.join(shape.model_fields)}"
    return error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedBodyError(f"{shorten(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBodyError(f"the body is not JSON: {name} is no number there")
