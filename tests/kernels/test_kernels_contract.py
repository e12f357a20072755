"""What the kernels refuse: the message names the argument, and a backend that cannot run is never replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from kernels import GruWeights, KernelInputError, native

N, H, C = 4, 3, 5
needs_native = pytest.mark.skipif(native.unavailable() is not None, reason=f"native: {native.unavailable()}")


def weights(**other: Tensor) -> GruWeights:
    own = GruWeights(torch.ones(H, 3 * H), torch.ones(H, 3 * H), torch.ones(3 * H), torch.ones(H))
    return own._replace(**other)


def gru(**other: Any) -> Tensor:
    own: dict[str, Any] = {"inputs": torch.ones(N, H), "offsets": torch.tensor([0, 1, N]), "weights": weights()}
    return kernels.gru(**own | other)


def attended() -> dict[str, Any]:
    return {
        "states": torch.ones(N, H),
        "offsets": torch.tensor([0, 1, N]),
        "queries": torch.ones(C, H),
        "user_of": torch.tensor([0, 1, 1, 0, 1]),
    }


def attention(**other: Any) -> Tensor:
    return kernels.attention(**attended() | other)


def evolve(**other: Any) -> Tensor:
    return kernels.evolve(**attended() | {"weights": weights()} | other)


def test_the_package_is_ours() -> None:
    """A public package has the same name."""
    assert Path(kernels.__file__ or "").resolve() == Path(__file__).resolve().parents[2] / "kernels" / "__init__.py"


def test_the_defaults_used_below_are_accepted() -> None:
    assert gru().shape == (N, H)
    assert gru(inputs=torch.ones(N, 3 * H), projected=True).shape == (N, H)
    assert attention().shape == (C, 3)
    assert evolve().shape == (C, H)


BAD_OFFSETS: list[tuple[Tensor, str]] = [
    (torch.tensor([0, 1, N], dtype=torch.int32), r"^offsets: int64, not torch\.int32"),
    (torch.tensor([[0, N]]), r"^offsets: shape \[U \+ 1\], not \[1, 2\]"),
    (torch.empty(0, dtype=torch.int64), r"^offsets: shape \[U \+ 1\], not \[0\]"),
    (torch.tensor([1, N]), "^offsets: from 0 to the 4 behaviours, not 1 to 4"),
    (torch.tensor([0, N - 1]), "^offsets: from 0 to the 4 behaviours, not 0 to 3"),
    (torch.tensor([0, N + 1]), "^offsets: from 0 to the 4 behaviours, not 0 to 5"),
    (torch.tensor([0]), "^offsets: from 0 to the 4 behaviours, not 0 to 0"),
    (torch.tensor([0, 3, 2, N]), "^offsets: never falling, but 2 follows 3"),
    (torch.tensor([0, 9, N]), "^offsets: never falling, but 4 follows 9"),
    (torch.tensor([0, -1, N]), "^offsets: never falling, but -1 follows 0"),
    (torch.tensor([0, 2**62, -(2**62), N]), "^offsets: never falling"),
    (torch.tensor([0, 0, 0, N])[::3].to_sparse(), r"^offsets: a dense tensor, not torch\.sparse_coo"),
    (torch.tensor([0, N], device="meta"), "^offsets: on meta beside cpu"),
]


@pytest.mark.parametrize(("offsets", "message"), BAD_OFFSETS)
@pytest.mark.parametrize("call", [gru, attention, evolve])
def test_offsets(call: Callable[..., Tensor], offsets: Tensor, message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        call(offsets=offsets)


BAD_WEIGHTS: list[tuple[str, Tensor, str]] = [
    ("w_recurrent", torch.ones(9), "two dimensions"),
    ("w_recurrent", torch.ones(H, 3 * H + 1), r"shape \[3, 10\] where \[3, 9\] is due"),
    ("w_recurrent", torch.ones(H, 3 * H, device="meta"), "on meta beside cpu"),
    ("w_input", torch.ones(H + 1, 3 * H), r"shape \[4, 9\] where \[3, 9\] is due"),
    ("w_input", torch.ones(H, 3 * H - 1), r"shape \[3, 8\] where \[3, 9\] is due"),
    ("w_input", torch.ones(H, 3 * H, 1), r"shape \[3, 9, 1\]"),
    ("bias", torch.ones(H), r"shape \[3\] where \[9\] is due"),
    ("bias", torch.ones(3 * H, dtype=torch.float64), r"torch\.float64 beside torch\.float32"),
    ("bias_candidate", torch.ones(H + 1), r"shape \[4\] where \[3\] is due"),
    ("bias_candidate", torch.full((H,), float("nan")), "every value finite"),
    ("w_input", torch.full((H, 3 * H), float("inf")), "every value finite, not inf"),
    (
        "w_recurrent",
        torch.ones(H, 3 * H).index_fill_(1, torch.tensor([8]), float("-inf")),
        "every value finite, not -inf",
    ),
    (
        "bias",
        torch.cat([torch.tensor([float("inf"), -float("inf")]), torch.ones(3 * H - 2)]),
        "every value finite, not inf",
    ),
    ("w_recurrent", torch.ones(0, 0), "hidden from 1 to 16384, not 0"),
    ("w_recurrent", torch.ones(1, 1).expand(16385, 3 * 16385), "hidden from 1 to 16384, not 16385"),
    ("w_recurrent", torch.ones(H, 3 * H).to_sparse(), "a dense tensor, not torch.sparse_coo"),
]


@pytest.mark.parametrize(("name", "tensor", "message"), BAD_WEIGHTS)
@pytest.mark.parametrize("call", [gru, evolve])
def test_weights(call: Callable[..., Tensor], name: str, tensor: Tensor, message: str) -> None:
    with pytest.raises(KernelInputError, match=rf"^weights\.{name}: {message}"):
        call(weights=weights(**{name: tensor}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": torch.ones(N, H, dtype=torch.int64)}, r"^inputs: floating point, not torch\.int64"),
        ({"inputs": torch.ones(N, H, dtype=torch.complex64)}, r"^inputs: floating point, not torch\.complex64"),
        (
            {"inputs": torch.ones(N, H).to(torch.float8_e4m3fn)},
            r"^inputs: floating point of 16, 32 or 64 bits, not torch\.float8_e4m3fn",
        ),
        ({"inputs": torch.ones(N, H).to_sparse()}, r"^inputs: a dense tensor, not torch\.sparse_coo"),
        ({"inputs": torch.ones(N)}, r"^inputs: two dimensions \[N, I\], not 1"),
        (
            {"inputs": torch.ones(N, 0), "weights": weights(w_input=torch.ones(0, 3 * H))},
            r"^weights\.w_input: inputs from 1 to 16384, not 0",
        ),
        ({"inputs": [[1.0] * H] * N}, "^inputs: a tensor, not list"),
        ({"weights": tuple(weights())}, "^weights: GruWeights, not tuple"),
        ({"weights": GruWeights(*weights()[:3], "b")}, r"^weights\.bias_candidate: a tensor, not str"),  # type: ignore[arg-type]
        ({"inputs": torch.ones(N, H), "projected": True}, r"^inputs: shape \[4, 3\] where \[any, 9\] is due"),
        ({"inputs": torch.ones(N, H, dtype=torch.float64)}, r"^weights\.w_recurrent: torch\.float32 beside"),
        ({"precision": "rough"}, "^precision: 'rough' is none of exact, fast"),
        ({"backend": "cuda"}, "^backend: 'cuda' is none of auto, reference, native, triton"),
        ({"threads": 0}, "^threads: from 1 to 1024, or None, not 0"),
        ({"threads": 1025}, "^threads: from 1 to 1024, or None, not 1025"),
    ],
)
def test_gru_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        gru(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"states": torch.ones(N, H, dtype=torch.int64)}, "^states: floating point"),
        (
            {"states": torch.ones(N, 0), "queries": torch.ones(C, 0)},
            "^states: hidden from 1 to 16384, not 0",
        ),
        ({"states": torch.ones(N, H, 1)}, r"^states: two dimensions \[N, H\], not 3"),
        ({"queries": torch.ones(C, H + 1)}, r"^queries: shape \[5, 4\] where \[any, 3\] is due"),
        ({"queries": torch.ones(C, H, dtype=torch.float64)}, r"^queries: torch\.float64 beside torch\.float32"),
        ({"queries": torch.ones(C, H, device="meta")}, "^queries: on meta beside cpu"),
        ({"user_of": torch.zeros(C)}, r"^user_of: int64, not torch\.float32"),
        ({"user_of": torch.zeros(C - 1, dtype=torch.int64)}, r"^user_of: shape \[5\], not \[4\]"),
        ({"user_of": torch.zeros(C, 1, dtype=torch.int64)}, r"^user_of: shape \[5\], not \[5, 1\]"),
        ({"user_of": torch.tensor([0, 1, 2, 0, 0])}, "^user_of: from 0 to 1, the users of offsets, not 2"),
        ({"user_of": torch.tensor([0, 1, -1, 0, 0])}, "^user_of: from 0 to 1, the users of offsets, not -1"),
        (
            {"user_of": torch.full((C,), -(2**63))},
            "^user_of: from 0 to 1, the users of offsets, not -9223372036854775808",
        ),
        (
            {"user_of": torch.zeros(C, dtype=torch.int64).to_sparse()},
            r"^user_of: a dense tensor, not torch\.sparse_coo",
        ),
        (
            {"states": torch.ones(0, H), "offsets": torch.tensor([0])},
            "^user_of: there are no users, and 5 candidates",
        ),
        ({"threads": -1}, "^threads: from 1 to 1024, or None, not -1"),
        ({"user_of": torch.zeros(C, dtype=torch.int64, device="meta")}, "^user_of: on meta beside cpu"),
        ({"backend": ""}, "^backend: '' is none of"),
    ],
)
@pytest.mark.parametrize("call", [attention, evolve])
def test_attention_arguments(call: Callable[..., Tensor], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        call(**arguments)


def test_evolve_arguments() -> None:
    with pytest.raises(KernelInputError, match=r"^cell: 'gru' is none of augru, agru, aigru"):
        evolve(cell="gru")
    with pytest.raises(KernelInputError, match=r"^precision: 'half' is none of"):
        evolve(precision="half")
    narrow = GruWeights(torch.ones(H, 6), torch.ones(2, 6), torch.ones(6), torch.ones(2))
    with pytest.raises(KernelInputError, match=r"^weights: hidden 2 where states have 3"):
        evolve(weights=narrow)


def test_a_gradient_is_refused_rather_than_lost() -> None:
    """A tensor that requires one is no obstacle where none is recorded."""
    learnt = weights(bias=torch.ones(3 * H, requires_grad=True))
    for call in (gru, evolve):
        with pytest.raises(KernelInputError, match=r"^weights\.bias: requires a gradient, and the kernels have none"):
            call(weights=learnt)
    states = torch.ones(N, H, requires_grad=True)
    for call in (attention, evolve):
        with pytest.raises(KernelInputError, match=r"^states: requires a gradient"):
            call(states=states)
    with torch.no_grad():
        assert not gru(weights=learnt).requires_grad
        assert not attention(states=states).requires_grad
    with torch.inference_mode():
        assert not evolve(states=states, weights=learnt).requires_grad


def test_a_large_finite_weight_is_accepted() -> None:
    """Even when the sum of all overflows."""
    large = torch.full((H, 3 * H), 1e38)
    assert gru(inputs=torch.zeros(N, H), weights=weights(w_input=large)).isfinite().all()


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
def test_strides_are_free(backend: str) -> None:
    """Transposed, sliced, reversed in memory or expanded: the same numbers as of a contiguous copy."""
    wide = torch.randn(2 * N, 2 * H, generator=torch.Generator().manual_seed(0))
    states, queries = wide[::2, ::2], wide[:1, :H].expand(C, H)
    offsets = torch.tensor([0, 9, 1, 9, N])[::2]
    user_of = torch.tensor([[0, 7], [1, 7], [1, 7], [0, 7], [1, 7]])[:, 0]
    own = GruWeights(
        wide.T.repeat(1, 2)[:H, ::2][:, :1].expand(H, 3 * H), wide[:, :H].repeat(2, 1)[: 3 * H].T, *weights()[2:]
    )
    own = own._replace(bias=wide.flatten()[: 6 * H : 2])
    assert not any(each.is_contiguous() for each in (states, queries, offsets, user_of, *own[:3]))

    got = evolve(states=states, offsets=offsets, queries=queries, user_of=user_of, weights=own, backend=backend)
    plain = {
        "offsets": offsets.clone(),
        "weights": GruWeights(*(part.contiguous() for part in own)),
        "backend": backend,
    }
    due = evolve(states=states.contiguous(), queries=queries.contiguous(), user_of=user_of.contiguous(), **plain)
    assert torch.equal(got, due)
    got = gru(inputs=states, offsets=offsets, weights=own, backend=backend)
    assert torch.equal(got, gru(inputs=states.contiguous(), **plain))
