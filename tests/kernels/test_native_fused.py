"""A whole network in one call, on every instruction set, against the operations of the reference in float64."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from head_parts import Network, double

import kernels
from kernels import CELLS, BackendUnavailableError, Fused, KernelInputError, native

ISAS = native.isas() if native.unavailable() is None else ()
needs_native = pytest.mark.skipif(not ISAS, reason=f"native: {native.unavailable()}")
Scores = npt.NDArray[np.float32]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.use_isa(request.param):
        yield request.param


def fused(network: Network, **options: Any) -> Fused:
    return Fused(network.tables, network.extractor, network.evolution, network.head, **options)


def run(network: Network, threads: int = 1, **options: Any) -> Scores:
    return fused(network, **options)(network.batch, network.side_table, threads=threads)


def due(network: Network, cell: str = "augru") -> npt.NDArray[np.float64]:
    """One operation after the other."""
    tables, side = double(network.tables), network.side_table.double()
    behaviors, actions, offsets, candidates, history_of, request_of, of_request, rows = map(
        torch.from_numpy, network.batch
    )
    projected, pooled_of = tables.projected[behaviors], tables.embeddings[behaviors]
    if tables.projected_actions is not None:
        projected = projected + tables.projected_actions[actions]
        pooled_of = torch.cat([pooled_of, tables.action_embeddings[actions]], dim=1)
    states = kernels.gru(projected, offsets, double(network.extractor), projected=True, backend="reference")
    queries = tables.queries[candidates]
    final = kernels.evolve(
        states, offsets, queries, history_of, double(network.evolution), cell=cell, backend="reference"
    )
    means = [part.mean(0) if len(part) else part.sum(0) for part in pooled_of.split(offsets.diff().tolist())]
    pooled = torch.stack(means)[of_request]
    requests = side[rows].sum(1) + pooled @ tables.of_pooled
    factors = pooled[:, : tables.embeddings.shape[1]]
    head = kernels.prepare_head(double(network.head), backend="reference")
    logits = kernels.head(tables.targets, tables.embeddings, candidates, requests, factors, request_of, final, head)
    return torch.sigmoid(logits).numpy()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("precision", "tolerance"), [("exact", 2e-6), ("fast", 1e-3)])
def test_it_is_the_operations_one_after_the_other(isa: str, cell: str, precision: str, tolerance: float) -> None:
    for network in (Network(), Network(8, 5, 12, activation="prelu"), Network(33, 17, 70, with_actions=False)):
        scores = run(network, threads=2, cell=cell, precision=precision)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, due(network, cell), rtol=0, atol=tolerance)
        assert float(np.ptp(scores)) > 0.2


def test_logits_beyond_the_range_of_exp(isa: str) -> None:
    network = Network()
    for bias, score in ((1e4, 1.0), (-1e4, 0.0)):
        network.head = network.head._replace(output_bias=torch.tensor([bias]))
        np.testing.assert_allclose(run(network), score, atol=1e-20)


def test_a_candidate_does_not_depend_on_its_neighbours_nor_on_threads(isa: str) -> None:
    network = Network()
    together, whole = run(network), network.batch
    for threads in (2, 3):
        np.testing.assert_array_equal(run(network, threads=threads), together)
    for begin, end in ((0, 1), (9, 80), (110, 116)):
        names = ("candidates", "history_of", "request_of")
        network.batch = whole._replace(**{name: getattr(whole, name)[begin:end] for name in names})
        np.testing.assert_array_equal(run(network), together[begin:end])


@needs_native
def test_nothing_to_score() -> None:
    network, nothing = Network(), np.zeros(0, dtype=np.int64)
    network.batch = network.batch._replace(candidates=nothing, history_of=nothing, request_of=nothing)
    assert run(network).shape == (0,)
    network = Network(with_actions=False)
    network.batch = network.batch._replace(actions=nothing, side=np.zeros((7, 0), dtype=np.int64))
    network.side_table = network.side_table[:0]
    np.testing.assert_allclose(run(network), due(network), rtol=0, atol=2e-6)


@needs_native
def test_several_callers_at_once() -> None:
    network = Network()
    ready = fused(network)
    alone, wrong = run(network), []

    def call() -> None:
        for _ in range(20):
            if not np.array_equal(ready(network.batch, network.side_table, threads=2), alone):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def wrong_row(name: str, value: int) -> dict[str, Any]:
    rows = np.array(getattr(Network().batch, name))
    rows.reshape(-1)[-1] = value
    return {name: rows}


BAD_BATCHES: list[tuple[str, dict[str, Any]]] = [
    ("batch.behaviors: a row", wrong_row("behaviors", 30)),
    ("batch.behaviors: a row", wrong_row("behaviors", -1)),
    ("batch.actions: a row", wrong_row("actions", 4)),
    ("batch.offsets: from 0", wrong_row("offsets", 88)),
    ("batch.offsets: from 0", {"offsets": np.array([0, 9, 5, 63, 64, 89])}),
    ("batch.candidates: a row", wrong_row("candidates", 30)),
    ("batch.history_of: a row or place", wrong_row("history_of", 5)),
    ("batch.request_of: a row or place", wrong_row("request_of", 7)),
    ("batch.history_of_request: a row or place", wrong_row("history_of_request", 5)),
    ("batch.side: a row", wrong_row("side", 10)),
    ("batch: actions as long as behaviors", {"actions": np.zeros(3, dtype=np.int64)}),
    ("batch: actions as long as", {"candidates": np.zeros(3, dtype=np.int64)}),
    ("batch: actions as long as", {"offsets": np.zeros(0, dtype=np.int64)}),
    ("batch: contiguous int64 arrays behaviors", {"candidates": np.zeros(116, dtype=np.int32)}),
    ("batch: contiguous int64 arrays", {"side": np.zeros(7, dtype=np.int64)}),
    ("batch: contiguous int64 arrays", {"candidates": np.zeros(232, dtype=np.int64)[::2]}),
]


@needs_native
@pytest.mark.parametrize(("rule", "change"), BAD_BATCHES)
def test_a_bad_batch_is_refused_by_name(rule: str, change: dict[str, Any]) -> None:
    network = Network()
    network.batch = network.batch._replace(**change)
    with pytest.raises(KernelInputError, match=rf"^{rule}"):
        run(network)


@needs_native
@pytest.mark.parametrize("table", [torch.zeros(10, 41), torch.zeros(10, 40).double(), torch.zeros(40)])
def test_a_bad_side_table_is_refused(table: torch.Tensor) -> None:
    network = Network()
    network.side_table = table
    with pytest.raises(KernelInputError, match=r"^side_table: float32 \[S, 40\]"):
        run(network)


def changed(**tables: Any) -> Network:
    network = Network()
    network.tables = network.tables._replace(**tables)
    return network


def with_hidden(hidden: int) -> Network:
    network = Network()
    network.extractor = Network(hidden).extractor
    network.tables = network.tables._replace(projected=torch.zeros(30, 3 * hidden))
    return network


def with_extractor(bias: float) -> Network:
    network = Network()
    network.extractor = network.extractor._replace(bias=torch.full((96,), bias))
    return network


BAD_NETWORKS = [
    ("inputs: shape", changed(projected=torch.zeros(30, 90))),
    ("tables.queries: shape", changed(queries=torch.zeros(29, 32))),
    ("tables.targets: shape", changed(targets=torch.zeros(30, 41))),
    ("tables.embeddings: shape", changed(embeddings=torch.zeros(30, 8))),
    ("tables.embeddings: torch.float64", changed(embeddings=torch.zeros(30, 9).double())),
    ("tables.projected_actions: shape", changed(projected_actions=torch.zeros(4, 90))),
    ("tables.action_embeddings: shape", changed(action_embeddings=torch.zeros(5, 6))),
    ("tables: projected_actions and action_embeddings go together", changed(action_embeddings=None)),
    ("tables.of_pooled: shape", changed(of_pooled=torch.zeros(14, 40))),
    ("extractor: hidden 8 where evolution has 32", with_hidden(8)),
    ("weights.bias: every value finite", with_extractor(float("nan"))),
]


@needs_native
@pytest.mark.parametrize(("rule", "network"), BAD_NETWORKS)
def test_what_does_not_fit_is_refused_when_it_is_made_ready(rule: str, network: Network) -> None:
    with pytest.raises(KernelInputError, match=rf"^{rule}"):
        fused(network)


@needs_native
def test_bad_options_are_refused() -> None:
    network = Network()
    for options in ({"cell": "gru"}, {"precision": "sloppy"}):
        with pytest.raises(KernelInputError, match="is none of"):
            fused(network, **options)
    with pytest.raises(KernelInputError, match=r"^threads"):
        run(network, threads=0)
    network.head = network.head._replace(
        layers=(network.head.layers[0]._replace(weight=torch.zeros(32, 40)), network.head.layers[1])
    )
    with pytest.raises(KernelInputError, match=r"^head: more than 32 inputs"):
        fused(network)
    with pytest.raises(KernelInputError, match=r"computes torch\.float32"):
        Fused(*(double(part) for part in (Network().tables, Network().extractor, Network().evolution, Network().head)))


@needs_native
def test_weights_that_were_changed_are_refused_once_they_are_not_finite() -> None:
    network = Network()
    ready = fused(network)
    network.evolution.bias[0] = float("inf")
    with pytest.raises(KernelInputError, match=r"^weights: changed since"):
        ready(network.batch, network.side_table, threads=1)


def test_without_the_extension_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "it was not built")
    with pytest.raises(BackendUnavailableError, match="it was not built"):
        fused(Network())
