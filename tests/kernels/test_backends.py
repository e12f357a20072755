"""Which body computes: the choice follows its rule, is said where it costs, and replaces nothing that was asked for."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import kernels
from kernels import BackendUnavailableError, GruWeights, KernelInputError, backends, native, triton

ROOT = Path(__file__).resolve().parents[2]
needs_native = pytest.mark.skipif(native.unavailable() is not None, reason=f"native: {native.unavailable()}")


def case(dtype: torch.dtype = torch.float32, device: str = "cpu") -> dict[str, Any]:
    """Two users with four behaviours, three candidates."""

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(*shape, dtype=dtype, device=device)

    return {
        "states": ones(4, 3),
        "offsets": torch.tensor([0, 1, 4], device=device),
        "queries": ones(3, 3),
        "user_of": torch.tensor([0, 1, 1], device=device),
        "weights": GruWeights(ones(3, 9), ones(3, 9), ones(9), ones(3)),
    }


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in an installation whose extension was not built; what was chosen before and within is forgotten."""

    def forget() -> None:
        backends._resolved.cache_clear()
        backends._warn_once.cache_clear()

    forget()
    monkeypatch.setattr(native, "unavailable", lambda: "it was not built")
    yield
    forget()


def test_the_reference_runs_wherever_torch_does() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert kernels.resolve_backend("reference", "cpu", dtype) == "reference"
        assert kernels.evolve(**case(dtype), backend="reference").dtype == dtype
    assert kernels.resolve_backend("reference", "mps") == "reference"


@needs_native
def test_auto_on_the_cpu_is_native_for_float32_and_reference_for_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    assert kernels.resolve_backend("auto") == kernels.resolve_backend("native") == "native"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert kernels.resolve_backend("auto", "cpu", dtype) == "reference"
        assert kernels.evolve(**case(dtype)).dtype == dtype
    assert not caplog.records


def test_auto_elsewhere_is_the_reference() -> None:
    assert kernels.resolve_backend("auto", "mps") == "reference"
    if not torch.cuda.is_available():
        assert kernels.resolve_backend("auto", "cuda", torch.float64) == "reference"


@needs_native
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_native_says_what_it_does_not_take(dtype: torch.dtype) -> None:
    with pytest.raises(
        KernelInputError, match=rf"^backend: 'native' computes torch\.float32 on cpu, not {dtype} on cpu"
    ):
        kernels.evolve(**case(dtype), backend="native")
    with pytest.raises(KernelInputError, match=r"^backend: 'native' .* not torch\.float32 on cuda"):
        kernels.resolve_backend("native", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="triton can run on this machine")
def test_a_backend_that_cannot_run_is_not_replaced() -> None:
    with pytest.raises(BackendUnavailableError, match=r"'triton' cannot run here: ."):
        kernels.evolve(**case(), backend="triton")
    with pytest.raises(BackendUnavailableError, match=r"'triton' cannot run here: ."):
        kernels.resolve_backend("triton")


def test_native_that_is_not_built_is_not_replaced_when_asked_for(without_native: None) -> None:
    with pytest.raises(BackendUnavailableError, match="'native' cannot run here: it was not built"):
        kernels.evolve(**case(), backend="native")
    with pytest.raises(BackendUnavailableError, match="'native' cannot run here: it was not built"):
        kernels.describe_backend("native")


def test_auto_says_once_that_the_reference_has_to_do(without_native: None, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert torch.equal(kernels.evolve(**case()), kernels.evolve(**case(), backend="reference"))
    assert kernels.resolve_backend("auto") == "reference"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("augur.kernels", logging.WARNING)
    assert "'native' cannot run here: it was not built; on cpu the slower reference" in record.getMessage()


def test_a_hidden_size_that_triton_does_not_take(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine with a GPU: asked by name it is refused, and auto takes the reference and says so."""
    monkeypatch.setattr(triton, "unavailable", lambda: None)
    assert kernels.resolve_backend("auto", "cuda", torch.float32, 128) == "triton"
    with pytest.raises(KernelInputError, match=r"^backend: 'triton' takes hidden sizes up to 128, not 129"):
        kernels.resolve_backend("triton", "cuda", torch.float32, 129)
    backends._warn_once.cache_clear()
    assert kernels.resolve_backend("auto", "cuda", torch.float32, 129) == "reference"
    assert "not 129; on cuda the slower reference" in caplog.records[0].getMessage()


@pytest.mark.parametrize("ask", [kernels.resolve_backend, kernels.describe_backend])
def test_a_name_that_is_none(ask: Callable[[str], str]) -> None:
    with pytest.raises(KernelInputError, match=r"^backend: 'numpy' is none of"):
        ask("numpy")


def test_backends_in_words() -> None:
    assert kernels.describe_backend("reference") == "reference"
    with pytest.raises(KernelInputError, match=r"^backend: 'auto' is none of reference, native, triton"):
        kernels.describe_backend("auto")


@needs_native
def test_native_tells_its_instruction_set() -> None:
    for isa in native.isas():
        with native.use_isa(isa):
            assert kernels.describe_backend("native") == f"native {isa}"


def test_importing_the_kernels_does_not_import_triton() -> None:
    program = "import sys, kernels; kernels.resolve_backend('auto'); print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
