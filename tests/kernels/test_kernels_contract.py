"""What the kernels refuse: the message names the argument, and a backend that cannot run is never replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from kernels import BackendUnavailableError, GruWeights, KernelInputError

N, H, C = 4, 3, 5


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
    (torch.tensor([0, 3, 2, N]), "^offsets: never falling"),
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
    ("w_input", torch.full((H, 3 * H), float("inf")), "every value finite"),
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
        ({"inputs": torch.ones(N)}, r"^inputs: two dimensions \[N, I\], not 1"),
        ({"inputs": torch.ones(N, H), "projected": True}, r"^inputs: shape \[4, 3\] where \[any, 9\] is due"),
        ({"inputs": torch.ones(N, H, dtype=torch.float64)}, r"^weights\.w_recurrent: torch\.float32 beside"),
        ({"precision": "rough"}, "^precision: 'rough' is none of exact, fast"),
        ({"backend": "cuda"}, "^backend: 'cuda' is none of auto, reference, native, triton"),
    ],
)
def test_gru_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        gru(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"states": torch.ones(N, H, dtype=torch.int64)}, "^states: floating point"),
        ({"states": torch.ones(N, H, 1)}, r"^states: two dimensions \[N, H\], not 3"),
        ({"queries": torch.ones(C, H + 1)}, r"^queries: shape \[5, 4\] where \[any, 3\] is due"),
        ({"queries": torch.ones(C, H, dtype=torch.float64)}, r"^queries: torch\.float64 beside torch\.float32"),
        ({"queries": torch.ones(C, H, device="meta")}, "^queries: on meta beside cpu"),
        ({"user_of": torch.zeros(C)}, r"^user_of: int64, not torch\.float32"),
        ({"user_of": torch.zeros(C - 1, dtype=torch.int64)}, r"^user_of: shape \[5\], not \[4\]"),
        ({"user_of": torch.zeros(C, 1, dtype=torch.int64)}, r"^user_of: shape \[5\], not \[5, 1\]"),
        ({"user_of": torch.tensor([0, 1, 2, 0, 0])}, "^user_of: from 0 to 1, the users of offsets"),
        ({"user_of": torch.tensor([0, 1, -1, 0, 0])}, "^user_of: from 0 to 1, the users of offsets"),
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


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_backend_that_cannot_run_is_not_replaced(backend: str) -> None:
    for call in (gru, attention, evolve):
        with pytest.raises(BackendUnavailableError, match=f"'{backend}'"):
            call(backend=backend)
    with pytest.raises(BackendUnavailableError, match=f"'{backend}'"):
        kernels.resolve_backend(backend)


def test_backends_that_run_here() -> None:
    assert kernels.resolve_backend("reference") == kernels.resolve_backend("auto") == "reference"
    assert torch.equal(gru(backend="reference", precision="fast"), gru())
    with pytest.raises(KernelInputError, match=r"^backend: 'numpy'"):
        kernels.resolve_backend("numpy")
