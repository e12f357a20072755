"""The reference backend against its equations written once more in NumPy, one user and one candidate at a time."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import kernels
from kernels import CELLS, GruWeights

gru = partial(kernels.gru, backend="reference")
evolve = partial(kernels.evolve, backend="reference")
attention = partial(kernels.attention, backend="reference")

Array = npt.NDArray[np.float64]
SIZES = [([1], 8), ([0, 3, 63], 32), ([100] * 5, 108), ([0], 8), ([0, 0], 32), ([2, 0, 7, 1], 8)]
TOLERANCES: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
}


def made(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


def made_weights(inputs: int, hidden: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> GruWeights:
    shapes = [(inputs, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,), (hidden,)]
    # Small enough that a rounding does not grow from step to step.
    scale = 0.7 / hidden**0.5
    return GruWeights(*(made(*shape, dtype=dtype, seed=10 * seed + n, scale=scale) for n, shape in enumerate(shapes)))


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *np.cumsum(lengths)])


def users_of(lengths: list[int], candidates: int = 7) -> Tensor:
    """Candidates of all users, not in the users' order."""
    return torch.arange(candidates).mul(5).add(1) % len(lengths)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def loop(xs: Array, w: list[Array], cell: str, a: Array) -> list[Array]:
    """States after each of one user's steps; `xs [T, 3H]` without recurrence, `w` the recurrent matrix and its bias."""
    hidden = len(w[1])
    h, states = np.zeros(hidden), []
    for x, a_t in zip(xs, a, strict=True):
        u = sigmoid(x[:hidden] + h @ w[0][:, :hidden])
        r = sigmoid(x[hidden : 2 * hidden] + h @ w[0][:, hidden : 2 * hidden])
        c = np.tanh(x[2 * hidden :] + r * (h @ w[0][:, 2 * hidden :] + w[1]))
        u = {"gru": u, "augru": a_t * u, "agru": a_t, "aigru": u}[cell]
        h = h - u * h + u * c
        states.append(h)
    return states


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(initial=-np.inf))
    return np.asarray(powers / powers.sum())


def numpy_gru(inputs: Array, lengths: list[int], w: list[Array]) -> Array:
    states = np.zeros((len(inputs), len(w[3])))
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        for place, x in enumerate(loop(inputs[end - length : end] @ w[0] + w[2], [w[1], w[3]], "gru", np.ones(length))):
            states[end - length + place] = x
    return states


def numpy_evolve(
    states: Array,
    lengths: list[int],
    queries: Array,
    user_of: list[int],
    w: list[Array],
    cell: str,
) -> Array:
    ends = np.cumsum(lengths)
    final = np.zeros(queries.shape)
    for candidate, user in enumerate(user_of):
        own = states[ends[user] - lengths[user] : ends[user]]
        if len(own):
            a = softmax(own @ queries[candidate])
            xs = (own * a[:, None] if cell == "aigru" else own) @ w[0] + w[2]
            final[candidate] = loop(xs, [w[1], w[3]], cell, a)[-1]
    return final


def as_numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.double().numpy())


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("lengths", "hidden"), SIZES)
def test_gru(lengths: list[int], hidden: int, dtype: torch.dtype, projected: bool) -> None:
    weights = made_weights(6, hidden, dtype)
    inputs = made(sum(lengths), 6, dtype=dtype, seed=5, scale=1.0)
    given = inputs @ weights.w_input + weights.bias if projected else inputs
    states = gru(given, offsets_of(lengths), weights, projected=projected)
    assert states.dtype == dtype
    assert states.shape == (sum(lengths), hidden)
    expected = numpy_gru(as_numpy(inputs), lengths, [as_numpy(part) for part in weights])
    np.testing.assert_allclose(states.numpy(), expected, **TOLERANCES[dtype])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("lengths", "hidden"), SIZES)
def test_evolve(lengths: list[int], hidden: int, dtype: torch.dtype, cell: str) -> None:
    weights = made_weights(hidden, hidden, dtype)
    states = made(sum(lengths), hidden, dtype=dtype, seed=5)
    queries, user_of = made(7, hidden, dtype=dtype, seed=6), users_of(lengths)
    final = evolve(states, offsets_of(lengths), queries, user_of, weights, cell=cell)
    assert final.dtype == dtype
    w = [as_numpy(part) for part in weights]
    truth = numpy_evolve(as_numpy(states), lengths, as_numpy(queries), user_of.tolist(), w, cell)
    np.testing.assert_allclose(final.numpy(), truth, **TOLERANCES[dtype])
    empty = torch.tensor(lengths)[user_of] == 0
    assert not final[empty].any()
    assert final[~empty].any(dim=1).all()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("lengths", "hidden"), SIZES)
def test_attention(lengths: list[int], hidden: int, dtype: torch.dtype) -> None:
    states, queries = made(sum(lengths), hidden, dtype=dtype, seed=5), made(7, hidden, dtype=dtype, seed=6)
    user_of, offsets = users_of(lengths), offsets_of(lengths)
    weights = attention(states, offsets, queries, user_of)
    assert weights.dtype == dtype
    assert weights.shape == (7, max(lengths))
    for row, user in enumerate(user_of.tolist()):
        own = states[offsets[user] : offsets[user + 1]]
        length = lengths[user]
        truth = softmax(own.double().numpy() @ queries[row].double().numpy()) if length else np.zeros(0)
        np.testing.assert_allclose(weights[row, :length].numpy(), truth, **TOLERANCES[dtype])
        assert float(weights[row].sum()) == pytest.approx(1.0 if length else 0.0, abs=1e-6)
        assert not weights[row, length:].any()


def test_attention_of_huge_products_is_finite() -> None:
    states = torch.tensor([[1e4], [-1e4], [1e4]])
    weights = attention(states, torch.tensor([0, 3]), torch.tensor([[1e4]]), torch.tensor([0]))
    assert weights.tolist() == [[0.5, 0.0, 0.5]]


@pytest.mark.parametrize("cell", CELLS)
def test_no_users_and_no_candidates(cell: str) -> None:
    weights, nothing = made_weights(8, 8), torch.empty(0, dtype=torch.int64)
    none, some = torch.empty(0, 8, dtype=torch.float64), made(3, 8)
    assert gru(none, torch.tensor([0]), weights).shape == (0, 8)
    assert evolve(none, torch.tensor([0]), none, nothing, weights, cell=cell).shape == (0, 8)
    assert evolve(some, torch.tensor([0, 3]), none, nothing, weights, cell=cell).shape == (0, 8)
    assert attention(none, torch.tensor([0]), none, nothing).shape == (0, 0)
    assert attention(some, torch.tensor([0, 3]), none, nothing).shape == (0, 3)


@pytest.mark.parametrize("cell", ["augru", "agru"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_attention_of_zero_leaves_the_state_bit_equal(cell: str, dtype: torch.dtype) -> None:
    """The second step of the first user has an attention of 0; the other user has the first step alone."""
    states, weights = made(3, 8, dtype=dtype, seed=3), made_weights(8, 8, dtype)
    states[2] = states[0]
    states[:, 0] = torch.tensor([1.0, -1.0, 1.0])
    queries = torch.tensor([[500.0] + [0.0] * 7] * 2, dtype=dtype)
    offsets, user_of = torch.tensor([0, 2, 3]), torch.tensor([0, 1])
    assert attention(states, offsets, queries, user_of).tolist() == [[1.0, 0.0], [1.0, 0.0]]
    final = evolve(states, offsets, queries, user_of, weights, cell=cell)
    assert final.abs().min() > 1e-4
    assert torch.equal(final[0], final[1])
    other = evolve(states, offsets, queries, user_of, weights, cell="aigru")
    assert not torch.allclose(other[0], other[1])  # a zero input still moves a plain GRU


def test_order_of_users_and_of_candidates_does_not_matter() -> None:
    lengths, weights = [3, 0, 5, 1], made_weights(8, 8)
    states, queries, user_of = made(9, 8, seed=1), made(6, 8, seed=2), torch.tensor([2, 0, 3, 1, 2, 0])
    final = evolve(states, offsets_of(lengths), queries, user_of, weights)
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    moved = evolve(states, offsets_of(lengths), queries[order], user_of[order], weights)
    torch.testing.assert_close(moved, final[order])
    turned = torch.cat([states[8:], states[3:8], states[:3]])  # users 3, 2, 1, 0
    other = evolve(turned, offsets_of(lengths[::-1]), queries, 3 - user_of, weights)
    torch.testing.assert_close(other, final)


def test_weights_of_torch_are_converted() -> None:
    """PyTorch's z keeps the old state where our u lets the new one in, and its gates come in the order r, z, n."""
    torch.manual_seed(0)
    peer = torch.nn.GRU(5, 7).double()

    def ours(name: str) -> Tensor:
        r, z, n = peer.get_parameter(name).detach().chunk(3)
        return torch.cat([-z, r, n])  # u = 1 - z = σ(-(what z sees))

    bias_u, bias_r, bias_n = ours("bias_ih_l0").chunk(3)
    extra_u, extra_r, extra_n = ours("bias_hh_l0").chunk(3)
    bias = torch.cat([bias_u + extra_u, bias_r + extra_r, bias_n])
    weights = GruWeights(ours("weight_ih_l0").t(), ours("weight_hh_l0").t(), bias, extra_n)
    inputs = made(11, 5, scale=1.0)
    with torch.no_grad():
        first, second = peer(inputs[:4])[0], peer(inputs[4:])[0]
    states = gru(inputs, torch.tensor([0, 4, 11]), weights)
    torch.testing.assert_close(states, torch.cat([first, second]), rtol=1e-12, atol=1e-12)
    assert weights.hidden == 7
