"""What there is to ask about: items of a model's catalogue with their fields, and some users of the store.

The console offers them; nothing that scores needs them.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from model.data.dataset import IntArray
from model.features import FeatureSchema
from service import wire
from service.engine import Engine
from service.errors import StoreUnavailableError
from service.routes import answer, may_fail
from service.stores import StoreError

MOST_ITEMS = 1000
MOST_USERS = 100

router = APIRouter()


class CatalogueAnswer(BaseModel):
    """Items of a catalogue."""

    model: str
    version: str
    total: int = Field(description="items of the catalogue")
    fields: list[str] = Field(description="side fields that the model reads of an item")
    items: list[dict[str, int | None]] = Field(
        description="`item_id` and the side fields; null where the model knows no such value"
    )
    next: int | None = Field(description="`after` of the following page; null: there is none")


class UsersAnswer(BaseModel):
    """Some users."""

    users: list[str]


@router.get(
    "/v1/catalogue",
    summary="Items that a model knows",
    tags=["models"],
    response_model=CatalogueAnswer,
    responses=may_fail(404, 422),
)
async def catalogue(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MOST_ITEMS, description="at most so many")] = 100,
    after: Annotated[int | None, Query(ge=-(2**63), le=2**63 - 1, description="ids above this one alone")] = None,
    item_id: Annotated[
        list[Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]] | None,
        Query(max_length=MOST_ITEMS, description="these alone, as far as they are known; to be repeated"),
    ] = None,
    seed: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="drawn at random, the same for the same seed")
    ] = None,
    model: Annotated[
        str | None, Query(min_length=1, max_length=wire.LONGEST_NAME, description="by name; left out: the default one")
    ] = None,
) -> Response:
    """By id ascending, or with `seed` drawn at random; the fields are those that the model was trained with."""
    models = _engine(request).models
    served = models.default if model is None else models.get(model)
    schema = served.scorer.schema
    ids = schema.catalogue.ids
    if item_id is not None:
        wanted = np.unique(np.array(item_id, dtype=np.int64))
        ids = wanted[schema.catalogue.rows(wanted) > 0]
    if after is not None:
        ids = ids[np.searchsorted(ids, after, side="right") :]
    taken = ids[:limit]
    if seed is not None:
        taken = np.random.default_rng(seed).choice(ids, min(limit, len(ids)), replace=False)
    return answer(
        {
            "model": served.name,
            "version": served.version,
            "total": len(schema.catalogue.ids),
            "fields": list(schema.item_fields[1:]),
            "items": _items(schema, taken),
            "next": int(taken[-1]) if seed is None and len(ids) > limit else None,
        }
    )


@router.get(
    "/v1/users",
    summary="Some users who have behaviours",
    tags=["behaviours"],
    response_model=UsersAnswer,
    responses=may_fail(422, 503),
)
async def users(
    request: Request, limit: Annotated[int, Query(ge=1, le=MOST_USERS, description="at most so many")] = 20
) -> Response:
    """A few to begin with, and no list of all: the store looks once, at its first keys."""
    try:
        found = await _engine(request).store.users(limit)
    except StoreError as error:
        raise StoreUnavailableError(f"the behaviour store does not tell its users ({error})") from error
    return answer({"users": found})


def _items(schema: FeatureSchema, ids: IntArray) -> list[dict[str, Any]]:
    columns: dict[str, Any] = {"item_id": ids.tolist()} | schema.item_values(ids)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine
