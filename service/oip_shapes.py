"""What goes over the wire under `/v2`, as `/docs` shows it; `tensors.py` and `oip.py` read and write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.tensors import LONGEST_ID

Parameters = dict[str, str | int | float | bool]


class MetadataAnswer(BaseModel):
    """A server."""

    name: str
    version: str
    extensions: list[str]


class LiveAnswer(BaseModel):
    """A process that answers."""

    live: bool


class ReadyAnswer(BaseModel):
    """A server that is ready."""

    ready: bool


class ModelReadyAnswer(BaseModel):
    """A model that can be asked."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """A tensor; -1 in a shape is any number."""

    name: str
    datatype: Literal["INT64", "BYTES", "FP32"]
    shape: list[int]


class ModelAnswer(BaseModel):
    """A model and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InferInput(BaseModel):
    """A tensor: `user_id`, `item_id`, `history_item_id`, `history_action` or a context field of the model."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=2, description="[N], or [1, N] or [N, 1]")
    datatype: Literal["INT64", "BYTES"]
    parameters: Parameters | None = Field(
        default=None, description="`binary_data_size`: the data come after the JSON, so many bytes"
    )
    data: list[int | str] | list[list[int | str]] | None = None


class InferOutput(BaseModel):
    """The one output, to say how it is wanted."""

    name: Literal["score"]
    parameters: Parameters | None = Field(default=None, description="`binary_data`: true or false")


class InferRequest(BaseModel):
    """A user and candidates as tensors."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "1",
                    "inputs": [
                        {"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["42"]},
                        {"name": "item_id", "shape": [3], "datatype": "INT64", "data": [1527, 7405, 6026]},
                    ],
                }
            ]
        }
    )

    inputs: list[InferInput] = Field(min_length=2)
    id: Annotated[str, Field(max_length=LONGEST_ID)] | None = None
    parameters: Parameters | None = Field(
        default=None, description="`timeout` in microseconds, `binary_data_output`, context fields of the model"
    )
    outputs: list[InferOutput] | None = Field(default=None, max_length=1)


class InferTensor(BaseModel):
    """The scores, in the order of `item_id`."""

    name: Literal["score"]
    datatype: Literal["FP32"]
    shape: list[int]
    data: list[float] | None = None
    parameters: Parameters | None = None


class InferAnswer(BaseModel):
    """Scores of a model; after the JSON their bytes where `binary_data_size` stands in the place of `data`."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters = Field(description="`history_length`, `unknown_items`, and `degraded` if it is")
    outputs: list[InferTensor]


class InferError(BaseModel):
    """The form of every answer under `/v2` that is not a success."""

    error: str


MEANINGS = {
    400: "A document or a tensor breaks a rule",
    404: "No such model or version",
    413: "The body has too many bytes",
    415: "The body is of another type",
    429: "The queue is full; `Retry-After` says when to come back",
    503: "Starting or stopping",
    504: "The deadline passed",
}


def may_refuse(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its documentation."""
    return {status: {"model": InferError, "description": MEANINGS[status]} for status in statuses}


def infer_document() -> dict[str, Any]:
    """Body and answer of a request to infer beyond what the framework sees."""
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}}
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "required": False,
        "description": "bytes of the body that are JSON; binary tensors come after them",
        "schema": {"type": "integer", "minimum": 0},
    }
    return {
        "parameters": [length],
        "requestBody": {"required": True, "content": shape | octets},
        "responses": {"200": {"content": octets}},
    }
