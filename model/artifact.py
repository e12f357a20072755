"""The artifact: a folder of `model.safetensors` and `model.json`, nothing executable, checked whole before use.

`model.safetensors` holds the weights under the names of `Dien`'s parameters and the schema's integer tables under
`schema.`; `model.json` holds the rest and the digests that bind the two files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model.dien import ConfigError, Dien, DienConfig, settings_of
from model.features import FeatureSchema, Vocabulary

FORMAT, FORMAT_VERSION = "augur-model", 1
LARGEST_JSON = 4 << 20
KEYS = ("format", "format_version", "name", "architecture", "features", "training", "metrics", "weights")
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


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model with all that is needed to score: `weights` are the state of a `Dien` without its auxiliary net."""

    name: str
    config: DienConfig
    schema: FeatureSchema
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    version: str = "unsaved"

    def model(self) -> Dien:
        """The network, ready for inference."""
        model = Dien(self.schema, self.config)
        missing, unexpected = model.load_state_dict(dict(self.weights), strict=False)
        if unexpected or any(not name.startswith("auxiliary.") for name in missing):
            raise ArtifactError(f"weights: missing {missing}, unexpected {unexpected}")
        model.auxiliary = None
        return model.eval()


def of_model(
    name: str, model: Dien, schema: FeatureSchema, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Artifact:
    """The artifact of a trained model."""
    weights = {
        key: value.detach().to("cpu", torch.float32).contiguous()
        for key, value in model.state_dict().items()
        if not key.startswith("auxiliary.")
    }
    return Artifact(name, model.config, schema, weights, training, metrics)


def save_artifact(artifact: Artifact, folder: str | Path) -> str:
    """Write the artifact whole or not at all, over an older one too; returns its version."""
    target = Path(folder)
    packed = safetensors.torch.save({**artifact.weights, **_schema_tensors(artifact.schema)})
    document = _document(artifact, packed)
    building = target.with_name(f".{target.name}.{os.getpid()}.new")
    replaced = target.with_name(f".{target.name}.{os.getpid()}.old")
    building.mkdir(parents=True)
    try:
        (building / "model.safetensors").write_bytes(packed)
        (building / "model.json").write_text(
            json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if target.exists():
            target.rename(replaced)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return _version(document)


def load_artifact(folder: str | Path) -> Artifact:
    """Read and check an artifact. Raises ArtifactError before any part of a bad one is used."""
    path = Path(folder)
    document = _read_document(path / "model.json")
    config = _architecture(document["architecture"], path / "model.json")
    tensors = _read_tensors(path / "model.safetensors", document["weights"])
    schema = _schema(document["features"], tensors, path)
    artifact = Artifact(
        name=document["name"],
        config=config,
        schema=schema,
        weights={name: tensor for name, tensor in tensors.items() if not name.startswith("schema.")},
        training=document["training"],
        metrics=document["metrics"],
        version=_version(document),
    )
    _check_weights(artifact, path / "model.safetensors")
    return artifact


def _require(holds: bool, where: Path, rule: str) -> None:
    if not holds:
        raise ArtifactError(f"{where}: {rule}")


def _schema_tensors(schema: FeatureSchema) -> dict[str, Tensor]:
    tensors = {"schema.catalogue": schema.catalogue.ids, "schema.item_rows": schema.item_rows}
    tensors |= {f"schema.vocabulary.{name}": vocabulary.ids for name, vocabulary in schema.vocabularies.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in tensors.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].numpy().astype("<i8")
        total.update(f"{name} {values.shape}\n".encode() + values.tobytes())
    return total.hexdigest()


def _document(artifact: Artifact, packed: bytes) -> dict[str, Any]:
    schema = artifact.schema
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": artifact.name,
        "architecture": {"kind": "dien", **settings_of(artifact.config)},
        "features": {
            "item_fields": list(schema.item_fields),
            "context_fields": list(schema.context_fields),
            "user_id": schema.uses_user_id,
            "actions": list(schema.actions),
            "default_action": schema.default_action,
            "max_history": schema.max_history,
            "vocabulary_digest": _digest(_schema_tensors(schema)),
        },
        "training": dict(artifact.training),
        "metrics": dict(artifact.metrics),
        "weights": {
            "file": "model.safetensors",
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
        },
    }


def _version(document: Mapping[str, Any]) -> str:
    binding = {key: document[key] for key in ("architecture", "features", "weights")}
    return hashlib.sha256(json.dumps(binding, sort_keys=True).encode()).hexdigest()[:12]


def _read_document(file: Path) -> dict[str, Any]:
    _require(file.parent.is_dir(), file.parent, "no such folder; an artifact is a folder")
    _require(file.is_file(), file, "no such file; an artifact has model.json and model.safetensors")
    _require(file.stat().st_size <= LARGEST_JSON, file, f"{file.stat().st_size} bytes, at most {LARGEST_JSON}")
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: not JSON: {error}") from None
    _require(isinstance(document, dict) and document.get("format") == FORMAT, file, f'"format" must be "{FORMAT}"')
    version = document.get("format_version")
    _require(version == FORMAT_VERSION, file, f"format_version {version!r}; this build reads {FORMAT_VERSION}")
    _same_keys(document, KEYS, file, "the document")
    _require(isinstance(document["name"], str) and document["name"] != "", file, "name must be a text")
    for key in KEYS[3:]:
        _require(isinstance(document[key], dict), file, f"{key} must be an object")
    return document


def _same_keys(found: Mapping[str, Any], wanted: tuple[str, ...], file: Path, what: str) -> None:
    differing = sorted(set(found) ^ set(wanted))
    _require(not differing, file, f"{what} must have exactly {', '.join(wanted)}; missing or unknown: {differing}")


def _architecture(settings: Mapping[str, Any], file: Path) -> DienConfig:
    _require(settings.get("kind") == "dien", file, f"architecture.kind {settings.get('kind')!r}; this build has dien")
    _same_keys(settings, ("kind", *DienConfig.__slots__), file, "architecture")
    defaults = DienConfig()
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value := settings[name], list) else value for name in defaults.__slots__
    }
    for name, value in values.items():
        kind = type(getattr(defaults, name))
        fits = type(value) is kind and (kind is not tuple or all(type(width) is int for width in value))
        _require(fits, file, f"architecture.{name}={value!r}: must be {kind.__name__}")
    try:
        return DienConfig(**values)
    except ConfigError as error:
        raise ArtifactError(f"{file}: architecture.{error}") from None


