"""The scan of training, on every instruction set that this CPU has, against autograd through the loop in float64."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from kernels import GruWeights, KernelInputError, native
from kernels.reference import step

# test_native.py fails in CI where there are none. These three have the scan of AVX-512.
SHARING = "avx512vnni", "zen4", "amx"
ISAS = [isa for isa in native.isas() if isa not in SHARING] if native.unavailable() is None else []
SIZES = [
    ([], 4),
    ([0], 3),
    ([1], 1),
    ([3, 0, 1], 8),
    ([2, 9, 0, 5, 9, 1, 7], 32),
    ([1, 4] * 31 + [0], 3),
    ([6, 2], 108),
]
NAMES = "states", "projected", "scale", "w_recurrent", "bias_candidate"
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.use_isa(request.param):
        yield request.param


def example(size: int, cell: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """What `scan` takes; a plain GRU is an AUGRU whose scale is 1, and other cells have a bias within."""
    lengths, hidden = SIZES[size]
    generator = torch.Generator().manual_seed(size)
    of, steps = torch.tensor(lengths, dtype=torch.int64), max(lengths, default=0) + 1

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scale = torch.ones(steps, len(lengths)) if cell == "gru" else torch.rand(steps, len(lengths), generator=generator)
    given = {
        "projected": 2 * made(steps, len(lengths), 3 * hidden),
        "scale": scale * (torch.arange(steps)[:, None] < of),
        "w_recurrent": made(hidden, 3 * hidden) * hidden**-0.5,
        "bias_candidate": made(hidden),
    }
    given = {name: part.to(dtype).requires_grad_() for name, part in given.items()}
    return given | {"lengths": of, "cell": "agru" if cell == "agru" else "augru"}


def loop(given: dict[str, Any]) -> Tensor:
    """The states by the reference's own step."""
    projected, w = given["projected"], given["w_recurrent"]
    weights = GruWeights(w, w, w, given["bias_candidate"])
    state, states = projected.new_zeros(projected.shape[1], len(w)), []
    for x, a in zip(projected, given["scale"], strict=True):
        state = step(x, state, weights, given["cell"], a.unsqueeze(-1))
        states.append(state)
    return torch.stack(states)


def with_gradients(given: dict[str, Any], states: Tensor) -> list[Tensor]:
    """The states, and the gradients of a fixed weighing of them; that of a scale past the lengths is nobody's."""
    pull = torch.sin(torch.arange(states.numel(), dtype=states.dtype)).reshape(states.shape)
    found = dict(zip(NAMES[1:], torch.autograd.grad(states, [given[name] for name in NAMES[1:]], pull), strict=True))
    found["scale"] = found["scale"] * (torch.arange(len(states))[:, None] < given["lengths"])
    return [states.detach(), *found.values()]


@cache
def due(size: int, cell: str) -> list[Tensor]:
    """The truth of a size, once for all instruction sets."""
    given = example(size, cell, torch.float64)
    return with_gradients(given, loop(given))


@pytest.mark.parametrize("cell", ["gru", "augru", "agru"])
@pytest.mark.parametrize("size", range(len(SIZES)), ids=[str(size) for size in SIZES])
def test_states_and_gradients(isa: str, size: int, cell: str) -> None:
    given = example(size, cell)
    states = kernels.scan(**given, backend="native")
    for name, got, truth in zip(NAMES, with_gradients(given, states), due(size, cell), strict=True):
        assert got.shape == truth.shape, name
        tolerance = 2e-6 if name == "states" else 1e-5 * max(1.0, float(truth.abs().max()) if truth.numel() else 0)
        assert bool(torch.isfinite(got).all()), name
        assert not got.numel() or float((got - truth).abs().max()) <= tolerance, name
    with torch.no_grad():
        assert torch.equal(kernels.scan(**given, backend="native"), states)


@pytest.mark.parametrize("cell", ["augru", "agru"])
def test_the_walk_of_torch_is_the_same(cell: str) -> None:
    """In float64, and without a bias within where there is none."""
    for size in range(len(SIZES)):
        given = example(size, cell, torch.float64)
        got = with_gradients(given, kernels.scan(**given, backend="reference"))
        for name, one, truth in zip(NAMES, got, due(size, cell), strict=True):
            torch.testing.assert_close(one, truth, rtol=1e-9, atol=1e-11, msg=name)


def test_no_inner_bias_is_one_of_zeros(isa: str) -> None:
    given = example(4, "augru")
    with torch.no_grad():
        given["bias_candidate"].zero_()
    zeros = kernels.scan(**given, backend="native")
    without = kernels.scan(**given | {"bias_candidate": None}, backend="native")
    assert torch.equal(without, zeros)
    wanted = given["projected"], given["w_recurrent"]
    for one, other in zip(*(torch.autograd.grad(each.sum(), wanted) for each in (without, zeros)), strict=True):
        assert torch.equal(one, other)


def test_a_row_does_not_depend_on_its_neighbours_nor_on_strides(isa: str) -> None:
    given = example(5, "augru")
    states = kernels.scan(**given, backend="native")
    alone = {name: given[name][:, 7:8] for name in ("projected", "scale")} | {"lengths": given["lengths"][7:8]}
    assert torch.equal(kernels.scan(**given | alone, backend="native"), states[:, 7:8])
    turned = {
        name: given[name].detach().transpose(0, 1).contiguous().transpose(0, 1) for name in ("projected", "scale")
    }
    assert not turned["projected"].is_contiguous()
    assert torch.equal(kernels.scan(**given | turned, backend="native"), states)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "gru"}, "cell: 'gru' is none of augru, agru"),
        ({"projected": None}, "projected: a tensor, not NoneType"),
        ({"w_recurrent": torch.zeros(3, 8)}, r"w_recurrent: shape \[3, 8\] where \[3, 9\] is due"),
        ({"projected": torch.zeros(5, 63, 8)}, r"projected: shape \[5, 63, 8\] where \[any, any, 9\] is due"),
        ({"scale": torch.zeros(63, 5)}, r"scale: shape \[63, 5\] where \[5, 63\] is due"),
        ({"scale": torch.zeros(5, 63).double()}, "scale: torch.float64 beside torch.float32"),
        ({"bias_candidate": torch.zeros(4)}, r"bias_candidate: shape \[4\] where \[3\] is due"),
        ({"lengths": torch.zeros(62, dtype=torch.int64)}, r"lengths: shape \[63\], not \[62\]"),
        ({"lengths": torch.zeros(63)}, "lengths: int64, not torch.float32"),
        ({"lengths": torch.full((63,), 6)}, "lengths: from 0 to 5, the steps of projected, not 6"),
        ({"lengths": torch.full((63,), -1)}, "lengths: from 0 to 5, the steps of projected, not -1"),
        ({"backend": "triton"}, "backend: 'triton' is none of auto, native, reference"),
    ],
)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_what_breaks_the_contract_is_told(backend: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        kernels.scan(**{"backend": backend} | example(5, "augru") | change)
