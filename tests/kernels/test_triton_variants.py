"""What is launched is what `variants` says: the same constants for the launcher, the warm-up and the compiler."""

import inspect
from typing import Any

import pytest
import torch
from triton_parts import made, made_weights, ragged

import kernels
from kernels import CELLS, BackendUnavailableError, GruWeights, triton
from kernels.contract import PRECISIONS
from kernels.triton import launch, variants

pytest.importorskip("triton", reason="triton is not installed")
TARGETS = ["cuda", "cuda:80", "cuda:86", "cuda:89", "cuda:90", "cuda:100", "hip", "hip:gfx942"]


def listed(hidden: int, precision: str, target: str) -> list[variants.Variant]:
    return list(variants.variants(hidden, precision, target))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("hidden", [8, 32, 64, 108, 128])
def test_variants_describe_their_kernels(hidden: int, target: str) -> None:
    """Every parameter has a type or a constant, in the order of the function; every pointer is said to be aligned."""
    for precision in PRECISIONS:
        found = listed(hidden, precision, target)
        assert len({repr(one) for one in found}) == len(found)
        for one in found:
            parameters = list(inspect.signature(launch.function_of(one).fn).parameters)
            assert list(one.signature) == parameters
            aligned = {parameters[place] for (place,) in one.attributes}
            assert aligned == {name for name, kind in one.signature.items() if kind.startswith("*")}
            assert one.num_warps in (1, 2, 4, 8)


def test_kernels_listed() -> None:
    narrow = {one.kernel for one in listed(32, "exact", "cuda:90")}
    assert narrow == {"project", "scale", "attention", "gru", "evolve"}
    assert {one.kernel for one in listed(108, "exact", "cuda:90")} == narrow | {"split"}
    assert {one.kernel for one in listed(108, "exact", "hip:gfx942")} == narrow


@pytest.mark.parametrize(
    ("target", "hidden", "precision", "storages"),
    [
        ("cuda:90", 32, "exact", {"own"}),
        ("cuda:90", 32, "fast", {"registers", "own"}),
        ("cuda:90", 64, "exact", {"own"}),
        ("cuda:90", 128, "exact", {"shared"}),
        ("cuda:80", 128, "exact", {"memory"}),
        ("cuda:80", 128, "fast", {"shared"}),
        ("cuda:86", 108, "fast", {"memory"}),
        ("hip:gfx942", 128, "exact", {"own"}),
    ],
)
def test_the_weights_are_where_they_fit(target: str, hidden: int, precision: str, storages: set[str]) -> None:
    found = {one.constants["storage"] for one in listed(hidden, precision, target) if one.kernel == "evolve"}
    assert found == storages


@pytest.mark.parametrize("hidden", [16, 108])
def test_warm_up_runs_every_variant_and_calls_meet_no_other(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    met: dict[str, variants.Variant] = {}
    run = launch.run

    def watched(variant: variants.Variant, *arguments: Any) -> None:
        met[repr(variant)] = variant
        run(variant, *arguments)

    monkeypatch.setattr("kernels.triton.run", watched)
    triton.warm_up(hidden, device="cpu", cells=CELLS)
    warm = set(met)
    assert warm == {repr(one) for precision in PRECISIONS for one in listed(hidden, precision, "plain")}
    case, weights = ragged([3, 0, 2], hidden, 18), made_weights(hidden, hidden)
    for precision in PRECISIONS:
        kernels.gru(case.states, case.offsets, weights, backend="triton", precision=precision)
        for cell in CELLS:
            kernels.evolve(*case.arguments, weights, cell=cell, backend="triton", precision=precision)
    kernels.attention(*case.arguments, backend="triton")
    assert set(met) == warm


def test_numbers_do_not_make_variants() -> None:
    """Lengths and counts are arguments that compiled code is not specialised on: a new one compiles nothing."""
    for one in listed(32, "exact", "cuda:90"):
        function = launch.function_of(one)
        numbers = {name for name, kind in one.signature.items() if kind[0] != "*" and kind != "constexpr"}
        assert numbers == set(function.do_not_specialize)
        assert numbers == {parameter.name for parameter in function.params if parameter.annotation_type}


def test_compiled_and_interpreted_functions_live_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for value in ("0", "1"):
        monkeypatch.setenv("TRITON_INTERPRET", value)
        launch.device_code.cache_clear()
        assert isinstance(launch.device_code(False).evolve_kernel, JITFunction)
        assert isinstance(launch.device_code(False).halves, JITFunction)
        assert isinstance(launch.device_code(True).evolve_kernel, InterpretedFunction)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_unavailable_without_a_gpu_or_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert triton.unavailable() == "there is no GPU, and TRITON_INTERPRET is not set"
    weights = GruWeights(made(2, 6), made(2, 6), made(6), made(2))
    with pytest.raises(BackendUnavailableError, match="there is no GPU"):
        kernels.gru(made(1, 2), torch.tensor([0, 1]), weights, backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton.unavailable() is None


def test_unavailable_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert triton.unavailable() == "triton is not installed"
