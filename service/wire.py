"""What goes over the wire: the shapes of requests and answers, as `/docs` shows them.

Limits that a setting moves (items, history) and choices that the model makes (actions, context) are no part of the
shapes; the routes check them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.stores.records import LATEST_MS, NO_ACTION, action_code

MAX_EVENTS = 1000
LONGEST_USER_ID = 128
LONGEST_NAME = 64
MAX_CONTEXT = 64
LONGEST_PATH = 4096


def _quoted(value: Any) -> Any:
    """A number is how most people first write an id; the answer should be in the message."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise PydanticCustomError("user_id_type", "an id of a user is a string, in quotes")
    return value


def _codable(action: str) -> str:
    if action_code(action) == NO_ACTION:
        raise PydanticCustomError("action_code", "this name cannot be stored")
    return action


Int64 = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
# The first bad entry of a long list is enough: thousands of findings would hold up everyone else's requests.
Int64List = Annotated[list[Int64], Field(fail_fast=True)]
UserId = Annotated[str, BeforeValidator(_quoted), Field(strict=True, min_length=1, max_length=LONGEST_USER_ID)]
Action = Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_NAME), AfterValidator(_codable)]


class Wire(BaseModel):
    """A request body: a field that is not known is a mistake, and said to be one."""

    model_config = ConfigDict(extra="forbid")


class ScoreRequest(Wire):
    """A user and the candidates to score for them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "42", "item_ids": [1527, 7405, 6026], "context": {"tab": 1}}],
        }
    )

    user_id: UserId = Field(description="whose stored behaviours to use; any text")
    item_ids: Int64List = Field(min_length=1, description="candidates, ids of the catalogue")
    context: Annotated[dict[str, Int64], Field(max_length=MAX_CONTEXT)] = Field(
        default_factory=dict, description="the model's context fields, see `/v1/models`; one left out counts as unknown"
    )
    history: Int64List | None = Field(
        default=None, description="item ids, oldest first; replaces the stored behaviours, also when it is empty"
    )
    history_actions: Annotated[list[Action], Field(fail_fast=True)] | None = Field(
        default=None, description="what was done with each item of `history`; left out: the model's default action"
    )
    top_k: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None, description="answer with a ranking of the best so many instead of all scores"
    )
    timeout_ms: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None, description="answer 504 when the scores take longer; bounded by the server's own cap"
    )
    model: Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_NAME)] | None = Field(
        default=None, description="the model to ask, by name; left out: the user's own, as the routes say"
    )


class Event(Wire):
    """Something a user did with an item."""

    user_id: UserId
    item_id: Int64
    timestamp_ms: Annotated[int, Field(strict=True, ge=0, le=LATEST_MS)] = Field(
        description="when, in milliseconds since 1970"
    )
    action: Action | None = Field(default=None, description="one of the model's actions, see `/v1/models`")
    event_id: Annotated[str, Field(strict=True, min_length=1, max_length=64)] | None = Field(
        default=None,
        description="makes two events one; left out, events of equal item, time and action are the same",
    )


class BehaviorsRequest(Wire):
    """What users did, in any order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"events": [{"user_id": "42", "item_id": 1527, "timestamp_ms": 1650800000000, "action": "click"}]}
            ],
        }
    )

    events: Annotated[list[Event], Field(fail_fast=True)] = Field(min_length=1, max_length=MAX_EVENTS)


class LoadRequest(Wire):
    """What to load a model from."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"path": "artifacts/mine", "force": True}]})

    path: Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_PATH)] | None = Field(
        default=None, description="the artifact's folder; left out: the one that the model was loaded from"
    )
    force: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="load it although its scores shift, or although it lacks actions or context fields",
    )


class RankedItem(BaseModel):
    """A candidate in a ranking."""

    item_id: int
    score: float


class ScoreAnswer(BaseModel):
    """Click probabilities: `scores` for every candidate in the order asked, or with `top_k` a `ranking` of the best."""

    model: str
    version: str
    scores: list[float] | None = Field(
        default=None, description="float32, in the order of `item_ids`; not with `top_k`"
    )
    ranking: list[RankedItem] | None = Field(
        default=None, description="with `top_k` alone: best first, equal scores in the order of `item_ids`"
    )
    history_length: int = Field(description="behaviours that entered the scores")
    unknown_items: int = Field(description="candidates that the model does not know; they share one general score")
    degraded: str | None = Field(
        description="why the scores are less than they could be, as `store_stale` or `store_unavailable`; or null"
    )


class BehaviorsAnswer(BaseModel):
    """What became of the events; each is counted in one of the three."""

    accepted: int
    duplicates: int = Field(description="were there already")
    outside_window: int = Field(
        description="no later than the oldest behaviour kept, of a user with as many as are kept"
    )


class StoredEvent(BaseModel):
    """A stored behaviour."""

    item_id: int
    timestamp_ms: int
    action: str | None = Field(
        description="null: none was stated; `#` and eight hexadecimal digits: one that the served model does not have"
    )


class UserBehaviorsAnswer(BaseModel):
    """What the store knows of a user, oldest first."""

    user_id: str
    events: list[StoredEvent]


class DeletedAnswer(BaseModel):
    """A user's behaviours are gone."""

    user_id: str
    deleted: bool = Field(description="whether there were any")


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    version: str
    description: str
    architecture: str = Field(description="which model of the zoo: base, wide_deep, pnn, din, ..., dien")
    parameters: int = Field(description="how many numbers were trained, embeddings included")
    actions: list[str]
    default_action: str | None
    context_fields: list[str]
    max_history: int
    metrics: dict[str, Any]
    loaded_at: str = Field(description="when this version was loaded, RFC 3339 in UTC")


class ShadowInfo(BaseModel):
    """A model that scores requests besides the one that answers, and how far it is from the answers."""

    share: float = Field(description="of the users, 0 to 1")
    version: str
    requests: int = Field(description="scored and compared; all figures are of this version")
    shed: int = Field(description="not scored, for want of room")
    failed: int
    candidates: int
    mean_difference: float | None = Field(description="of probabilities, absolute; null: none compared yet")
    max_difference: float


class RoutesInfo(BaseModel):
    """Which share of the users each model answers, and which score unseen."""

    weights: dict[str, float]
    shadows: dict[str, ShadowInfo]


class ModelsAnswer(BaseModel):
    """The models that are served."""

    models: list[ModelInfo]
    routes: RoutesInfo


class ComparisonInfo(BaseModel):
    """Probabilities of two versions for the same requests."""

    recent: int = Field(description="requests that clients sent lately")
    made: int = Field(description="requests made up from the catalogue")
    candidates: int
    mean_before: float
    mean_after: float
    mean_difference: float = Field(description="of the absolute differences")
    max_difference: float
    rank_correlation: float | None = Field(description="Spearman's, within each request")
    unknown_before: int = Field(description="candidates that the version does not know")
    unknown_after: int


class LoadAnswer(BaseModel):
    """A model was loaded."""

    name: str
    version: str
    previous_version: str | None = Field(description="null: a new name")
    changed: bool = Field(description="false: it is the version that served already")
    seconds: dict[str, float] = Field(description="what each step took: read, build, warm, compare")
    comparison: ComparisonInfo | None = Field(description="null: a new name, or the same version")
    overruled: list[str] = Field(description="what it would have been refused for without `force`")


class StatusAnswer(BaseModel):
    """A probe that succeeds."""

    status: str


class ErrorDetail(BaseModel):
    """What is wrong."""

    code: str
    message: str
    field: str | None = None


class ErrorAnswer(BaseModel):
    """The form of every answer that is not a success."""

    error: ErrorDetail
