"""Results, as they stand in the server's answers, and reading them. A field that is not known is a newer server's.

Shapes: C candidates, T behaviours of a history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from service.client.errors import AnswerError, AugurError, by_status

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RankedItem:
    """A candidate in a ranking."""

    item_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Click probabilities of candidates for a user."""

    model: str
    version: str
    history_length: int  # behaviours that entered the scores
    unknown_items: int  # candidates that the model does not know; they share one score
    degraded: str | None  # why the scores are less than they could be
    scores: tuple[float, ...] = ()  # [C] in the order asked; empty with `top_k`
    ranking: tuple[RankedItem, ...] = ()  # best first, with `top_k` alone


@dataclass(frozen=True, slots=True)
class UsedBehavior:
    """A behaviour as the model saw it."""

    item_id: int
    timestamp_ms: int | None  # None in a history of the request's own
    action: str | None


@dataclass(frozen=True, slots=True)
class Evolved:
    """Interest evolution towards a candidate, behaviour by behaviour."""

    update: tuple[float, ...]  # [T] the update gate in effect, mean over hidden units
    moved: tuple[float, ...]  # [T] how far each behaviour moved the state
    probabilities: tuple[float, ...]  # [T + 1] had evolution ended before the first behaviour, then after each


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """A candidate's score and where it looked."""

    item_id: int
    score: float
    attention: tuple[float, ...]  # [T]
    evolution: Evolved | None = None  # where it was asked for


@dataclass(frozen=True, slots=True)
class Explanation:
    """Attention of each candidate over the history that counts."""

    model: str
    version: str
    history: tuple[UsedBehavior, ...]  # [T], oldest first
    candidates: tuple[ExplainedItem, ...]  # [C] in the order asked
    unknown_items: int
    degraded: str | None


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of events; each is counted in one of the three."""

    accepted: int
    duplicates: int  # were there already
    outside_window: int  # older than all of as many as are kept


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A stored behaviour."""

    item_id: int
    timestamp_ms: int
    action: str | None


@dataclass(frozen=True, slots=True)
class Behaviors:
    """What the store knows of a user."""

    user_id: str
    events: tuple[StoredEvent, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served."""

    name: str
    version: str
    description: str
    architecture: str
    parameters: int
    actions: tuple[str, ...]
    default_action: str | None
    context_fields: tuple[str, ...]
    max_history: int
    metrics: dict[str, Any]
    loaded_at: str  # RFC 3339, UTC


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model that scores unseen, and how far it is from the answers."""

    share: float  # of the users, 0 to 1
    version: str
    requests: int
    shed: int
    failed: int
    candidates: int
    mean_difference: float | None  # None: nothing compared yet
    max_difference: float


@dataclass(frozen=True, slots=True)
class Routes:
    """Which share of the users each model answers, and which score unseen."""

    weights: dict[str, float]
    shadows: dict[str, Shadow]


@dataclass(frozen=True, slots=True)
class Models:
    """The models that are served."""

    models: tuple[Model, ...]
    routes: Routes


@dataclass(frozen=True, slots=True)
class Deleted:
    """Whether there was anything to forget of a user."""

    user_id: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """What is wrong."""

    code: str
    message: str
    field: str | None = None
    status: int = 0  # within a batch: the one it would have had alone


@dataclass(frozen=True, slots=True)
class Failed:
    """The form of every answer that is not a success."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class _Batch:
    results: tuple[msgspec.Raw, ...]


def reader(kind: type[Result]) -> Callable[[bytes], Result]:
    """Reads the body of a success; what it returns raises AnswerError."""
    decoder = msgspec.json.Decoder(kind)

    def read(content: bytes) -> Result:
        try:
            return decoder.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise AnswerError(f"the answer is no {kind.__name__}: {error}") from None

    return read


read_scores, read_explanation = reader(Scores), reader(Explanation)
read_appended, read_behaviors, read_deleted = reader(Appended), reader(Behaviors), reader(Deleted)
read_models, read_nothing = reader(Models), reader(dict)
_read_batch, _read_failed = reader(_Batch), reader(Failed)


def read_batch(content: bytes) -> tuple[Scores | AugurError, ...]:
    """What became of each request of a batch; raises AnswerError."""
    return tuple(_read_entry(bytes(raw)) for raw in _read_batch(content).results)


def _read_entry(content: bytes) -> Scores | AugurError:
    # Scores have no `error`, and a failure has nothing else.
    if b'"error"' not in content[:16]:
        return read_scores(content)
    detail = _read_failed(content).error
    return by_status(detail.status)(detail.message, status=detail.status, code=detail.code, field=detail.field)


def read_error(status: int, content: bytes) -> ErrorDetail:
    """What an answer other than success says of itself, also where it is not Augur's own."""
    try:
        return _read_failed(content).error
    except AnswerError:
        said = content[:100].decode("utf-8", "replace").strip() or "nothing"
        return ErrorDetail("", f"status {status}, and not in Augur's words: {said}")
