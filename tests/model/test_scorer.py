from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from made_up import INT64, STRANGER, UNKNOWN_ITEM, made_up_data
from numpy_dien import NumpyDien, Row
from small_models import small_artifact

import kernels
from kernels import BackendUnavailableError, KernelInputError
from model import ragged
from model.artifact import Artifact, ArtifactError, save_artifact
from model.batches import Batcher
from model.data import DEV, TEST, TRAIN
from model.embeddings import Inputs
from model.evaluate import score_inputs
from model.features import FeatureSchema
from model.ragged import Ragged
from model.scorer import ScoreInput, ScoreInputError, Scorer, load_scorer
from model.training import predict
from model.zoo.dien import Dien

Scores = npt.NDArray[np.float32]
CPU = torch.device("cpu")
NEAR = 3e-7  # a product's last bit may depend on how many rows it has
SIDE = ("tab", "hour", "user_id")
CATALOGUE = made_up_data().items.item_ids


def random_inputs(artifact: Artifact, seed: int = 0, count: int = 12) -> list[ScoreInput]:
    """Requests of every kind: some share a history, some have none, one step, or more than count; unknown ids."""
    random = np.random.default_rng(seed)
    known = np.append(CATALOGUE, [UNKNOWN_ITEM, 17])
    schema = artifact.schema
    histories = [random.choice(known, length) for length in (0, 1, 2, 5, 6, 7, 30)]
    inputs = []
    for number in range(count):
        history = histories[number % len(histories)]
        names = (*schema.actions, schema.actions[0]) if schema.actions else ()
        done = [names[place] for place in random.integers(0, len(names), len(history))] if names else None
        stated = [name for name in schema.context_fields if random.random() < 0.7]
        inputs.append(
            ScoreInput(
                item_ids=random.choice(known, int(random.integers(0, 6))),
                history=history,
                actions=done if random.random() < 0.7 else None,
                context={name: int(random.integers(-2, 30)) for name in stated},
                user_id=[None, 0, 3, 777][number % 4],
            )
        )
    return inputs


def of_network(artifact: Artifact, inputs: Sequence[ScoreInput]) -> list[Scores]:
    """The training network's own forward."""
    model = artifact.model()
    with torch.inference_mode():
        return [torch.sigmoid(model(padded_inputs(artifact.schema, one))).numpy() for one in inputs]


def padded_inputs(schema: FeatureSchema, one: ScoreInput) -> Inputs:
    """One padded row for each candidate."""
    count = len(one.item_ids)
    history = np.asarray(one.history, dtype=np.int64)[-schema.max_history :]
    done = np.zeros(len(history), dtype=np.int64)
    if schema.actions:
        names = one.actions if one.actions is not None else [schema.default_action] * len(one.history)
        named = [name if isinstance(name, str) else None for name in names][-schema.max_history :]
        done = np.array([schema.actions.index(name) + 1 if name else 0 for name in named], dtype=np.int64)
    user = 0
    if schema.uses_user_id and one.user_id is not None:
        user = int(schema.vocabularies["user_id"].rows(one.user_id))
    context = [
        int(schema.vocabularies[name].rows(one.context[name])) if name in one.context else 0
        for name in schema.context_fields
    ]
    padded = np.zeros((count, schema.max_history), dtype=np.int64)
    padded[:, : len(history)] = schema.catalogue.rows(history)
    actions = np.zeros_like(padded)
    actions[:, : len(history)] = done
    return Inputs(
        user=torch.full((count,), user),
        context=torch.tensor([context] * count, dtype=torch.int64).reshape(count, len(context)),
        target=torch.from_numpy(schema.catalogue.rows(one.item_ids)),
        history=torch.from_numpy(padded),
        actions=torch.from_numpy(actions),
        lengths=torch.full((count,), len(history)),
    )


