"""The native backend, on every instruction set that this CPU has, against the reference in float64."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from kernels import CELLS, GruWeights, KernelInputError, native

ISAS = native.isas() if native.unavailable() is None else ()
PRECISIONS = {"exact": 5e-6, "fast": 2e-3}
SIZES = [
    ([1], 8, 1),
    ([0, 3, 63], 32, 7),
    ([100, 100, 100, 100, 100], 108, 9),
    ([0], 8, 2),
    ([2, 0, 7, 1], 33, 40),
    ([100], 64, 35),
    ([1500, 2], 32, 5),
    ([20], 256, 3),
    ([5, 6, 7], 48, 70),
    ([3], 1, 4),
]
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


def test_the_extension_is_built() -> None:
    """Else all of this module would be skipped, which only a machine without a compiler may do."""
    reason = native.unavailable()
    if reason and not os.environ.get("CI"):
        pytest.skip(reason)
    assert reason is None
    assert native.isa() == native.isas()[-1]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.use_isa(request.param):
        yield request.param


def made(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made_weights(inputs: int, hidden: int, scale: float = 1.0) -> GruWeights:
    shapes = [(inputs, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,), (hidden,)]
    return GruWeights(*(made(*shape, seed=n, scale=scale * hidden**-0.5) for n, shape in enumerate(shapes)))


def double(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


class Case:
    """Users of these lengths, and candidates spread over them out of order."""

    def __init__(self, lengths: list[int], hidden: int, candidates: int, scale: float = 1.0) -> None:
        self.lengths = torch.tensor(lengths)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])
        self.states = torch.tanh(made(sum(lengths), hidden, seed=7))
        self.queries = made(candidates, hidden, seed=8, scale=2 * hidden**-0.5)
        self.user_of = torch.arange(candidates).mul(5).add(1) % len(lengths)
        self.weights = made_weights(hidden, hidden, scale)

    def evolve(self, **options: Any) -> Tensor:
        weights = options.pop("weights", self.weights)
        return kernels.evolve(
            self.states, self.offsets, self.queries, self.user_of, weights, **{"backend": "native"} | options
        )

    def truth(self, **options: Any) -> Tensor:
        weights = GruWeights(*double(*options.pop("weights", self.weights)))
        states, queries = double(self.states, self.queries)
        return kernels.evolve(
            states, self.offsets, queries, self.user_of, weights, **{"backend": "reference"} | options
        )


def assert_near(got: Tensor, truth: Tensor, tolerance: float) -> None:
    assert got.dtype == torch.float32
    assert got.shape == truth.shape
    assert bool(torch.isfinite(got).all())
    if got.numel():
        assert float((got - truth).abs().max()) <= tolerance


@cache
def due(size: int, cell: str) -> Tensor:
    """The truth of a size, once for all instruction sets."""
    return Case(*SIZES[size]).truth(cell=cell)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", range(len(SIZES)), ids=[str(size) for size in SIZES])
def test_evolve(isa: str, size: int, precision: str, cell: str) -> None:
    case = Case(*SIZES[size])
    final = case.evolve(precision=precision, cell=cell, threads=2)
    assert_near(final, due(size, cell), PRECISIONS[precision])
    assert not final[case.lengths[case.user_of] == 0].any()


@cache
def due_states(lengths: tuple[int, ...], hidden: int) -> Tensor:
    weights, inputs = GruWeights(*double(*made_weights(6, hidden))), made(sum(lengths), 6, seed=5).double()
    return kernels.gru(inputs, Case(list(lengths), hidden, 1).offsets, weights, backend="reference")


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("lengths", "hidden", "candidates"), SIZES)
def test_gru(isa: str, lengths: list[int], hidden: int, candidates: int, precision: str, projected: bool) -> None:
    weights, inputs = made_weights(6, hidden), made(sum(lengths), 6, seed=5)
    offsets = Case(lengths, hidden, candidates).offsets
    exact = GruWeights(*double(*weights))
    truth = due_states(tuple(lengths), hidden)
    given = (inputs.double() @ exact.w_input + exact.bias).float() if projected else inputs
    states = kernels.gru(given, offsets, weights, projected=projected, backend="native", precision=precision, threads=2)
    assert_near(states, truth, PRECISIONS[precision])


@pytest.mark.parametrize(("lengths", "hidden", "candidates"), SIZES)
def test_attention(isa: str, lengths: list[int], hidden: int, candidates: int) -> None:
    case = Case(lengths, hidden, candidates)
    shares = kernels.attention(case.states, case.offsets, case.queries, case.user_of, backend="native", threads=2)
    states, queries = double(case.states, case.queries)
    truth = kernels.attention(states, case.offsets, queries, case.user_of, backend="reference")
    assert_near(shares, truth, 2e-6)


GATES = {
    "random and large": lambda weights: weights._replace(w_input=10 * weights.w_input, bias=10 * weights.bias),
    "all open": lambda weights: weights._replace(bias=weights.bias + 40),
    "all shut": lambda weights: weights._replace(bias=weights.bias - 40),
    "far beyond float32": lambda weights: weights._replace(bias=1e6 * weights.bias.sign()),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("gates", GATES)
def test_saturated_gates(isa: str, gates: str, precision: str, cell: str) -> None:
    case = Case([100, 3], 32, 20)
    weights = GATES[gates](case.weights)
    final = case.evolve(weights=weights, cell=cell, precision=precision)
    assert_near(final, case.truth(weights=weights, cell=cell), PRECISIONS[precision])


def with_one(weights: Tensor, value: float) -> Tensor:
    changed = weights.clone()
    changed[3, 5] = value
    return changed


RECURRENT: dict[str, Callable[[Tensor], Tensor]] = {
    "nearly none": lambda weights: 1e-6 * weights,
    "none at all": lambda weights: 0 * weights,
    "three times as large": lambda weights: 3 * weights,
    "one that stands out": lambda weights: with_one(weights, 8.0),
    "one that stands out far": lambda weights: with_one(weights, 300.0),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("hidden", [17, 32, 108])
@pytest.mark.parametrize("size", RECURRENT)
def test_recurrent_weights_of_all_sizes(isa: str, size: str, hidden: int, precision: str, cell: str) -> None:
    """Some kernels scale them."""
    case = Case([4], hidden, 9)
    weights = case.weights._replace(w_recurrent=RECURRENT[size](case.weights.w_recurrent))
    final = case.evolve(weights=weights, cell=cell, precision=precision)
    assert_near(final, case.truth(weights=weights, cell=cell), PRECISIONS[precision])


@pytest.mark.parametrize("cell", ["augru", "agru"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("hidden", [8, 32, 108])
def test_attention_of_zero_leaves_the_state_bit_equal(isa: str, hidden: int, precision: str, cell: str) -> None:
    """The last steps of the first user have an attention of 0; the other user has the first step alone."""
    states = torch.tanh(made(5, hidden, seed=3))
    states[4] = states[0]
    states[:, 0] = torch.tensor([0.9, -0.9, -0.9, -0.9, 0.9])
    queries = torch.zeros(2, hidden)
    queries[:, 0] = 500.0
    offsets, user_of = torch.tensor([0, 4, 5]), torch.tensor([0, 1])
    weights = made_weights(hidden, hidden)
    final = kernels.evolve(states, offsets, queries, user_of, weights, cell=cell, backend="native", precision=precision)
    assert final[0].abs().max() > 1e-2
    assert torch.equal(final[0], final[1])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("hidden", [32, 108])
def test_a_candidate_does_not_depend_on_its_neighbours_nor_on_threads(isa: str, hidden: int, precision: str) -> None:
    case = Case([50, 3, 50, 20], hidden, 83)
    together = case.evolve(precision=precision, threads=1)
    for threads in (2, 3):
        assert torch.equal(case.evolve(precision=precision, threads=threads), together)
    case.queries, case.user_of = case.queries.flip(0), case.user_of.flip(0)
    assert torch.equal(case.evolve(precision=precision).flip(0), together)
    for one in (0, 17, 82):
        alone = Case([50, 3, 50, 20], hidden, 83)
        alone.queries, alone.user_of = alone.queries[one : one + 1], alone.user_of[one : one + 1]
        assert torch.equal(alone.evolve(precision=precision)[0], together[one])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_user_does_not_depend_on_its_neighbours_nor_on_threads(isa: str, precision: str) -> None:
    lengths = [7, 120, 0, 33, 90, 90, 1, 64, 2, 15]
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    inputs, weights = made(int(offsets[-1]), 12), made_weights(12, 40)
    options: dict[str, Any] = {"backend": "native", "precision": precision}
    together = kernels.gru(inputs, offsets, weights, threads=1, **options)
    assert torch.equal(kernels.gru(inputs, offsets, weights, threads=3, **options), together)
    for begin, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        alone = kernels.gru(inputs[begin:end], torch.tensor([0, end - begin]), weights, **options)
        assert torch.equal(alone, together[begin:end])


@pytest.mark.parametrize(("precision", "tolerance"), [("exact", 1.5e-7), ("fast", 6e-4)])
def test_activations(isa: str, precision: str, tolerance: float) -> None:
    """From a state of 0 the first step gives sigmoid(u) * tanh(c): each alone where the other is at its limit."""
    x = torch.linspace(-90, 90, 4001)
    weights = GruWeights(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(3), torch.zeros(1))
    limit = torch.full_like(x, 100.0)
    offsets = torch.arange(len(x) + 1)
    for inputs, truth in [
        (torch.stack([x, limit, limit], dim=1), torch.sigmoid(x.double())),
        (torch.stack([limit, limit, x], dim=1), torch.tanh(x.double())),
    ]:
        got = kernels.gru(inputs, offsets, weights, projected=True, backend="native", precision=precision)
        assert_near(got[:, 0], truth, tolerance)


def test_strides_are_free(isa: str) -> None:
    case = Case([9, 4], 16, 6)
    before = case.evolve()
    for name in ("states", "queries"):
        tensor = getattr(case, name)
        setattr(case, name, torch.stack([tensor, tensor + 1], dim=2)[:, :, 0])
    case.user_of = torch.stack([case.user_of, case.user_of + 9], dim=1)[:, 0]
    case.offsets = case.offsets.repeat_interleave(2)[::2]
    transposed = GruWeights(*(part.t().contiguous().t() if part.dim() == 2 else part for part in case.weights))
    assert not transposed.w_recurrent.is_contiguous()
    assert torch.equal(case.evolve(weights=transposed), before)


def test_what_is_no_number_stays_with_its_candidate(isa: str) -> None:
    case = Case([9, 4], 32, 6)
    before = case.evolve()
    case.queries[3] = float("nan")
    for precision, tolerance in PRECISIONS.items():
        final = case.evolve(precision=precision)
        assert not torch.isfinite(final[3]).all()
        others = torch.arange(6) != 3
        assert_near(final[others], before[others].double(), tolerance)


def test_a_state_that_is_no_number_stays_with_its_user(isa: str) -> None:
    case = Case([9, 4], 32, 6)
    before = case.evolve()
    case.states[11, 7] = float("nan")
    for precision, tolerance in PRECISIONS.items():
        final = case.evolve(precision=precision)
        for c, user in enumerate(case.user_of.tolist()):
            if user == 1:
                assert not torch.isfinite(final[c]).all()
            else:
                assert_near(final[c], before[c].double(), tolerance)


def test_changed_weights_are_seen(isa: str) -> None:
    """Packed weights are kept between calls, by content."""
    case = Case([20], 32, 4)
    before = case.evolve()
    for turn in range(12):
        case.weights.w_recurrent[3, 5] += 1.0
        final = case.evolve()
        assert_near(final, case.truth(), 5e-6)
        assert not torch.equal(final, before), turn


def test_several_callers_at_once(isa: str) -> None:
    cases = [Case([40 + n, 5], 32, 60) for n in range(4)]
    alone = [case.evolve(threads=1) for case in cases]
    wrong: list[int] = []

    def call(which: int) -> None:
        for _ in range(30):
            if not torch.equal(cases[which].evolve(threads=3), alone[which]):
                wrong.append(which)

    callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_callers_at_the_same_time_have_helpers_of_their_own() -> None:
    cases = [Case([50, 3, 200][:users], 32, 40 * users) for users in (1, 2, 3)]
    before = [case.evolve(threads=1) for case in cases]
    with ThreadPoolExecutor(6) as callers:
        runs = [
            (which, callers.submit(cases[which].evolve, threads=1 + n % 4)) for n in range(60) for which in range(3)
        ]
        for which, run in runs:
            assert torch.equal(run.result(), before[which])


def test_a_forked_child_has_helpers_of_its_own(tmp_path: Path) -> None:
    case = Case([80], 32, 64)
    before = case.evolve(threads=2)
    child = os.fork()
    if child == 0:
        try:
            same = torch.equal(case.evolve(threads=2), before)
            (tmp_path / "said").write_text(str(same))
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "said").read_text() == "True"


def test_an_unknown_instruction_set_is_refused() -> None:
    if not ISAS:
        pytest.skip("not built")
    before = native.isa()
    for name in ("", "mmx"):
        with pytest.raises(KernelInputError, match=r"^isa: '.*' is none of baseline|neon"), native.use_isa(name):
            pass
    assert native.isa() == before


def test_peak(isa: str) -> None:
    one = native.fma_peak(1, 100)  # long enough for a round that nobody disturbs
    assert 1e6 < one < 1e13  # a second's; that of a busy machine, built for the sanitizer, is a thousandth of its own