def _read_tensors(file: Path, stated: Mapping[str, Any]) -> dict[str, Tensor]:
    _same_keys(stated, ("file", "bytes", "sha256"), file.with_name("model.json"), "weights")
    _require(stated["file"] == file.name, file.with_name("model.json"), f"weights.file must be {file.name}")
    _require(file.is_file(), file, "no such file; an artifact has model.json and model.safetensors")
    packed = file.read_bytes()
    _require(len(packed) == stated["bytes"], file, f"{len(packed)} bytes where model.json states {stated['bytes']}")
    digest = hashlib.sha256(packed).hexdigest()
    _require(digest == stated["sha256"], file, f"sha256 {digest} is not the one that model.json states")
    try:
        return safetensors.torch.load(packed)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{file}: not safetensors: {error}") from None


def _names(features: Mapping[str, Any], key: str, file: Path) -> tuple[str, ...]:
    values = features[key]
    fits = isinstance(values, list) and all(isinstance(name, str) and name for name in values)
    _require(fits and len(set(values)) == len(values), file, f"features.{key} must be a list of different names")
    return tuple(values)


def _schema(features: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> FeatureSchema:
    document, file = path / "model.json", path / "model.safetensors"
    _same_keys(features, FEATURE_KEYS, document, "features")
    item_fields, context, actions = (
        _names(features, key, document) for key in ("item_fields", "context_fields", "actions")
    )
    _require(item_fields[:1] == ("item_id",), document, "features.item_fields must begin with item_id")
    _require(type(features["user_id"]) is bool, document, "features.user_id must be true or false")
    longest = features["max_history"]
    _require(
        type(longest) is int and 1 <= longest <= 100_000, document, f"features.max_history={longest!r}: 1 to 100000"
    )
    default = features["default_action"]
    _require(default in actions if actions else default is None, document, "features.default_action must be an action")
    names = (*item_fields, *context, *(["user_id"] if features["user_id"] else []))
    _require(len(set(names)) == len(names), document, "features: a field name occurs twice")
    expected = {"schema.catalogue", "schema.item_rows", *(f"schema.vocabulary.{name}" for name in names)}
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("schema.")}
    _require(set(found) == expected, file, f"schema tensors missing or unknown: {sorted(set(found) ^ expected)}")
    for name, tensor in found.items():
        _require(tensor.dtype == torch.int64, file, f"{name} must be int64")
    _require(
        _digest(found) == features["vocabulary_digest"], file, "vocabularies differ from features.vocabulary_digest"
    )
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


def _vocabulary(tensors: Mapping[str, Tensor], name: str, file: Path) -> Vocabulary:
    ids = tensors[name].numpy()
    _require(ids.ndim == 1 and bool(np.all(ids[1:] > ids[:-1])), file, f"{name} must be ascending ids, none twice")
    return Vocabulary(ids)


def _check_item_rows(schema: FeatureSchema, file: Path) -> None:
    rows, shape = schema.item_rows, (len(schema.catalogue), len(schema.item_fields))
    _require(rows.shape == shape, file, f"schema.item_rows has shape {rows.shape} where {shape} is due")
    sizes = np.array([len(schema.vocabularies[name]) for name in schema.item_fields])
    _require(bool(np.all((rows >= 0) & (rows < sizes))), file, "schema.item_rows points outside a vocabulary")


def _check_weights(artifact: Artifact, file: Path) -> None:
    expected = {
        name: tensor.shape
        for name, tensor in Dien(artifact.schema, artifact.config).state_dict().items()
        if not name.startswith("auxiliary.")
    }
    differing = sorted(set(expected) ^ set(artifact.weights))
    _require(not differing, file, f"weights missing or unknown: {differing}")
    for name, tensor in artifact.weights.items():
        due = list(expected[name])
        _require(list(tensor.shape) == due, file, f"{name} has shape {list(tensor.shape)} where {due} is due")
        _require(tensor.dtype == torch.float32, file, f"{name} must be float32, not {tensor.dtype}")
        _require(bool(torch.isfinite(tensor).all()), file, f"{name} has a value that is not finite")
        _require(not name.endswith(".variance") or bool((tensor >= 0).all()), file, f"{name} must not be negative")
