"""The artifact: a folder of `model.safetensors` and `model.json`, nothing executable, checked whole before use.

`model.safetensors` holds the weights under the names of the network's parameters and the schema's integer tables under
`schema.`; `model.json` holds the rest. Its `version` is a digest of architecture, features and weights: all that a
score depends on. `name`, `training` and `metrics` tell of the model and bind nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from model import strict_json
from model.artifact_checks import (
    DOCUMENT,
    FORMAT,
    FORMAT_VERSION,
    LARGEST_JSON,
    STATISTICS,
    WEIGHTS,
    ArtifactError,
    architecture_of,
    architecture_part,
    check_weights,
    digest_of,
    document_of,
    require,
    schema_of,
    tensors_of,
    version_of,
)
from model.config import ModelConfig
from model.features import FeatureSchema
from model.zoo import Network, make_network

__all__ = ["Artifact", "ArtifactError", "check_target", "load_artifact", "of_model", "save_artifact"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model with all that is needed to score: `weights` are the state of a network without its auxiliary net."""

    name: str
    config: ModelConfig
    schema: FeatureSchema
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    version: str = "unsaved"

    @property
    def parameters(self) -> int:
        """How many numbers of it were trained; moving statistics are none."""
        return sum(tensor.numel() for name, tensor in self.weights.items() if not name.endswith(STATISTICS))

    @property
    def title(self) -> str:
        """The model in words, and its size."""
        return f"{self.config.title}, {self.parameters:,} parameters"

    def model(self) -> Network:
        """The network, ready for inference."""
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not kept
            model = make_network(self.schema, self.config)
        model.auxiliary = None
        model.load_state_dict(dict(self.weights))
        return model.eval()


def of_model(
    name: str, model: Network, schema: FeatureSchema, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Artifact:
    """The artifact of a trained model."""
    weights = {
        key: value.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, value in model.state_dict().items()
        if not key.startswith("auxiliary.")
    }
    return Artifact(name, model.config, schema, weights, training, metrics)


def save_artifact(artifact: Artifact, folder: str | Path) -> str:
    """Write the artifact whole or not at all, over an older one too; returns its version.

    Raises ArtifactError, before anything is written, for one that would not load and for a folder of something else.
    """
    target = Path(folder).resolve()  # a link is followed, and not replaced
    check_target(target)
    packed = safetensors.torch.save({**artifact.weights, **_schema_tensors(artifact.schema)})
    text = strict_json.dumps(_document(artifact, packed)).encode()
    version = _artifact(target, text, packed).version
    building, replaced = (target.with_name(f".{target.name}.{uuid4().hex}") for _ in range(2))
    try:
        building.mkdir(parents=True)
        (building / WEIGHTS).write_bytes(packed)
        (building / DOCUMENT).write_bytes(text)
        if target.exists():
            target.rename(replaced)
        building.rename(target)
    except BaseException:
        if replaced.exists():
            replaced.rename(target)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return version


def check_target(folder: Path) -> None:
    """Raise ArtifactError where saving an artifact would replace what is none."""
    require(folder.is_dir() or not folder.exists(), folder, "is a file; an artifact is a folder")
    others = sorted({part.name for part in folder.iterdir()} - {WEIGHTS, DOCUMENT}) if folder.exists() else []
    require(not others, folder, f"holds {others[:1]}: an artifact replaces the whole folder; name another")


def load_artifact(folder: str | Path) -> Artifact:
    """Read and check an artifact. Raises ArtifactError before any part of a bad one is used."""
    path = Path(folder)
    require(path.is_dir(), path, "no such folder; an artifact is a folder")
    files = path / DOCUMENT, path / WEIGHTS
    for file in files:
        require(file.is_file(), file, f"no such file; an artifact has {DOCUMENT} and {WEIGHTS}")
    size = files[0].stat().st_size
    require(size <= LARGEST_JSON, files[0], f"{size} bytes, at most {LARGEST_JSON}")
    try:
        text, packed = files[0].read_bytes(), _read(files[1])
    except OSError as error:
        raise ArtifactError(f"{error.filename}: {error.strerror}") from None
    return _artifact(path, text, packed)


def _read(file: Path) -> memoryview:
    """A file's bytes, in memory of torch, which unlike that of `bytes` is given back while other threads run."""
    with file.open("rb") as opened:
        content = torch.empty(os.fstat(opened.fileno()).st_size, dtype=torch.uint8).numpy().data
        return content[: opened.readinto(content)]


def _artifact(path: Path, text: bytes, packed: bytes | memoryview) -> Artifact:
    """The artifact that the two files' bytes are, checked whole; `path` is for messages."""
    document = document_of(text, path / DOCUMENT)
    config = architecture_of(document["architecture"], path / DOCUMENT)
    tensors = tensors_of(packed, document["weights"], path / WEIGHTS)
    schema = schema_of(document["features"], tensors, path)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith("schema.")}
    check_weights(weights, schema, config, path)
    told = {key: document[key] for key in ("name", "training", "metrics", "version")}
    return Artifact(config=config, schema=schema, weights=weights, **told)


def _schema_tensors(schema: FeatureSchema) -> dict[str, Tensor]:
    tensors = {"schema.catalogue": schema.catalogue.ids, "schema.item_rows": schema.item_rows}
    tensors |= {f"schema.vocabulary.{name}": vocabulary.ids for name, vocabulary in schema.vocabularies.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in tensors.items()}


def _document(artifact: Artifact, packed: bytes) -> dict[str, Any]:
    schema = artifact.schema
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": "",
        "name": artifact.name,
        "architecture": architecture_part(artifact.config),
        "features": {
            "item_fields": list(schema.item_fields),
            "context_fields": list(schema.context_fields),
            "user_id": schema.uses_user_id,
            "actions": list(schema.actions),
            "default_action": schema.default_action,
            "max_history": schema.max_history,
            "vocabulary_digest": digest_of(_schema_tensors(schema)),
        },
        "training": dict(artifact.training),
        "metrics": dict(artifact.metrics),
        "weights": {
            "file": WEIGHTS,
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
        },
    }
    return document | {"version": version_of(document)}
