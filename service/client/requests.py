"""From what a caller asks to a `Call`, which knows what to send and how to read the answer. Nothing here sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, Generic, SupportsIndex, TypedDict, cast
from urllib.parse import quote

from service.client import answers
from service.client.answers import Result
from service.client.errors import AugurError, InvalidInputError

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One operation of the API."""

    method: str
    path: str
    read: Callable[[bytes], Result]
    body: Callable[[int], Body] | None = None  # by the milliseconds that are left, for the server to keep
    user_id: str | None = None  # whose it is, for a proxy that sends each user's requests to one server
    repeatable: bool = True  # doing it twice is doing it once
    patient: bool = True  # worth another try


class ExplainOptions(TypedDict, total=False):
    """What may be said besides the user and the candidates."""

    context: Mapping[str, int]  # the model's context fields; one left out counts as unknown
    history: Iterable[SupportsIndex] | None  # item ids, oldest first; in place of the stored behaviours
    history_actions: Sequence[str] | None  # one for each of `history`
    model: str | None  # by name, in place of the user's own


class ScoreOptions(ExplainOptions, total=False):
    """The same for scores."""

    top_k: int | None  # a ranking of the best so many in place of all scores


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A user and the candidates to score for them; an entry of `score_batch`."""

    user_id: str
    item_ids: Iterable[SupportsIndex]  # [C] ids of the catalogue: a list, a tuple, an integer array
    context: Mapping[str, int] = field(default_factory=dict)
    history: Iterable[SupportsIndex] | None = None
    history_actions: Sequence[str] | None = None
    top_k: int | None = None
    model: str | None = None

    def body(self) -> Body:
        """As JSON has it, without what was not stated.

        Raises:
            InvalidInputError: an id that is no text, or of an item no whole number.
        """
        stated: Body = {
            "user_id": _text("user_id", self.user_id),
            "item_ids": _ids("item_ids", self.item_ids),
            "context": {name: _whole(f"context.{name}", value) for name, value in self.context.items()} or None,
            "history": None if self.history is None else _ids("history", self.history),
            "history_actions": None if self.history_actions is None else list(self.history_actions),
            "top_k": None if self.top_k is None else _whole("top_k", self.top_k),
            "model": self.model,
        }
        return _stated(stated)


@dataclass(frozen=True, slots=True)
class Event:
    """Something a user did with an item."""

    user_id: str
    item_id: SupportsIndex
    timestamp_ms: SupportsIndex  # since 1970
    action: str | None = None  # one of the model's
    event_id: str | None = None  # makes two events one

    def body(self, place: str) -> Body:
        """As `ScoreRequest.body`; errors name the field at this place."""
        item_id, timestamp_ms = (_whole(f"{place}.{name}", getattr(self, name)) for name in ("item_id", "timestamp_ms"))
        stated = {"user_id": _text(f"{place}.user_id", self.user_id), "item_id": item_id, "timestamp_ms": timestamp_ms}
        return _stated(stated | {"action": self.action, "event_id": self.event_id})


def score(asked: ScoreRequest) -> Call[answers.Scores]:
    """`POST /v1/score`."""
    body = asked.body()
    return Call("POST", "/v1/score", answers.read_scores, lambda left_ms: body | {"timeout_ms": left_ms}, asked.user_id)


def score_batch(asked: Iterable[ScoreRequest]) -> Call[tuple[answers.Scores | AugurError, ...]]:
    """`POST /v1/score:batch`."""
    bodies = [each.body() for each in asked]
    return Call(
        "POST",
        "/v1/score:batch",
        answers.read_batch,
        lambda left_ms: {"requests": [each | {"timeout_ms": left_ms} for each in bodies]},
    )


def explain(asked: ScoreRequest, evolution: bool = False) -> Call[answers.Explanation]:
    """`POST /v1/explain`."""
    body = asked.body() | ({"evolution": True} if evolution else {})
    return Call(
        "POST", "/v1/explain", answers.read_explanation, lambda left_ms: body | {"timeout_ms": left_ms}, asked.user_id
    )


def append(asked: Iterable[Event]) -> Call[answers.Appended]:
    """`POST /v1/behaviors`: to be repeated where every event has an id, so that it is the caller's word that it may."""
    events = list(asked)
    bodies = [event.body(f"events[{place}]") for place, event in enumerate(events)]
    users = {event.user_id for event in events}
    return Call(
        "POST",
        "/v1/behaviors",
        answers.read_appended,
        lambda _: {"events": bodies},
        users.pop() if len(users) == 1 else None,
        all(event.event_id is not None for event in events),
    )


def behaviors(user_id: str, limit: int | None) -> Call[answers.Behaviors]:
    """`GET /v1/users/{user_id}/behaviors`."""
    query = "" if limit is None else f"?limit={_whole('limit', limit)}"
    return Call("GET", _of_user(user_id) + query, answers.read_behaviors, user_id=user_id)


def forget(user_id: str) -> Call[answers.Deleted]:
    """`DELETE /v1/users/{user_id}/behaviors`."""
    return Call("DELETE", _of_user(user_id), answers.read_deleted, user_id=user_id)


def models() -> Call[answers.Models]:
    """`GET /v1/models`."""
    return Call("GET", "/v1/models", answers.read_models)


def ready() -> Call[Any]:
    """`GET /readyz`."""
    return Call("GET", "/readyz", answers.read_nothing, patient=False)


def _of_user(user_id: str) -> str:
    try:
        return f"/v1/users/{quote(_text('user_id', user_id), safe='')}/behaviors"
    except UnicodeEncodeError:
        raise InvalidInputError(f"user_id={user_id!r}: text that UTF-8 can carry", field="user_id") from None


def _stated(body: Body) -> Body:
    return {name: value for name, value in body.items() if value is not None}


def _text(place: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(f"{place}={value!r}: text", field=place)
    return value


def _whole(place: str, value: SupportsIndex) -> int:
    """Python's own integer, whatever array it came from."""
    try:
        if not isinstance(value, bool):
            return index(value)
    except TypeError:
        pass
    raise InvalidInputError(f"{place}={value!r}: a whole number", field=place)


def _ids(name: str, values: Iterable[SupportsIndex]) -> list[int]:
    found = list(values)
    if set(map(type, found)) <= {int}:  # as nearly always
        return cast(list[int], found)
    return [_whole(f"{name}[{place}]", value) for place, value in enumerate(found)]
