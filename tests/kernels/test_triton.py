"""The Triton kernels in Triton's interpreter, against the reference in float64; nothing allocated is zero by chance."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_parts import (
    TOLERANCES,
    doubled,
    empty_is_nan,
    largest_error,
    made,
    made_weights,
    ragged,
    true_evolve,
)

import kernels
from kernels import CELLS, GruWeights, reference
from kernels.triton import variants
from kernels.triton.launch import shape_of

pytest.importorskip("triton", reason="triton is not installed")
# Coverage makes the interpreter, which is Python, take two and a half times as long: it does not watch the tests of
# many cases and steps. The others run every line too.
unwatched = pytest.mark.no_cover
SHORT = [([1], 8), ([0, 3, 17], 32), ([2, 0, 5, 1], 64), ([4, 2], 108), ([3], 128)]
# On a GPU an overflow gives the infinity that is meant; NumPy, which interprets, warns of it.
overflows = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with empty_is_nan():
        yield


def evolve(*arguments: Any, **options: Any) -> Tensor:
    return kernels.evolve(*arguments, backend="triton", **options)


def true_gru(inputs: Tensor, offsets: Tensor, weights: GruWeights) -> Tensor:
    return reference.gru(inputs.double(), offsets, doubled(weights), False, "exact", 1)


def test_allocated_is_nan() -> None:
    """What the other tests rely on."""
    assert torch.empty(100).isnan().all()
    assert torch.ones(1).new_empty(100).isnan().all()


@unwatched
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(("lengths", "hidden"), SHORT)
def test_gru(lengths: list[int], hidden: int, precision: str) -> None:
    weights, offsets = made_weights(6, hidden), torch.tensor([0, *lengths]).cumsum(0)
    inputs = made(sum(lengths), 6, seed=5, scale=1.0)
    truth = true_gru(inputs, offsets, weights)
    found = kernels.gru(inputs, offsets, weights, backend="triton", precision=precision)
    assert largest_error(found, truth) < TOLERANCES[precision]
    projected = inputs @ weights.w_input + weights.bias
    found = kernels.gru(projected, offsets, weights, projected=True, backend="triton", precision=precision)
    assert largest_error(found, truth) < TOLERANCES[precision]


@unwatched
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("lengths", "hidden"), SHORT)
def test_evolve(lengths: list[int], hidden: int, cell: str, precision: str) -> None:
    case, weights = ragged(lengths, hidden), made_weights(hidden, hidden)
    found = evolve(*case.arguments, weights, cell=cell, precision=precision)
    assert largest_error(found, true_evolve(case, weights, cell)) < TOLERANCES[precision]
    empty = case.offsets.diff()[case.user_of] == 0
    assert not found[empty].any()
    assert found[~empty].any(dim=1).all()


@pytest.mark.parametrize(("lengths", "hidden"), [*SHORT, ([100, 0, 33], 32)])
def test_attention(lengths: list[int], hidden: int) -> None:
    case = ragged(lengths, hidden)
    states, offsets, queries, user_of = case.arguments
    found = kernels.attention(*case.arguments, backend="triton")
    truth = reference.attention(states.double(), offsets, queries.double(), user_of, 1)
    assert largest_error(found, truth) < 1e-6
    assert not found[truth == 0].any()


@unwatched
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_hundred_steps(cell: str, precision: str) -> None:
    case, weights = ragged([100, 63], 32, 3), made_weights(32, 32, scale=1.5)
    found = evolve(*case.arguments, weights, cell=cell, precision=precision)
    assert largest_error(found, true_evolve(case, weights, cell)) < TOLERANCES[precision]


@unwatched
@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_hundred_steps_of_gru(precision: str) -> None:
    weights, offsets = made_weights(32, 32, scale=1.5), torch.tensor([0, 100, 163])
    inputs = made(163, 32, seed=5, scale=1.0)
    found = kernels.gru(inputs, offsets, weights, backend="triton", precision=precision)
    assert largest_error(found, true_gru(inputs, offsets, weights)) < TOLERANCES[precision]


@unwatched
def test_past_a_thousand_steps() -> None:
    case, weights = ragged([1003], 8, 2), made_weights(8, 8)
    assert largest_error(evolve(*case.arguments, weights), true_evolve(case, weights, "augru")) < TOLERANCES["exact"]
    found = kernels.gru(case.states, case.offsets, weights, backend="triton", precision="exact")
    assert largest_error(found, true_gru(case.states, case.offsets, weights)) < TOLERANCES["exact"]


@unwatched
def test_more_candidates_and_users_than_a_block() -> None:
    """One user with 37 candidates, others with few, and users whom no candidate points to."""
    case, weights = ragged([3, 2, 4, 0, 1] * 4, 8, 60), made_weights(8, 8)
    case.user_of[torch.arange(60) % 5 < 3] = 2
    case.user_of[case.user_of == 7] = 8
    assert largest_error(evolve(*case.arguments, weights), true_evolve(case, weights, "augru")) < TOLERANCES["exact"]
    found = kernels.gru(case.states, case.offsets, weights, backend="triton")
    assert largest_error(found, true_gru(case.states, case.offsets, weights)) < TOLERANCES["exact"]


@unwatched
@overflows
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("scale", [30.0, 1e30])
def test_saturated_gates(cell: str, precision: str, scale: float) -> None:
    """Biases that open or close every gate for good; past the range of float16 too."""
    case, weights = ragged([12], 8, 3), made_weights(8, 8)
    signs = torch.where(torch.arange(24) % 3 == 1, -1.0, 1.0)
    weights = weights._replace(bias=scale * signs)
    found = evolve(*case.arguments, weights, cell=cell, precision=precision)
    assert largest_error(found, true_evolve(case, weights, cell)) < TOLERANCES[precision]
    found = kernels.gru(case.states, case.offsets, weights, backend="triton", precision=precision)
    assert largest_error(found, true_gru(case.states, case.offsets, weights)) < TOLERANCES[precision]


@overflows
@pytest.mark.parametrize("precision", TOLERANCES)
def test_weights_past_float16(precision: str) -> None:
    """Recurrent weights that no float16 holds saturate their gates as they would have."""
    case, weights = ragged([6], 8, 3), made_weights(8, 8)
    recurrent = weights.w_recurrent.clone()
    recurrent[:, 0], recurrent[:, 8] = 1e6, -1e6
    weights = weights._replace(w_recurrent=recurrent)
    found = evolve(*case.arguments, weights, precision=precision)
    assert largest_error(found, true_evolve(case, weights, "augru")) < TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("cell", ["augru", "agru"])
def test_attention_of_zero_leaves_the_state_bit_equal(cell: str, precision: str) -> None:
    """The second step of the first user has an attention of 0; the other user has the first step alone."""
    states, weights = made(3, 8, seed=3), made_weights(8, 8)
    states[2] = states[0]
    states[:, 0] = torch.tensor([1.0, -1.0, 1.0])
    queries = torch.tensor([[500.0] + [0.0] * 7] * 2)
    offsets, user_of = torch.tensor([0, 2, 3]), torch.tensor([0, 1])
    one_hot = kernels.attention(states, offsets, queries, user_of, backend="triton")
    assert one_hot.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    final = evolve(states, offsets, queries, user_of, weights, cell=cell, precision=precision)
    assert final.abs().min() > 1e-4
    assert torch.equal(final[0], final[1])


def test_attention_of_huge_products_is_finite() -> None:
    states = torch.tensor([[1e4], [-1e4], [1e4]])
    offsets, user_of = torch.tensor([0, 3]), torch.tensor([0])
    found = kernels.attention(states, offsets, torch.tensor([[1e4]]), user_of, backend="triton")
    assert found.tolist() == [[0.5, 0.0, 0.5]]


@pytest.mark.parametrize("cell", CELLS)
def test_no_users_and_no_candidates(cell: str) -> None:
    weights, nothing = made_weights(8, 8), torch.zeros(0, dtype=torch.int64)
    none, some = torch.zeros(0, 8), made(3, 8)
    assert kernels.gru(none, torch.tensor([0]), weights, backend="triton").shape == (0, 8)
    assert kernels.gru(none, torch.tensor([0, 0, 0]), weights, backend="triton").shape == (0, 8)
    assert evolve(none, torch.tensor([0]), none, nothing, weights, cell=cell).shape == (0, 8)
    assert evolve(some, torch.tensor([0, 3]), none, nothing, weights, cell=cell).shape == (0, 8)
    assert kernels.attention(none, torch.tensor([0]), none, nothing, backend="triton").shape == (0, 0)
    assert kernels.attention(some, torch.tensor([0, 3]), none, nothing, backend="triton").shape == (0, 3)
    of_nobody = evolve(none, torch.tensor([0, 0, 0]), some, torch.tensor([1, 0, 1]), weights, cell=cell)
    assert torch.equal(of_nobody, torch.zeros(3, 8))
    nowhere = kernels.attention(none, torch.tensor([0, 0, 0]), some, torch.tensor([1, 0, 1]), backend="triton")
    assert nowhere.shape == (3, 0)


def test_views_of_larger_tensors() -> None:
    """Rows that are not contiguous and starts at no multiple of 16 bytes, which the compiled code takes for granted."""
    case, weights = ragged([3, 5], 8), made_weights(8, 8)
    wide = torch.cat([case.states, case.states], 1)[:, 8:]
    shifted = torch.cat([torch.zeros(1), case.queries.flatten()])[1:].view_as(case.queries)
    turned = weights._replace(
        w_input=weights.w_input.T.contiguous().T, w_recurrent=weights.w_recurrent.T.contiguous().T
    )
    found = evolve(wide, case.offsets, shifted, case.user_of, turned)
    assert torch.equal(found, evolve(*case.arguments, weights))


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(
    ("storage", "hidden"), [("registers", 32), ("shared", 108), pytest.param("memory", 108, marks=unwatched)]
)
def test_every_place_for_the_weights(
    storage: str, hidden: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a machine keeps the recurrent weights, and how it orders the product, does not change it."""
    used = []

    def storage_of(*_: object) -> str:
        used.append(storage)
        return storage

    monkeypatch.setattr(variants, "_storage", storage_of)
    case, weights = ragged([3, 5], hidden, 3), made_weights(hidden, hidden)
    for cell in CELLS:
        found = evolve(*case.arguments, weights, cell=cell, precision=precision)
        assert largest_error(found, true_evolve(case, weights, cell)) < TOLERANCES[precision]
    found = kernels.gru(case.states, case.offsets, weights, backend="triton", precision=precision)
    assert largest_error(found, true_gru(case.states, case.offsets, weights)) < TOLERANCES[precision]
    assert used == [storage] * 4


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("hidden", [8, pytest.param(32, marks=unwatched), pytest.param(108, marks=unwatched)])
def test_as_on_amd(hidden: int, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transposed products, and gates without an approximate tanh in either precision."""
    monkeypatch.setattr(variants, "is_turned", lambda machine: True)
    monkeypatch.setattr(variants, "gate_form", lambda machine, precision: "exp")
    monkeypatch.setattr(variants, "_storage", lambda *_: "own")
    case, weights = ragged([3, 18], hidden, 18), made_weights(hidden, hidden)
    for cell in CELLS:
        found = evolve(*case.arguments, weights, cell=cell, precision=precision)
        assert largest_error(found, true_evolve(case, weights, cell)) < TOLERANCES[precision]
    found = kernels.gru(case.states, case.offsets, weights, backend="triton", precision=precision)
    assert largest_error(found, true_gru(case.states, case.offsets, weights)) < TOLERANCES[precision]


def test_both_launch_shapes_agree() -> None:
    case, weights = ragged([3, 0, 9], 32, 20), made_weights(32, 32)
    for precision in TOLERANCES:
        few, many = (
            kernels.triton.evolve(*case.arguments, weights, "augru", precision, 1, shape=shape)
            for shape in variants.SHAPES
        )
        torch.testing.assert_close(few, many, rtol=0, atol=1e-6)
        few, many = (
            kernels.triton.gru(case.states, case.offsets, weights, False, precision, 1, shape=shape)
            for shape in variants.SHAPES
        )
        torch.testing.assert_close(few, many, rtol=0, atol=1e-6)


def test_the_rule_of_the_shapes() -> None:
    assert [shape_of(programs, torch.device("cpu")) for programs in (1, 64, 65)] == ["latency"] * 2 + ["throughput"]
