"""The rules of an artifact's two files. Every check happens on their bytes, before any part of them is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import safe_tensors, strict_json
from model.config import AUTO, MODELS, ConfigError, ModelConfig, settings_of
from model.features import FeatureSchema, Vocabulary
from model.zoo import make_network

FORMAT, FORMAT_VERSION = "augur-model", 1
ADDED = ("attention", "inner_bias")  # settings newer than the format: written where they are not the model's own
STATISTICS = (".mean", ".variance")  # endings of the names of what is no parameter
WEIGHTS, DOCUMENT = "model.safetensors", "model.json"
LARGEST_JSON = 4 << 20
LONGEST_HISTORY, LONGEST_NAME = 100_000, 200
KEYS = ("format", "format_version", "version", "name", "architecture", "features", "training", "metrics", "weights")
PARTS = KEYS[4:]
FEATURE_KEYS = (
    "item_fields",
    "context_fields",
    "user_id",
    "actions",
    "default_action",
    "max_history",
    "vocabulary_digest",
)


class ArtifactError(ValueError):
    """A folder that is not a usable artifact: the message names the file, the part and the rule."""


def require(holds: bool, where: Path, rule: str) -> None:
    """Raise ArtifactError unless the rule holds."""
    if not holds:
        raise ArtifactError(f"{where}: {rule}")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of integer tensors with their names and shapes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].numpy().astype("<i8", copy=False)
        total.update(f"{name} {values.shape}\n".encode())
        total.update(np.ascontiguousarray(values).data)
    return total.hexdigest()


def version_of(document: Mapping[str, Any]) -> str:
    """The version: a digest of all that a score depends on."""
    binding = {key: document[key] for key in ("architecture", "features", "weights")}
    return hashlib.sha256(json.dumps(binding, sort_keys=True).encode()).hexdigest()[:12]


def document_of(text: bytes, file: Path) -> dict[str, Any]:
    """The document of a `model.json`, its keys and its version checked."""
    try:
        document: dict[str, Any] = strict_json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{file}: not JSON: {error}") from None
    require(isinstance(document, dict) and document.get("format") == FORMAT, file, f'"format" must be "{FORMAT}"')
    number = document.get("format_version")
    fits = type(number) is int and number == FORMAT_VERSION
    require(fits, file, f"format_version {number!r}; this build reads {FORMAT_VERSION}")
    _same_keys(document, KEYS, file, "the document")
    for key in PARTS:
        require(isinstance(document[key], dict), file, f"{key} must be an object")
    check_name(document["name"], file)
    version = version_of(document)
    stated = document["version"]
    require(version == stated, file, f"version {stated!r} is not that of architecture, features, weights: {version}")
    return document


def check_name(name: object, file: Path) -> None:
    """Raise ArtifactError unless a model may have this name, which becomes a part of paths and of URLs."""
    fits = isinstance(name, str) and 1 <= len(name) <= LONGEST_NAME and name.isprintable()
    rule = f"1 to {LONGEST_NAME} printable characters, none of / and \\, and not . or .."
    require(fits and not set("/\\") & set(str(name)) and name not in (".", ".."), file, f"name={name!r}: {rule}")


def _same_keys(found: Mapping[str, Any], wanted: tuple[str, ...], file: Path, what: str) -> None:
    differing = sorted(set(found) ^ set(wanted))
    require(not differing, file, f"{what} must have exactly {', '.join(wanted)}; missing or unknown: {differing}")


def architecture_part(config: ModelConfig) -> dict[str, Any]:
    """A configuration as the part `architecture`; its `kind` is the model."""
    usual = settings_of(ModelConfig(model=config.model))
    settings = {name: value for name, value in settings_of(config).items() if name not in ADDED or value != usual[name]}
    return {"kind": settings.pop("model"), **settings}


def architecture_of(settings: Mapping[str, Any], file: Path) -> ModelConfig:
    """The part `architecture`."""
    defaults, given = ModelConfig(), dict(settings)
    model = given.get("kind")
    require(
        isinstance(model, str) and model in MODELS,
        file,
        f"architecture.kind {model!r}; this build has {', '.join(MODELS)}",
    )
    wanted = [name for name in defaults.__slots__ if name != "model" and (name not in ADDED or name in given)]
    _same_keys(given, ("kind", *wanted), file, "architecture")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    values["model"] = values.pop("kind")
    for name, value in values.items():
        kind = type(getattr(defaults, name))
        fits = type(value) is kind and (kind is not tuple or all(type(width) is int for width in value))
        require(fits, file, f"architecture.{name}={value!r}: must be {kind.__name__}")
        require(value != AUTO, file, f"architecture.{name}={value!r}: must be stated")
    try:
        return ModelConfig(**values)
    except ConfigError as error:
        raise ArtifactError(f"{file}: architecture.{error}") from None


def tensors_of(packed: bytes | memoryview, stated: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The tensors of a `model.safetensors` that is the one `stated`, the part `weights`."""
    document = file.with_name(DOCUMENT)
    _same_keys(stated, ("file", "bytes", "sha256"), document, "weights")
    require(stated["file"] == WEIGHTS, document, f"weights.file must be {WEIGHTS}")
    fits = type(stated["bytes"]) is int and len(packed) == stated["bytes"]
    require(fits, file, f"{len(packed)} bytes where {DOCUMENT} states {stated['bytes']!r}")
    digest = hashlib.sha256(packed).hexdigest()
    require(digest == stated["sha256"], file, f"sha256 {digest} is not the one that {DOCUMENT} states")
    try:
        return safe_tensors.load(packed)
    except ValueError as error:
        raise ArtifactError(f"{file}: not safetensors: {error}") from None