def assert_same(got: Sequence[Scores], due: Sequence[Scores], tolerance: float = 1e-5) -> None:
    assert len(got) == len(due)
    for one, other in zip(got, due, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def spread(scores: Sequence[Scores]) -> float:
    return float(np.ptp(np.concatenate(scores)))


@pytest.mark.parametrize("cell", ["augru", "agru", "aigru"])
@pytest.mark.parametrize("activation", ["dice", "prelu"])
@pytest.mark.parametrize("hidden", [8, 32, 108])
def test_scores_are_the_networks(cell: str, activation: str, hidden: int) -> None:
    artifact = small_artifact(cell=cell, activation=activation, hidden=hidden)
    inputs = random_inputs(artifact, seed=hidden)
    due = of_network(artifact, inputs)
    assert spread(due) > 0.2
    for budget in (1 << 30, 0):
        assert_same(Scorer(artifact, device="cpu", table_budget=budget).score(inputs), due)


@pytest.mark.parametrize("actions", [True, False])
@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("user_id", [True, False])
def test_any_part_of_the_features_may_be_absent(actions: bool, context: bool, user_id: bool) -> None:
    artifact = small_artifact(made_up_data(actions=actions, context=context), user_id=user_id, head=(9,))
    inputs = random_inputs(artifact)
    scorer = Scorer(artifact, device="cpu")
    assert scorer.actions == (("shown", "click", "long_view") if actions else ())
    assert scorer.default_action == ("click" if actions else None)
    assert scorer.context_fields == (("tab", "hour") if context else ())
    due = of_network(artifact, inputs)
    assert spread(due) > 0.2
    assert_same(scorer.score(inputs), due)
    assert_same(Scorer(artifact, device="cpu", table_budget=0).score(inputs), due)


@pytest.mark.parametrize("split", [TRAIN, DEV, TEST])
def test_scores_of_a_data_set_are_those_of_its_batches(split: int) -> None:
    data = made_up_data(seed=4)
    artifact = small_artifact(data, max_history=4)
    batcher = Batcher(data, artifact.schema, split)
    rows = np.arange(len(batcher))
    scores = Scorer(artifact, device="cpu").score(score_inputs(data, batcher, rows))
    np.testing.assert_allclose(np.concatenate(scores), predict(artifact.model(), batcher, CPU), rtol=0, atol=1e-5)
    assert STRANGER in batcher.impressions.user_ids or split == TRAIN


@pytest.mark.parametrize("cell", ["augru", "agru", "aigru"])
@pytest.mark.parametrize("activation", ["dice", "prelu"])
def test_scores_are_those_of_the_equations_in_float64(cell: str, activation: str) -> None:
    artifact = small_artifact(cell=cell, activation=activation)
    schema, plain = artifact.schema, NumpyDien(artifact.model(), artifact.schema.item_rows, (), ())
    plain.item_fields, plain.context_fields = schema.item_fields, schema.context_fields
    inputs = random_inputs(artifact, seed=3)
    for one, scores in zip(inputs, Scorer(artifact, device="cpu").score(inputs), strict=True):
        names = one.actions if one.actions is not None else ["click"] * len(one.history)
        for item, score in zip(one.item_ids, scores, strict=True):
            row = Row(
                user=0 if one.user_id is None else int(schema.vocabularies["user_id"].rows(one.user_id)),
                context=[
                    int(schema.vocabularies[name].rows(one.context[name])) if name in one.context else 0
                    for name in schema.context_fields
                ],
                target=int(schema.catalogue.rows(item)),
                history=schema.catalogue.rows(one.history)[-schema.max_history :].tolist(),
                actions=[schema.actions.index(str(name)) + 1 for name in names][-schema.max_history :],
            )
            logit = plain.logit(row, cell, len(artifact.config.head), activation)
            assert score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return small_artifact()


@pytest.fixture(scope="module")
def scorer(artifact: Artifact) -> Scorer:
    return Scorer(artifact, device="cpu")


def test_a_score_does_not_depend_on_its_neighbours(scorer: Scorer, artifact: Artifact) -> None:
    inputs = random_inputs(artifact, count=9)
    together = scorer.score(inputs)
    assert_same([scorer.score([one])[0] for one in inputs], together, NEAR)
    assert_same(scorer.score(inputs[::-1])[::-1], together, NEAR)
    for one, scores in zip(inputs, together, strict=True):
        alone = [scorer.score([replace(one, item_ids=[item])])[0] for item in one.item_ids]
        assert_same(alone, list(scores.reshape(-1, 1)), NEAR)


def test_the_history_is_shared_and_all_else_is_not(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ScoreInput(CATALOGUE[3:6], CATALOGUE[2:7], context={"tab": 1}, user_id=1)
    same = [first, replace(first, user_id=2, context={"tab": 2}), replace(first, history=list(first.history))]
    other = replace(first, actions=["shown"] * 5)
    worked: list[int] = []
    probabilities = Scorer._probabilities

    def counted(self: Scorer, batch: Ragged) -> Scores:
        worked.append(len(batch.rows.behaviors))
        return probabilities(self, batch)

    monkeypatch.setattr(Scorer, "_probabilities", counted)
    scores = scorer.score([*same, other])
    assert worked == [10]
    assert_same(scores[2:3], scores[:1], NEAR)
    assert np.all(np.abs(scores[0] - scores[1]) > 1e-6)
    assert np.all(np.abs(scores[0] - scores[3]) > 1e-6)


def test_histories_with_an_equal_key_are_not_compared(scorer: Scorer) -> None:
    """The first one counts, so that a caller who knows saves the comparison."""
    first = ScoreInput(CATALOGUE[3:6], CATALOGUE[2:7], context={"tab": 1}, user_id=1, history_key="a")
    other = replace(first, history=CATALOGUE[8:12], history_key=None)
    told = scorer.score([first, replace(other, history_key="a"), replace(other, history_key="b"), other])
    assert_same(told[1:2], told[:1], NEAR)
    assert_same(told[2:3], told[3:], NEAR)
    assert np.all(np.abs(told[0] - told[2]) > 1e-6)
    assert_same(told[3:], scorer.score([other]), NEAR)


def test_only_the_newest_behaviours_count(scorer: Scorer) -> None:
    assert scorer.max_history == 6
    long = ScoreInput([100], history=CATALOGUE[:12], actions=["shown"] * 6 + ["click", "long_view"] * 3)
    newest = replace(long, history=CATALOGUE[6:12], actions=["click", "long_view"] * 3)
    older = replace(newest, history=CATALOGUE[5:11])
    assert_same(scorer.score([long]), scorer.score([newest]), NEAR)
    assert abs(scorer.score([long])[0] - scorer.score([older])[0]) > 1e-6


def test_the_order_of_the_history_counts(scorer: Scorer) -> None:
    there, back = scorer.score([ScoreInput([100], CATALOGUE[2:7]), ScoreInput([100], CATALOGUE[2:7][::-1])])
    assert abs(there - back) > 1e-6


def test_what_is_unknown_shares_a_row(scorer: Scorer) -> None:
    base = ScoreInput([100, 103], [106, 109], ["click", "shown"], {"tab": 1, "hour": 3}, 2)
    pairs: list[tuple[str, tuple[Any, Any]]] = [
        ("item_ids", ([UNKNOWN_ITEM, 5], [6, INT64.min + 1])),
        ("history", ([UNKNOWN_ITEM, 109], [INT64.max - 1, 109])),
        ("user_id", (None, 888)),
        ("user_id", (INT64.max, INT64.min)),
        ("context", ({"hour": 3}, {"tab": INT64.max, "hour": 3})),
        ("context", ({"tab": 99, "hour": 3}, {"tab": INT64.min, "hour": 3})),
    ]
    for field, unknown in pairs:
        one, other = (replace(base, **{field: value}) for value in unknown)
        known, *scores = scorer.score([base, one, other])
        assert_same(scores[:1], scores[1:], NEAR)
        assert np.all(np.abs(known - scores[0]) > 1e-7), field


def test_user_id_zero_is_a_user(scorer: Scorer) -> None:
    zero, nobody = scorer.score([ScoreInput([100], user_id=0), ScoreInput([100])])
    assert abs(zero - nobody) > 1e-6


def test_an_action_may_be_named_or_placed(scorer: Scorer) -> None:
    history = CATALOGUE[2:5]
    named = ScoreInput([100], history, ["shown", "long_view", "click"])
    placed: list[Any] = [np.array([0, 2, 1]), np.array([0, 2, 1], dtype=np.int8), [0, 2, 1]]
    for places in placed:
        assert_same(scorer.score([replace(named, actions=places)]), scorer.score([named]), NEAR)
    default = scorer.score([replace(named, actions=None)])
    assert_same(default, scorer.score([replace(named, actions=["click"] * 3)]), NEAR)
    unknown = scorer.score([replace(named, actions=np.array([-1, -1, -1]))])
    assert abs(unknown[0] - default[0]) > 1e-6


def test_lists_and_arrays_of_any_integer_are_the_same(scorer: Scorer) -> None:
    due = scorer.score([ScoreInput([100, 103], [106, 109])])
    for kind in (np.int64, np.int32, np.int16, np.uint8, np.uint32):
        assert_same(scorer.score([ScoreInput(np.array([100, 103], kind), np.array([106, 109], kind))]), due, NEAR)
    assert_same(scorer.score([ScoreInput((100, 103), np.arange(106, 112)[::3])]), due, NEAR)


def test_nothing_to_score(scorer: Scorer) -> None:
    assert scorer.score([]) == []
    shapes = [scores.shape for scores in scorer.score([ScoreInput([]), ScoreInput([100]), ScoreInput(np.array([]))])]
    assert shapes == [(0,), (1,), (0,)]


def test_count_unknown(scorer: Scorer) -> None:
    assert scorer.count_unknown([100, UNKNOWN_ITEM, 7, INT64.max, 0]) == 2
    assert scorer.count_unknown([]) == 0
    with pytest.raises(ScoreInputError, match="item_ids"):
        scorer.count_unknown(["100"])  # type: ignore[list-item]


def test_scores_come_with_their_number_of_unknown_items(scorer: Scorer, artifact: Artifact) -> None:
    inputs = random_inputs(artifact, count=9)
    counted = scorer.score_counted(inputs)
    assert_same([scores for scores, _ in counted], scorer.score(inputs), 0)
    assert [unknown for _, unknown in counted] == [scorer.count_unknown(one.item_ids) for one in inputs]
    assert sum(unknown for _, unknown in counted) > 0
    assert scorer.score_counted([]) == []


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("user_id", [True, False])
def test_what_does_not_fit_as_a_table_is_computed(backend: str, user_id: bool) -> None:
    """Item tables, then side tables: each budget leaves one more of them out."""
    artifact = small_artifact(user_id=user_id)
    inputs = random_inputs(artifact)
    due = of_network(artifact, inputs)
    item_bytes = len(artifact.schema.item_rows) * (4 * 8 + 12 + 15) * 4
    budgets = (1 << 30, True, True), (item_bytes, True, False), (item_bytes - 1, False, False), (0, False, False)
    for budget, items, side in budgets:
        scorer = Scorer(artifact, device="cpu", backend=backend, table_budget=budget)
        assert (scorer._split.terms["items"].table is not None, scorer._side.table is not None) == (items, side)
        assert_same(scorer.score(inputs), due)


def test_a_field_with_many_values_is_searched(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_inputs(artifact)
    due = Scorer(artifact, device="cpu").score(inputs)
    monkeypatch.setattr(ragged, "MOST_IN_DICT", 0)
    assert_same(Scorer(artifact, device="cpu").score(inputs), due, 0)


def test_a_batch_goes_to_another_device_whole(artifact: Artifact) -> None:
    """In one transfer, which no device here could show: meta has shapes alone."""
    batch = ragged.Requests(artifact.schema).ragged(random_inputs(artifact))
    sent, here = batch.on(torch.device("meta")), batch.on(CPU)
    assert [part.shape for part in sent] == [part.shape for part in here]
    assert {part.device.type for part in sent} == {"meta"}
    assert {part.dtype for part in sent} == {torch.int64}


def test_inputs_are_left_alone(scorer: Scorer) -> None:
    """And may be memory that cannot be written to."""
    ids, actions = CATALOGUE[2:7].copy(), np.array([0, 1, 2, -1, 0], dtype=np.int8)
    ids.flags.writeable = actions.flags.writeable = False
    one = ScoreInput(ids, ids, actions)
    assert_same(scorer.score([one]), scorer.score([replace(one, history=ids.tolist(), actions=actions.tolist())]), 0)


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_attention_is_the_softmax_of_the_equation(artifact: Artifact, budget: int) -> None:
    scorer = Scorer(artifact, device="cpu", table_budget=budget)
    one = ScoreInput(CATALOGUE[:4], CATALOGUE[3:13], context={"tab": 1})
    attention = scorer.attention(one)
    assert attention.shape == (4, 6)
    np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-6)
    model, schema = artifact.model(), artifact.schema
    assert isinstance(model, Dien)
    rows = torch.from_numpy(schema.catalogue.rows(one.history[-6:])).unsqueeze(1)
    with torch.inference_mode():
        behaviors = model.embeddings.behaviors(rows, torch.full_like(rows, schema.actions.index("click") + 1))
        states = model.interests(behaviors, torch.tensor([6]))
        target = model.embeddings.items(torch.from_numpy(schema.catalogue.rows(one.item_ids)))
        due = model.attend(states.expand(-1, 4, -1), target, torch.tensor([6] * 4)).t()
    np.testing.assert_allclose(attention, due.numpy(), atol=1e-6)
    assert float(np.ptp(attention)) > 0.05
    assert scorer.attention(ScoreInput([100, 103])).shape == (2, 0)


IDS = "must be a list of int64 ids"
BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("item_ids", IDS, {"item_ids": [2**63]}),
    ("item_ids", IDS, {"item_ids": [2**64]}),
    ("item_ids", IDS, {"item_ids": [1.5]}),
    ("item_ids", IDS, {"item_ids": [True]}),
    ("item_ids", IDS, {"item_ids": ["100"]}),
    ("item_ids", IDS, {"item_ids": [None, 1]}),
    ("item_ids", IDS, {"item_ids": [[1], [2, 3]]}),
    ("item_ids", IDS, {"item_ids": [[1]]}),
    ("item_ids", IDS, {"item_ids": 5}),
    ("item_ids", IDS, {"item_ids": np.array([1], dtype=np.uint64)}),
    ("history", IDS, {"history": [float("nan")]}),
    ("history", IDS, {"history": "100"}),
    ("history", IDS, {"history": [-(2**63) - 1]}),
    ("actions", "1 for a history of 2: one each", {"actions": ["click"]}),
    ("actions", "'buy' is none of shown, click, long_view", {"actions": ["click", "buy"]}),
    ("actions", r"must be places from -1 \(unknown\) to 2", {"actions": np.array([0, 3])}),
    ("actions", r"must be places from -1 \(unknown\) to 2", {"actions": [0, -2]}),
    ("actions", "is none of", {"actions": [0.5, 1.5]}),
    ("actions", "is none of", {"actions": [None, "click"]}),
    ("actions", "must be a list of names", {"actions": [["click"], ["click"]]}),
    ("actions", "must be a list of names", {"actions": [[0], [1]]}),
    ("actions", "must be a list of names", {"actions": [["click"], []]}),
    ("context.hour", IDS, {"context": {"hour": "3"}}),
    ("context.tab", IDS, {"context": {"tab": 2**63}}),
    ("context.tab", IDS, {"context": {"tab": None}}),
    ("context.page", "no context field of this model; it has tab, hour", {"context": {"page": 1}}),
    ("user_id", IDS, {"user_id": "7"}),
    ("user_id", IDS, {"user_id": 2**63}),
]


@pytest.mark.parametrize(("field", "rule", "change"), BAD)
def test_a_bad_input_is_refused_by_field_before_any_is_scored(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, field: str, rule: str, change: dict[str, Any]
) -> None:
    good = ScoreInput([100], [103, 106])
    monkeypatch.setattr(Scorer, "_probabilities", lambda *_: pytest.fail("something was scored"))
    with pytest.raises(ScoreInputError, match=rf"^{field}: .*{rule}") as caught:
        scorer.score([good, replace(good, **change)])
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.message}"


