"""The head: native on every instruction set against the reference in float64, its contract, and as an operator."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from head_parts import WIDTHS, double, made_head, made_inputs
from torch import Tensor, nn

import kernels
from kernels import HeadWeights, KernelInputError, native, reference, triton
from kernels.heads import HeadInputs

ISAS = native.isas() if native.unavailable() is None else ()
needs_native = pytest.mark.skipif(not ISAS, reason=f"native: {native.unavailable()}")
COUNTS = (0, 1, 2, 3, 7, 33, 100)
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.use_isa(request.param):
        yield request.param


def run(given: HeadInputs, weights: HeadWeights, *, backend: str = "native", threads: int = 1) -> Tensor:
    return kernels.head(*given, kernels.prepare_head(weights, backend=backend), threads=threads)


def truth(given: HeadInputs, weights: HeadWeights) -> Tensor:
    return run(double(given), double(weights), backend="reference")


def by_hand(given: HeadInputs, weights: HeadWeights) -> Tensor:
    """One candidate after the other, as the equations have it."""
    logits = []
    for item, request, final in zip(given.item_of, given.request_of, given.final, strict=True):
        x = torch.cat([given.embeddings[item] * given.factors[request], final])
        for number, layer in enumerate(weights.layers):
            s = x @ layer.weight + layer.bias
            if number == 0:
                s = s + given.items[item] + given.requests[request]
            if weights.activation == "prelu":
                x = torch.where(s > 0, s, layer.alpha * s)
            else:
                p = torch.sigmoid((s - layer.mean) * layer.scale)
                x = p * s + (1 - p) * layer.alpha * s
        logits.append(x @ weights.output + weights.output_bias[0])
    return torch.stack(logits)


@pytest.mark.parametrize("activation", ["dice", "prelu"])
def test_the_reference_is_the_equations(activation: str) -> None:
    given, weights = double(made_inputs(9, 5, 8, 12)), double(made_head(5, 8, (12, 7), activation))
    torch.testing.assert_close(truth(given, weights), by_hand(given, weights), rtol=0, atol=1e-13)


@pytest.mark.parametrize("activation", ["dice", "prelu"])
@pytest.mark.parametrize(("embedding", "hidden", "widths"), WIDTHS)
def test_head(isa: str, embedding: int, hidden: int, widths: tuple[int, ...], activation: str) -> None:
    weights = made_head(embedding, hidden, widths, activation)
    for candidates in COUNTS:
        given = made_inputs(candidates, embedding, hidden, widths[0])
        logits = run(given, weights, threads=2)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), truth(given, weights), rtol=2e-6, atol=5e-6)


def test_a_gate_at_its_limits(isa: str) -> None:
    """Sums of any size, and statistics whose deviation is nearly nothing."""
    weights = made_head(5, 8, (40, 7))
    sharp = weights.layers[0]._replace(scale=torch.full((40,), 1e4), mean=torch.zeros(40))
    weights = weights._replace(layers=(sharp, weights.layers[1]))
    given = made_inputs(60, 5, 8, 40)
    for factor in (1e-3, 1e6, 1e30):
        large = given._replace(items=given.items * factor)
        logits, due = run(large, weights), truth(large, weights)
        assert bool(torch.isfinite(logits).all())
        bound = 1e-4 if factor < 1 else 2e-6 * float(due.abs().max())
        torch.testing.assert_close(logits.double(), due, rtol=0, atol=bound)


def test_a_candidate_does_not_depend_on_its_neighbours_nor_on_threads(isa: str) -> None:
    weights, given = made_head(54, 32, (200, 80)), made_inputs(203, 54, 32, 200)
    together = run(given, weights)
    for threads in (2, 3):
        assert torch.equal(run(given, weights, threads=threads), together)
    for begin, end in ((0, 1), (17, 19), (3, 100), (190, 203)):
        part = given._replace(
            item_of=given.item_of[begin:end], request_of=given.request_of[begin:end], final=given.final[begin:end]
        )
        assert torch.equal(run(part, weights), together[begin:end])


def test_what_is_no_number_stays_with_its_candidate(isa: str) -> None:
    for activation in ("dice", "prelu"):
        weights, given = made_head(5, 8, (12, 7), activation), made_inputs(20, 5, 8, 12)
        before = run(given, weights)
        given.final[3, 1] = float("nan")
        after = run(given, weights)
        assert bool(torch.isnan(after[3]))
        others = torch.arange(20) != 3
        assert torch.equal(after[others], before[others])


def test_strides_are_free(isa: str) -> None:
    weights, given = made_head(5, 8, (12, 7)), made_inputs(9, 5, 8, 12)
    before = run(given, weights)
    strided = HeadInputs(*(torch.stack([part, part], dim=-1)[..., 0] for part in given))
    layers = tuple(layer._replace(weight=layer.weight.t().contiguous().t()) for layer in weights.layers)
    assert torch.equal(run(strided, weights._replace(layers=layers)), before)


@needs_native
def test_a_prepared_head_has_weights_of_its_own() -> None:
    weights, given = made_head(5, 8, (12, 7)), made_inputs(9, 5, 8, 12)
    for backend in ("native", "reference"):
        prepared = kernels.prepare_head(weights, backend=backend)
        before = kernels.head(*given, prepared)
        weights.layers[0].weight.add_(1.0)
        assert torch.equal(kernels.head(*given, prepared), before)
        assert not torch.equal(run(given, weights, backend=backend), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_auto_takes_what_there_is(dtype: torch.dtype) -> None:
    weights = HeadWeights.of_flat([part.to(dtype) for part in made_head(5, 8, (12, 7)).flat()], "dice")
    given = HeadInputs(*(part.to(dtype) if part.is_floating_point() else part for part in made_inputs(9, 5, 8, 12)))
    prepared = kernels.prepare_head(weights)
    assert prepared.backend == kernels.resolve_backend("auto", "cpu", dtype)
    assert kernels.head(*given, prepared).dtype == dtype


def test_on_gpus_it_is_torchs() -> None:
    """No kernel of ours is there, which the documentation says."""
    given, weights = made_inputs(9, 5, 8, 12), made_head(5, 8, (12, 7))
    assert triton.pack_head is reference.pack_head
    logits = triton.head(given, weights, None, 1)
    torch.testing.assert_close(logits.double(), truth(given, weights), rtol=2e-6, atol=5e-6)


def layer_with(**parts: Tensor) -> HeadWeights:
    weights = made_head(5, 8, (12, 7))
    return weights._replace(layers=(weights.layers[0]._replace(**parts), weights.layers[1]))


BAD_WEIGHTS: list[tuple[str, Any]] = [
    (r"weights: HeadWeights", None),
    (r"weights.activation: 'relu' is none of dice, prelu", made_head(5, 8, (12, 7))._replace(activation="relu")),
    (r"weights.layers: from 1 to 64, not 0", made_head(5, 8, (12, 7))._replace(layers=())),
    (r"weights.layers\[0\].weight: floating point", layer_with(weight=torch.zeros(13, 12, dtype=torch.int64))),
    (r"weights.layers\[0\].weight: two dimensions", layer_with(weight=torch.zeros(13))),
    (r"weights.layers\[0\].weight: inputs from 1", layer_with(weight=torch.zeros(0, 12))),
    (r"weights.layers\[0\].weight: outputs from 1", layer_with(weight=torch.zeros(13, 0))),
    (r"weights.layers\[0\].bias: shape \[11\]", layer_with(bias=torch.zeros(11))),
    (r"weights.layers\[0\].alpha: torch.float64", layer_with(alpha=torch.zeros(12, dtype=torch.float64))),
    (r"weights.layers\[0\].mean: a tensor", layer_with(mean=None)),  # type: ignore[arg-type]
    (r"weights.layers\[0\].scale: every value finite, not inf", layer_with(scale=torch.full((12,), torch.inf))),
    (
        r"weights.layers\[1\].weight: shape \[12, 7\]",
        layer_with(weight=torch.zeros(13, 9), **{name: torch.zeros(9) for name in ("bias", "alpha", "mean", "scale")}),
    ),
    (r"weights.output: shape \[9\]", made_head(5, 8, (12, 7))._replace(output=torch.zeros(9))),
    (r"weights.output_bias: shape \[2\]", made_head(5, 8, (12, 7))._replace(output_bias=torch.zeros(2))),
]


@pytest.mark.parametrize(("rule", "weights"), BAD_WEIGHTS)
def test_bad_weights_are_refused_when_they_are_made_ready(rule: str, weights: Any) -> None:
    with pytest.raises(KernelInputError, match=rf"^{rule}"):
        kernels.prepare_head(weights)


BAD_INPUTS: list[tuple[str, dict[str, Any]]] = [
    (r"final: shape \[C, H\] with H below 13", {"final": torch.zeros(9, 13)}),
    (r"final: shape \[C, H\]", {"final": torch.zeros(9)}),
    (r"final: torch.float64 beside", {"final": torch.zeros(9, 8, dtype=torch.float64)}),
    (r"items: shape \[50, 11\] where \[any, 12\]", {"items": torch.zeros(50, 11)}),
    (r"embeddings: shape \[49, 5\] where \[50, 5\]", {"embeddings": torch.zeros(49, 5)}),
    (r"requests: shape \[3\] where \[any, 12\]", {"requests": torch.zeros(3)}),
    (r"factors: shape \[3, 6\]", {"factors": torch.zeros(3, 6)}),
    (r"factors: on meta", {"factors": torch.zeros(3, 5, device="meta")}),
    (r"item_of: int64, not torch.int32", {"item_of": torch.zeros(9, dtype=torch.int32)}),
    (r"request_of: shape \[9\], not \[8\]", {"request_of": torch.zeros(8, dtype=torch.int64)}),
    (r"item_of: from 0 to 49, the rows of its tables, not 50", {"item_of": torch.full((9,), 50)}),
    (r"item_of: from 0 to 49, the rows of its tables, not -1", {"item_of": torch.full((9,), -1)}),
    (r"request_of: from 0 to 2, the rows of its tables, not 3", {"request_of": torch.full((9,), 3)}),
    (r"final: requires a gradient", {"final": torch.zeros(9, 8, requires_grad=True)}),
    (r"items: a tensor, not NoneType", {"items": None}),
]


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize(("rule", "change"), BAD_INPUTS)
def test_bad_inputs_are_refused_by_name(backend: str, rule: str, change: dict[str, Any]) -> None:
    with pytest.raises(KernelInputError, match=rf"^{rule}"):
        run(made_inputs(9, 5, 8, 12)._replace(**change), made_head(5, 8, (12, 7)), backend=backend)


def test_bad_options_are_refused() -> None:
    given, weights = made_inputs(9, 5, 8, 12), made_head(5, 8, (12, 7))
    with pytest.raises(KernelInputError, match=r"^backend: 'gpu' is none of"):
        kernels.prepare_head(weights, backend="gpu")
    with pytest.raises(KernelInputError, match=r"^threads: from 1 to"):
        kernels.head(*given, kernels.prepare_head(weights), threads=0)
    with pytest.raises(KernelInputError, match=r"^prepared: what prepare_head gives"):
        kernels.head(*given, weights)  # type: ignore[arg-type]
    with pytest.raises(KernelInputError, match=r"^weights: 5 tensors for each layer"):
        HeadWeights.of_flat(weights.flat()[1:], "dice")


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
def test_it_is_one_operator_in_a_traced_program(backend: str) -> None:
    given, weights = made_inputs(9, 5, 8, 12), made_head(5, 8, (12, 7))
    prepared = kernels.prepare_head(weights, backend=backend)

    class Program(nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return torch.sigmoid(kernels.head(*HeadInputs(*tensors), prepared))

    due = torch.sigmoid(kernels.head(*given, prepared))
    exported = torch.export.export(Program(), tuple(given))
    called = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert called == ["augur.head.default", "aten.sigmoid.default"]
    assert torch.equal(exported.module()(*given), due)
    flat = (*given, weights.flat(), "dice", backend, None)
    torch.library.opcheck(torch.ops.augur.head.default, flat, test_utils=("test_schema", "test_faketensor"))
