import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import INT64, made_up_data
from small_models import small_artifact, small_model
from torch import Tensor

from model.artifact import Artifact, ArtifactError, load_artifact, of_model, save_artifact
from model.artifact_checks import LARGEST_JSON, shapes_of, version_of
from model.config import ConfigError, ModelConfig
from model.features import FeatureSchema, fit_schema
from model.zoo.dien import Dien

DOCUMENT, WEIGHTS = "model.json", "model.safetensors"

Document = dict[str, Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "small"
    save_artifact(small_artifact(), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def document(folder: Path) -> Document:
    read: Document = json.loads((folder / DOCUMENT).read_text())
    return read


def rewrite(folder: Path, change: Callable[[Document], object], *, sign: bool = True) -> None:
    """Change the document; `sign` as one would who means harm and knows the digests."""
    read = document(folder)
    change(read)
    if sign:
        read["version"] = version_of(read)
    (folder / DOCUMENT).write_text(json.dumps(read))


def repack(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change tensors, and make every digest fit again."""
    tensors = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    change(tensors)
    replace_weights(folder, safetensors.torch.save(tensors), tensors)


def replace_weights(folder: Path, packed: bytes, tensors: Mapping[str, Tensor] | None = None) -> None:
    (folder / WEIGHTS).write_bytes(packed)

    def state(read: Document) -> None:
        read["weights"] |= {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
        total = hashlib.sha256()
        for name in sorted(tensors or {}):
            if tensors and name.startswith("schema.") and tensors[name].dtype == torch.int64:
                values = tensors[name].numpy()
                total.update(f"{name} {values.shape}\n".encode() + values.tobytes())
        read["features"]["vocabulary_digest"] = total.hexdigest()

    rewrite(folder, state)


def same_schema(one: FeatureSchema, other: FeatureSchema) -> bool:
    names = ("item_fields", "context_fields", "actions", "default_action", "max_history")
    arrays = [(one.catalogue.ids, other.catalogue.ids), (one.item_rows, other.item_rows)]
    arrays += [(vocabulary.ids, other.vocabularies[name].ids) for name, vocabulary in one.vocabularies.items()]
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and one.vocabularies.keys() == other.vocabularies.keys()
        and all(np.array_equal(*pair) and pair[0].dtype == pair[1].dtype for pair in arrays)
    )


def same_model(one: Artifact, other: Artifact) -> bool:
    return (
        one.config == other.config
        and same_schema(one.schema, other.schema)
        and one.weights.keys() == other.weights.keys()
        and all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
    )


@pytest.mark.parametrize("actions", [True, False])
@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("user_id", [True, False])
def test_round_trip_is_exact(tmp_path: Path, actions: bool, context: bool, user_id: bool) -> None:
    artifact = small_artifact(made_up_data(actions=actions, context=context), user_id=user_id, activation="prelu")
    version = save_artifact(artifact, tmp_path / "a" / "b")
    loaded = load_artifact(tmp_path / "a" / "b")
    assert same_model(artifact, loaded)
    assert (loaded.name, loaded.training, loaded.metrics) == (artifact.name, artifact.training, artifact.metrics)
    assert loaded.version == version == document(tmp_path / "a" / "b")["version"]
    assert {part.name for part in (tmp_path / "a").iterdir()} == {"b"}
    assert {part.name for part in (tmp_path / "a" / "b").iterdir()} == {DOCUMENT, WEIGHTS}


def test_model_is_the_one_that_was_saved_and_draws_no_random_numbers(saved: Path) -> None:
    artifact = load_artifact(saved)
    before = torch.random.get_rng_state()
    model = artifact.model()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training
    assert model.auxiliary is None
    assert model.state_dict().keys() == artifact.weights.keys()
    assert all(torch.equal(tensor, artifact.weights[name]) for name, tensor in model.state_dict().items())


def test_an_artifact_keeps_its_weights_when_training_goes_on() -> None:
    schema = fit_schema(made_up_data())
    model = small_model(schema)
    artifact = of_model("small", model, schema, {}, {})
    before = artifact.weights["head.output.bias"].clone()
    with torch.no_grad():
        model.head.output.bias.add_(1)
    assert torch.equal(artifact.weights["head.output.bias"], before)
    assert not any(name.startswith("auxiliary") for name in artifact.weights)


@pytest.mark.parametrize("cell", ["augru", "aigru"])
@pytest.mark.parametrize("activation", ["dice", "prelu"])
@pytest.mark.parametrize("bare", [True, False])
def test_shapes_are_those_of_the_network(cell: str, activation: str, bare: bool) -> None:
    schema = fit_schema(made_up_data(actions=not bare, context=not bare), user_id=not bare)
    config = ModelConfig(hidden=7, embedding=3, cell=cell, head=(5, 4, 3), activation=activation, auxiliary="none")
    state = Dien(schema, config).state_dict()
    assert shapes_of(schema, config) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_version_is_of_weights_architecture_and_features_alone(tmp_path: Path) -> None:
    artifact = small_artifact()
    versions = [save_artifact(artifact, tmp_path / "one")]
    told = Artifact("other", artifact.config, artifact.schema, artifact.weights, {"seconds": 9}, {"test": {}})
    assert save_artifact(told, tmp_path / "two") == versions[0]
    for number, changed in enumerate(
        [small_artifact(seed=1), small_artifact(cell="agru"), small_artifact(max_history=7)]
    ):
        versions.append(save_artifact(changed, tmp_path / str(number)))
    assert len(set(versions)) == 4


def test_numbers_that_json_lacks_are_written_as_null(tmp_path: Path) -> None:
    artifact = small_artifact()
    metrics = {"test": {"gauc": float("nan"), "log_loss": float("inf"), "interval": (0.5, float("-inf"))}}
    told = Artifact("small", artifact.config, artifact.schema, artifact.weights, {}, metrics)
    save_artifact(told, tmp_path / "small")
    assert load_artifact(tmp_path / "small").metrics == {
        "test": {"gauc": None, "log_loss": None, "interval": [0.5, None]}
    }


def test_saving_replaces_an_older_artifact_whole(tmp_path: Path) -> None:
    save_artifact(small_artifact(), tmp_path / "small")
    newer = small_artifact(seed=5, hidden=6)
    save_artifact(newer, tmp_path / "small")
    assert same_model(load_artifact(tmp_path / "small"), newer)
    assert [part.name for part in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("failing", ["write", "first rename", "second rename"])
def test_a_failure_in_the_middle_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    older = small_artifact()
    save_artifact(older, tmp_path / "small")
    renames = 0
    write, rename = Path.write_bytes, Path.rename

    def written(path: Path, packed: bytes) -> int:
        if failing == "write" and path.name == DOCUMENT:
            raise OSError(28, "No space left on device")
        return write(path, packed)

    def renamed(path: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if (failing, renames) in (("first rename", 1), ("second rename", 2)):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", written)
        patched.setattr(Path, "rename", renamed)
        with pytest.raises(OSError, match=r"No space|Input/output"):
            save_artifact(small_artifact(seed=5), tmp_path / "small")
    assert same_model(load_artifact(tmp_path / "small"), older)
    assert [part.name for part in tmp_path.iterdir()] == ["small"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"thesis: holds \['chapter1.tex'\]"):
        save_artifact(small_artifact(), tmp_path / "thesis")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="file: is a file"):
        save_artifact(small_artifact(), tmp_path / "file")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "line\nbreak", "\ud800", "x" * 201])
def test_a_name_with_tricks_is_neither_saved_nor_loaded(folder: Path, tmp_path: Path, name: str) -> None:
    artifact = small_artifact()
    tricky = Artifact(name, artifact.config, artifact.schema, artifact.weights)
    with pytest.raises((ArtifactError, UnicodeEncodeError)):
        save_artifact(tricky, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    rewrite(folder, lambda read: read.update(name=name))
    with pytest.raises(ArtifactError, match=r"model\.json: (name=|not JSON)"):
        load_artifact(folder)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    artifact = small_artifact()
    artifact.weights["head.output.bias"].fill_(float("nan"))
    with pytest.raises(ArtifactError, match=r"head\.output\.bias has a value that is not finite"):
        save_artifact(artifact, tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


# Damage.


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_refused_wherever_it_matters(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([DOCUMENT, WEIGHTS]))
    whole = (saved / name).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bad = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    target = Path(shutil.copytree(saved, tmp_path / "copy", dirs_exist_ok=True))
    (target / name).write_bytes(whole[:place] + bad + whole[place + 1 :])
    try:
        loaded = load_artifact(target)
    except ArtifactError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert name == DOCUMENT
        assert same_model(loaded, load_artifact(saved))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_file_is_refused(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([DOCUMENT, WEIGHTS]))
    whole = (saved / name).read_bytes()
    # Without its last byte, a line break, the document is whole.
    kept = data.draw(st.integers(0, len(whole) - 2))
    target = Path(shutil.copytree(saved, tmp_path / "copy", dirs_exist_ok=True))
    (target / name).write_bytes(whole[:kept])
    with pytest.raises(ArtifactError, match=name):
        load_artifact(target)


def test_every_byte_of_the_document_that_a_score_depends_on_is_bound(folder: Path) -> None:
    text = (folder / DOCUMENT).read_text()
    for before, after in [
        ('"max_history": 6', '"max_history": 7'),
        ('"long_view"', '"lung_view"'),
        ('"default_action": "click"', '"default_action": "shown"'),
        ('"cell": "augru"', '"cell": "agru"'),
        ('"initial_deviation": 0.01', '"initial_deviation": 0.02'),
    ]:
        assert before in text
        (folder / DOCUMENT).write_text(text.replace(before, after))
        with pytest.raises(ArtifactError, match="version"):
            load_artifact(folder)


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere: no such folder"):
        load_artifact(folder / "nowhere")
    for name in (WEIGHTS, DOCUMENT):
        (folder / name).unlink()
        with pytest.raises(ArtifactError, match=f"{name}: no such file"):
            load_artifact(folder)
    (folder / DOCUMENT).mkdir()
    with pytest.raises(ArtifactError, match=f"{DOCUMENT}: no such file"):
        load_artifact(folder)


def test_an_unreadable_file_is_an_artifact_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ArtifactError, match=r"model\.json: Permission denied"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"", "not JSON"),
        (b"[]", '"format" must be'),
        (b'{"format": "onnx"}', '"format" must be'),
        (b'{"format": "augur-model", "format": "augur-model"}', "'format' occurs twice"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b" " * (LARGEST_JSON + 1), "at most"),
    ],
)
def test_a_document_that_is_not_strict_json_is_refused(folder: Path, text: bytes, rule: str) -> None:
    (folder / DOCUMENT).write_bytes(text)
    with pytest.raises(ArtifactError, match=rf"model\.json: .*{rule}"):
        load_artifact(folder)


CHANGES: list[tuple[str, Callable[[Document], object]]] = [
    ("format_version 2", lambda d: d.update(format_version=2)),
    ("format_version True", lambda d: d.update(format_version=True)),
    ("format_version 1.0", lambda d: d.update(format_version=1.0)),
    (r"unknown: \['metrics'\]", lambda d: d.pop("metrics")),
    (r"unknown: \['extra'\]", lambda d: d.update(extra=1)),
    ("name=7", lambda d: d.update(name=7)),
    ("metrics must be an object", lambda d: d.update(metrics=[])),
    ("training must be an object", lambda d: d.update(training=None)),
    ("architecture must be an object", lambda d: d.update(architecture=None)),
    ("weights must be an object", lambda d: d.update(weights="model.safetensors")),
    ("architecture.kind 'lstm'", lambda d: d["architecture"].update(kind="lstm")),
    ("architecture.cell='augru': one of none, for model=din", lambda d: d["architecture"].update(kind="din")),
    ("architecture.cell='auto': must be stated", lambda d: d["architecture"].update(cell="auto")),
    ("architecture.attention='none': one of bilinear", lambda d: d["architecture"].update(attention="none")),
    ("architecture.inner_bias=1: must be bool", lambda d: d["architecture"].update(inner_bias=1)),
    (r"unknown: .*evolution.bias_candidate.*extractor", lambda d: d["architecture"].update(inner_bias=True)),
    (r"architecture .*unknown: \['hidden'\]", lambda d: d["architecture"].pop("hidden")),
    ("architecture.hidden=8.0: must be int", lambda d: d["architecture"].update(hidden=8.0)),
    ("architecture.hidden=True: must be int", lambda d: d["architecture"].update(hidden=True)),
    ("architecture.hidden=10{30}: from 1", lambda d: d["architecture"].update(hidden=10**30)),
    ("architecture.head=", lambda d: d["architecture"].update(head=[12, True])),
    ("architecture.head=", lambda d: d["architecture"].update(head=[[12], 7])),
    ("architecture.head=", lambda d: d["architecture"].update(head=[])),
    ("architecture.head=", lambda d: d["architecture"].update(head="127")),
    ("architecture.cell='lstm'", lambda d: d["architecture"].update(cell="lstm")),
    ("architecture.initial_deviation=-1.0", lambda d: d["architecture"].update(initial_deviation=-1.0)),
    (r"features .*unknown: \['actions'\]", lambda d: d["features"].pop("actions")),
    ("features.item_fields must begin", lambda d: d["features"].update(item_fields=["category", "item_id", "author"])),
    ("features.item_fields must be a list", lambda d: d["features"].update(item_fields="item_id")),
    ("features.context_fields must be a list", lambda d: d["features"].update(context_fields=["tab", "tab"])),
    ("features.context_fields must be a list", lambda d: d["features"].update(context_fields=["", "tab"])),
    ("features.actions must be a list", lambda d: d["features"].update(actions=[1])),
    ("features.user_id", lambda d: d["features"].update(user_id=1)),
    ("features.max_history=0", lambda d: d["features"].update(max_history=0)),
    ("features.max_history=True", lambda d: d["features"].update(max_history=True)),
    ("features.max_history=1000000", lambda d: d["features"].update(max_history=1_000_000)),
    ("features.default_action", lambda d: d["features"].update(default_action=None)),
    ("features.default_action", lambda d: d["features"].update(default_action=["click"])),
    ("schema tensors missing or unknown", lambda d: d["features"].update(context_fields=["tab", "hours"])),
    ("schema tensors missing or unknown", lambda d: d["features"].update(context_fields=["tab", "../../hour"])),
    ("schema tensors missing or unknown", lambda d: d["features"].update(user_id=False)),
    ("features.vocabulary_digest", lambda d: d["features"].update(vocabulary_digest="0")),
    ("weights.file must be", lambda d: d["weights"].update(file="../small/model.safetensors")),
    ("bytes where", lambda d: d["weights"].update(bytes=float(d["weights"]["bytes"]))),
    ("bytes where", lambda d: d["weights"].update(bytes=1)),
    ("sha256", lambda d: d["weights"].update(sha256=None)),
    (r"weights .*unknown: \['sha256'\]", lambda d: d["weights"].pop("sha256")),
]


@pytest.mark.parametrize(("rule", "change"), CHANGES)
def test_a_document_that_breaks_a_rule_is_refused(
    folder: Path, rule: str, change: Callable[[Document], object]
) -> None:
    read = document(folder)
    change(read)
    if all(isinstance(read.get(part), dict) for part in ("architecture", "features", "weights")):
        read["version"] = version_of(read)
    (folder / DOCUMENT).write_text(json.dumps(read))
    with pytest.raises(ArtifactError, match=rf"model\.(json|safetensors): .*{rule}"):
        load_artifact(folder)


def test_a_document_signed_by_nobody_is_refused(folder: Path) -> None:
    rewrite(folder, lambda read: read.update(version=None), sign=False)
    with pytest.raises(ArtifactError, match="version None is not that of"):
        load_artifact(folder)


TENSORS: list[tuple[str, Callable[[dict[str, Tensor]], object]]] = [
    (r"weights missing or unknown: \['head.output.bias'\]", lambda t: t.pop("head.output.bias")),
    (r"weights missing or unknown: \['extra'\]", lambda t: t.update(extra=torch.zeros(1))),
    (r"head.output.bias has shape \[2\] where \[1\]", lambda t: t.update({"head.output.bias": torch.zeros(2)})),
    ("must be float32, not torch.float16", lambda t: t.update({"head.output.bias": torch.zeros(1).half()})),
    ("must be float32, not torch.int64", lambda t: t.update({"head.output.bias": torch.zeros(1).long()})),
    ("must be float32, not torch.bool", lambda t: t.update({"head.output.bias": torch.zeros(1).bool()})),
    ("not finite", lambda t: t["extractor.w_input"][1, 2].fill_(float("nan"))),
    ("not finite", lambda t: t["embeddings.tables.tab.weight"][1, 2].fill_(float("-inf"))),
    ("variance must not be negative", lambda t: t["head.activations.1.variance"][3].fill_(-0.1)),
    ("schema tensors missing or unknown", lambda t: t.pop("schema.item_rows")),
    ("schema tensors missing or unknown", lambda t: t.update({"schema.x": torch.zeros(1).long()})),
    ("must be int64", lambda t: t.update({"schema.item_rows": t["schema.item_rows"].int()})),
    ("points outside a vocabulary", lambda t: t["schema.item_rows"][2, 1].fill_(-1)),
    ("points outside a vocabulary", lambda t: t["schema.item_rows"][2, 0].fill_(10_000)),
    ("schema.item_rows has shape", lambda t: t.update({"schema.item_rows": t["schema.item_rows"][1:].clone()})),
    ("schema.item_rows has shape", lambda t: t.update({"schema.item_rows": t["schema.item_rows"][:, 0].clone()})),
    ("schema.catalogue must be ascending", lambda t: t["schema.catalogue"][3].fill_(INT64.max)),
    ("schema.vocabulary.tab must be ascending", lambda t: t["schema.vocabulary.tab"].fill_(1)),
    ("must be ascending", lambda t: t.update({"schema.catalogue": t["schema.catalogue"].reshape(1, -1)})),
    ("has shape", lambda t: t.update({"schema.vocabulary.tab": torch.tensor([1, 2])})),
]


@pytest.mark.parametrize(("rule", "change"), TENSORS)
def test_tensors_that_break_a_rule_are_refused_though_all_digests_fit(
    folder: Path, rule: str, change: Callable[[dict[str, Tensor]], object]
) -> None:
    repack(folder, change)
    with pytest.raises(ArtifactError, match=rf"model\.safetensors: .*{rule}"):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["a.b", "type", "training", "action", "user_id"])
def test_a_field_that_no_table_can_be_named_after_is_refused(folder: Path, name: str) -> None:
    repack(folder, lambda t: t.update({f"schema.vocabulary.{name}": t.pop("schema.vocabulary.tab")}))
    rewrite(folder, lambda d: d["features"].update(context_fields=[name, "hour"]))
    with pytest.raises(ArtifactError, match=rf"model\.json: features: field '{name}'"):
        load_artifact(folder)
    schema = small_artifact().schema
    odd = FeatureSchema(schema.catalogue, schema.item_fields, schema.item_rows, schema.vocabularies, (name,))
    with pytest.raises(ConfigError, match=f"field '{name}'"):
        Dien(odd, ModelConfig())


def test_foreign_and_executable_files_are_refused_and_no_pickle_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> object:
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, never)
    for packed in (pickle.dumps({"head": 1}), b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"\xff" * 64):
        replace_weights(folder, packed)
        with pytest.raises(ArtifactError, match=r"model\.safetensors: "):
            load_artifact(folder)
    replace_weights(folder, safetensors.torch.save({"linear.weight": torch.zeros(2, 2)}))
    with pytest.raises(ArtifactError, match="schema tensors missing"):
        load_artifact(folder)


def test_a_huge_claim_takes_no_memory(folder: Path) -> None:
    def grow(read: Document) -> None:
        read["architecture"].update(hidden=4096, embedding=4096, head=[4096] * 8)

    rewrite(folder, grow)
    with pytest.raises(ArtifactError, match=r"weights missing or unknown|has shape"):
        load_artifact(folder)