def test_a_model_without_context_says_so() -> None:
    bare = Scorer(small_artifact(made_up_data(context=False)), device="cpu")
    with pytest.raises(ScoreInputError, match="it has none"):
        bare.score([ScoreInput([100], context={"tab": 1})])


def test_several_threads_get_the_same_numbers(scorer: Scorer, artifact: Artifact) -> None:
    batches = [random_inputs(artifact, seed=seed) for seed in range(3)]
    due = [scorer.score(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for got, scores in zip(pool.map(scorer.score, batches), due, strict=True):
                assert_same(got, scores, NEAR)


def test_a_scorer_tells_what_it_is(artifact: Artifact, tmp_path: Any) -> None:
    version = save_artifact(artifact, tmp_path / "small")
    scorer = load_scorer(tmp_path / "small", backend="reference")
    assert (scorer.name, scorer.version, scorer.backend) == ("small", version, "reference")
    assert scorer.training["data"] == "made up"
    assert scorer.metrics == {"test": {"auc": 0.75}}
    kind = scorer.device.type
    assert scorer.description == f"DIEN augru hidden 8, 2,630 parameters, reference kernels (exact) on {kind}"
    inputs = random_inputs(artifact)
    assert_same(scorer.score(inputs), Scorer(artifact, device="cpu").score(inputs))


def test_a_scorer_tells_what_its_memory_goes_to(artifact: Artifact) -> None:
    weights = sum(part.numel() for part in artifact.model().parameters())
    tabled, bare = (Scorer(artifact, device="cpu", table_budget=budget).tensors for budget in (1 << 30, 0))
    items, columns = len(artifact.schema.item_rows), 4 * 8 + 12 + 15
    sizes = [len(vocabulary) for name, vocabulary in artifact.schema.vocabularies.items() if name in SIDE]
    assert weights <= sum(part.numel() for part in bare) < weights + 4 * items + 100
    more = sum(part.numel() for part in tabled) - sum(part.numel() for part in bare)
    assert more == items * columns + sum(sizes) * 12


def test_a_scorer_tells_the_backend_that_auto_means_and_its_instruction_set(artifact: Artifact) -> None:
    scorer = Scorer(artifact, device="cpu")
    assert scorer.backend == kernels.resolve_backend("auto", "cpu", torch.float32, artifact.config.hidden)
    assert f", {kernels.describe_backend(scorer.backend)} kernels (exact) on cpu" in scorer.description


def test_the_number_of_threads_reaches_the_kernels(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And changes no score."""
    given: dict[str, list[int | None]] = {"gru": [], "evolve": [], "head": [], "attention": []}

    def noted(name: str, operation: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*arguments: Any, **options: Any) -> torch.Tensor:
            given[name].append(options["threads"])
            return operation(*arguments, **options)

        return call

    for name in given:
        monkeypatch.setattr(kernels, name, noted(name, getattr(kernels, name)))
    inputs = random_inputs(artifact)
    save_artifact(artifact, tmp_path / "small")
    one, two = (
        load_scorer(tmp_path / "small", device="cpu", backend="reference", threads=threads) for threads in (1, 2)
    )
    assert_same(two.score(inputs), one.score(inputs), NEAR)
    two.attention(inputs[0])
    assert given == {"gru": [1, 2, 2, 1, 2], "evolve": [1, 2, 2, 1], "head": [1, 2, 2, 1], "attention": [2]}


def test_the_number_of_threads_reaches_the_one_call(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes no score, to the bit."""
    if kernels.resolve_backend("auto") != "native":
        pytest.skip("native kernels are not built")
    given: list[int | None] = []
    call = kernels.Fused.__call__

    def noted(self: kernels.Fused, *arguments: Any, threads: int | None) -> Scores:
        given.append(threads)
        return call(self, *arguments, threads=threads)

    monkeypatch.setattr(kernels.Fused, "__call__", noted)
    one, two = (Scorer(artifact, device="cpu", threads=threads) for threads in (1, 2))
    inputs = random_inputs(artifact)
    assert_same(two.score(inputs), one.score(inputs), 0)
    assert given == [1, 2, 2, 1]


def test_a_bad_choice_is_refused_when_the_scorer_is_made(artifact: Artifact, tmp_path: Any) -> None:
    with pytest.raises(KernelInputError, match="backend: 'cuda' is none of"):
        Scorer(artifact, backend="cuda")
    with pytest.raises(KernelInputError, match="precision: 'sloppy' is none of"):
        Scorer(artifact, precision="sloppy")
    with pytest.raises(KernelInputError, match="threads: from 1 to"):
        Scorer(artifact, device="cpu", threads=0)
    if not torch.cuda.is_available():
        with pytest.raises((BackendUnavailableError, KernelInputError)):
            Scorer(artifact, backend="triton", device="cpu")
    with pytest.raises(ArtifactError, match="no such folder"):
        load_scorer(tmp_path / "nothing")