def _names(features: Mapping[str, Any], key: str, file: Path) -> tuple[str, ...]:
    values = features[key]
    fits = isinstance(values, list) and all(isinstance(name, str) and name for name in values)
    require(fits and len(set(values)) == len(values), file, f"features.{key} must be a list of different names")
    return tuple(values)


def schema_of(features: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> FeatureSchema:
    """The schema, from the part `features` and its tensors."""
    document, file = path / DOCUMENT, path / WEIGHTS
    _same_keys(features, FEATURE_KEYS, document, "features")
    item_fields, context, actions = (
        _names(features, key, document) for key in ("item_fields", "context_fields", "actions")
    )
    require(item_fields[:1] == ("item_id",), document, "features.item_fields must begin with item_id")
    require(type(features["user_id"]) is bool, document, "features.user_id must be true or false")
    longest = features["max_history"]
    require(
        type(longest) is int and 1 <= longest <= LONGEST_HISTORY,
        document,
        f"features.max_history={longest!r}: a whole number from 1 to {LONGEST_HISTORY}",
    )
    default = features["default_action"]
    require(default in actions if actions else default is None, document, "features.default_action must be an action")
    names = (*item_fields, *context, *(["user_id"] if features["user_id"] else []))
    found = _schema_tensors_of(names, tensors, features["vocabulary_digest"], file)
    schema = FeatureSchema(
        catalogue=_vocabulary(found, "schema.catalogue", file),
        item_fields=item_fields,
        item_rows=found["schema.item_rows"].numpy(),
        vocabularies={name: _vocabulary(found, f"schema.vocabulary.{name}", file) for name in names},
        context_fields=context,
        actions=actions,
        default_action=default,
        max_history=longest,
    )
    _check_item_rows(schema, file)
    return schema


def _schema_tensors_of(
    names: tuple[str, ...], tensors: Mapping[str, Tensor], digest: object, file: Path
) -> dict[str, Tensor]:
    expected = {"schema.catalogue", "schema.item_rows", *(f"schema.vocabulary.{name}" for name in names)}
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("schema.")}
    require(set(found) == expected, file, f"schema tensors missing or unknown: {sorted(set(found) ^ expected)}")
    for name, tensor in found.items():
        require(tensor.dtype == torch.int64, file, f"{name} must be int64")
    require(digest_of(found) == digest, file, "vocabularies differ from features.vocabulary_digest")
    return found


def _vocabulary(tensors: Mapping[str, Tensor], name: str, file: Path) -> Vocabulary:
    ids = tensors[name].numpy()
    require(ids.ndim == 1 and bool(np.all(ids[1:] > ids[:-1])), file, f"{name} must be ascending ids, none twice")
    return Vocabulary(ids)


def _check_item_rows(schema: FeatureSchema, file: Path) -> None:
    rows, shape = schema.item_rows, (len(schema.catalogue), len(schema.item_fields))
    require(rows.shape == shape, file, f"schema.item_rows has shape {rows.shape} where {shape} is due")
    sizes = np.array([len(schema.vocabularies[name]) for name in schema.item_fields])
    require(bool(np.all((rows >= 0) & (rows < sizes))), file, "schema.item_rows points outside a vocabulary")


def check_weights(weights: Mapping[str, Tensor], schema: FeatureSchema, config: ModelConfig, path: Path) -> None:
    """All weights there, none other, each of its shape, float32 and finite."""
    file = path / WEIGHTS
    try:
        expected = shapes_of(schema, config)
    except ConfigError as error:
        raise ArtifactError(f"{path / DOCUMENT}: features: {error}") from None
    differing = sorted(set(expected) ^ set(weights))
    require(not differing, file, f"weights missing or unknown: {differing}")
    for name, tensor in weights.items():
        due = list(expected[name])
        require(list(tensor.shape) == due, file, f"{name} has shape {list(tensor.shape)} where {due} is due")
        require(tensor.dtype == torch.float32, file, f"{name} must be float32, not {tensor.dtype}")
        require(bool(torch.isfinite(tensor).all()), file, f"{name} has a value that is not finite")
        require(not name.endswith(".variance") or bool((tensor >= 0).all()), file, f"{name} must not be negative")


def shapes_of(schema: FeatureSchema, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, from a network without memory: a bad artifact must not decide how much is used."""
    with torch.device("meta"):
        model = make_network(schema, config)
    model.auxiliary = None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
