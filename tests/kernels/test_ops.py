"""The operations as operators of torch.library: kept whole by torch.compile and torch.export, for any sizes."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.exc import TorchRuntimeError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import kernels
from kernels import CELLS, GruWeights, KernelInputError, contract, native

H = 8
NAMES = ("gru", "evolve", "attention")
needs_native = pytest.mark.skipif(native.unavailable() is not None, reason=f"native: {native.unavailable()}")
RUNNING = ["reference", pytest.param("native", marks=needs_native)]
Arguments = tuple[Tensor, ...]  # states [N, H], offsets [U + 1], queries [C, H], user_of [C], weights


def made(lengths: list[int], candidates: int, dtype: torch.dtype = torch.float32) -> Arguments:
    """Random tensors for users of these lengths."""
    generator = torch.Generator().manual_seed(sum(lengths))

    def random(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.4).to(dtype)

    offsets = torch.tensor([0, *lengths]).cumsum(0)
    user_of = torch.arange(candidates) % max(len(lengths), 1)
    weights = random(H, 3 * H), random(H, 3 * H), random(3 * H), random(H)
    return random(sum(lengths), H), offsets, random(candidates, H), user_of, *weights


def operator_call(name: str, given: Arguments, backend: str) -> tuple[Any, tuple[Any, ...]]:
    """An operator with its arguments, as they stand in a traced program."""
    options = {
        "gru": (*given[:2], *given[4:], False, backend, "exact", None),
        "evolve": (*given, "augru", backend, "exact", None),
        "attention": (*given[:4], backend, None),
    }
    return getattr(torch.ops.augur, name).default, options[name]


def scored(
    states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, *weights: Tensor, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """All three, one after the other."""
    own = GruWeights(*weights)
    interests = kernels.gru(states, offsets, own, backend=backend)
    final = kernels.evolve(interests, offsets, queries, user_of, own, backend=backend)
    return final, kernels.attention(interests, offsets, queries, user_of, backend=backend).square().sum(1)


SIZES = [([3, 0, 5], 7), ([4], 2), ([0], 1), ([0, 0], 3), ([], 0), ([2, 1], 0)]


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize(("lengths", "candidates"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str, lengths: list[int], candidates: int, backend: str) -> None:
    operator, arguments = operator_call(name, made(lengths, candidates), backend)
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_fakes_tell_shape_dtype_device_and_strides(name: str, dtype: torch.dtype) -> None:
    operator, arguments = operator_call(name, made([3, 0, 5], 7, dtype), "auto")
    real = operator(*arguments)
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        fake = operator(*(mode.from_tensor(each) if isinstance(each, Tensor) else each for each in arguments))
    assert (fake.dtype, fake.device) == (real.dtype, real.device)
    if name == "attention":  # T is in the data alone
        assert fake.shape[0] == 7
        assert isinstance(fake.shape[1], torch.SymInt)
    else:
        assert (fake.shape, fake.stride()) == (real.shape, real.stride())


@pytest.mark.parametrize("backend", RUNNING)
def test_compile_in_one_graph_for_any_sizes(backend: str) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(scored, fullgraph=True, backend=counting, dynamic=True)
    with torch.inference_mode(), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        # Sizes that are equal in the first call would be taken for one size.
        for lengths, candidates in [([3, 0, 6], 7), ([6, 2], 3), ([2, 3, 4, 9], 30)]:
            arguments = made(lengths, candidates)
            for got, due in zip(
                compiled(*arguments, backend=backend), scored(*arguments, backend=backend), strict=True
            ):
                assert torch.equal(got, due)
    (graph,) = graphs
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert [str(target) for target in targets if "augur" in str(target)] == [f"augur.{name}.default" for name in NAMES]


class Scored(nn.Module):
    """The weights are parameters that training would want a gradient for."""

    def __init__(self, weights: Arguments) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(part) for part in weights])

    def forward(self, states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor) -> tuple[Tensor, Tensor]:
        return scored(states, offsets, queries, user_of, *self.weights)


@pytest.mark.parametrize("strict", [False, True])
def test_export_for_any_sizes(strict: bool) -> None:
    whole = made([3, 0, 5], 7)
    arguments, module = whole[:4], Scored(whole[4:])
    behaviors, cuts, candidates = torch.export.Dim("N"), torch.export.Dim("cuts", min=2), torch.export.Dim("C")
    sizes = {"states": {0: behaviors}, "offsets": {0: cuts}, "queries": {0: candidates}, "user_of": {0: candidates}}
    with torch.no_grad():
        program = torch.export.export(module, arguments, dynamic_shapes=sizes, strict=strict)
        exported = program.module()
        for lengths, count in SIZES[:3]:
            other = made(lengths, count)[:4]
            for got, due in zip(exported(*other), module(*other), strict=True):
                assert torch.equal(got, due)
        with pytest.raises(KernelInputError, match=r"^user_of: from 0 to 2, the users of offsets, not 9"):
            exported(*arguments[:3], torch.tensor([0, 1, 2, 9, 0, 0, 0]))
    targets = [str(node.target) for node in program.graph.nodes if "augur" in str(node.target)]
    assert targets == [f"augur.{name}.default" for name in NAMES]


def test_what_needs_no_data_is_refused_while_tracing() -> None:
    states, offsets, queries, user_of, *parts = made([3, 0, 5], 7)
    own = GruWeights(*parts)
    ran: list[str] = []

    def traced(user_of: Tensor, threads: int) -> Tensor:
        return kernels.evolve(states, offsets, queries, user_of, own, threads=threads)

    def never(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        ran.append("compiled")
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(traced, fullgraph=True, backend=never)
    with torch.inference_mode():
        with pytest.raises(TorchRuntimeError, match=r"user_of: shape \[7\], not \[6\]"):
            compiled(user_of[:6], 1)
        with pytest.raises(TorchRuntimeError, match=r"threads: from 1 to"):
            compiled(user_of, 0)
        assert not ran
        assert compiled(user_of, 1).shape == (7, H)
    assert ran


@pytest.mark.parametrize("name", NAMES)
def test_the_operators_check_what_did_not_come_through_the_door(name: str) -> None:
    """A program that was traced calls them directly."""
    states, offsets, *rest = made([3, 5], 7)
    operator, arguments = operator_call(name, (states, offsets + 1, *rest), "auto")
    with pytest.raises(KernelInputError, match=r"^offsets: from 0 to the 8 behaviours, not 1 to 9"):
        operator(*arguments)
    operator, arguments = operator_call(name, (states[:, :-1], offsets, *rest), "auto")
    with pytest.raises(KernelInputError, match=r"shape \[.*\] where \[.*\] is due"):
        operator(*arguments)
    operator, arguments = operator_call(name, (states, offsets, *rest), "cuda")
    with pytest.raises(KernelInputError, match=r"^backend: 'cuda' is none of"):
        operator(*arguments)


def test_the_number_of_threads_of_torch_is_taken_when_none_is_given() -> None:
    arguments = made([30, 20], 40)
    due = scored(*arguments)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for got, one in zip(scored(*arguments), due, strict=True):
            torch.testing.assert_close(got, one, rtol=0, atol=1e-6)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("name", NAMES)
def test_the_default_dtype_of_torch_means_nothing(name: str, backend: str) -> None:
    operator, arguments = operator_call(name, made([3, 5], 7), backend)
    due = operator(*arguments)
    torch.set_default_dtype(torch.float64)
    try:
        got = operator(*arguments)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    assert torch.equal(got, due)


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_with_its_user_and_its_candidate(value: float, backend: str) -> None:
    """User 1 of four has a bad step, and candidate 2, who is user 2's, a bad query."""
    states, offsets, queries, user_of, *parts = made([3, 5, 0, 20], 24)
    weights = GruWeights(*parts)
    worse_states, worse_queries = states.clone(), queries.clone()
    worse_states[4, 1] = worse_queries[2, 3] = value
    well = ~((user_of == 1) | (torch.arange(24) == 2))
    for operation in (kernels.evolve, kernels.attention):
        others = (weights,) if operation is kernels.evolve else ()
        due, got = (
            operation(*given, *others, backend=backend)
            for given in ((states, offsets, queries, user_of), (worse_states, offsets, worse_queries, user_of))
        )
        assert torch.equal(got[well], due[well])
    due, got = (kernels.gru(given, offsets, weights, backend=backend) for given in (states, worse_states))
    assert torch.equal(got[:4], due[:4])
    assert torch.equal(got[8:], due[8:])


small = st.integers(-2, 9) | st.sampled_from([-(2**63), -(2**31), 2**31, 2**32, 2**62, 2**63 - 1])


def sound(behaviors: int, offsets: list[int], user_of: list[int]) -> bool:
    """The rules, said once more."""
    rising = all(before <= after for before, after in pairwise(offsets))
    cut = offsets[:1] == [0] and offsets[-1:] == [behaviors] and rising
    return cut and all(0 <= user < len(offsets) - 1 for user in user_of)


any_offsets = st.lists(small, min_size=1, max_size=5) | st.lists(st.integers(0, 8), min_size=1, max_size=5).map(sorted)
any_users = st.lists(small, max_size=4) | st.lists(st.integers(0, 3), max_size=4)


@given(
    offsets=any_offsets,
    user_of=any_users,
    weight=st.sampled_from([1.0, 1e38, float("nan"), float("inf"), -float("inf")]),
    behaviors=st.integers(-1, 9) | st.none(),
)
def test_the_one_answer_of_an_accelerator_follows_the_rules(
    offsets: list[int], user_of: list[int], weight: float, behaviors: int | None
) -> None:
    """What is asked of it, asked of the CPU."""
    end = offsets[-1] if behaviors is None else behaviors
    weights = GruWeights(*(torch.full((3,), value) for value in (1.0, 1.0, weight, 1.0)))
    answer = contract._all_well(end, torch.tensor(offsets), torch.tensor(user_of, dtype=torch.int64), weights)
    assert answer == (sound(end, offsets, user_of) and math.isfinite(weight))


@pytest.mark.parametrize("backend", RUNNING)
@given(
    behaviors=st.integers(0, 8),
    offsets=any_offsets,
    user_of=any_users,
    patch=st.booleans(),
    cell=st.sampled_from(CELLS),
)
def test_any_offsets_and_users_are_refused_or_right(
    backend: str, behaviors: int, offsets: list[int], user_of: list[int], patch: bool, cell: str
) -> None:
    """`patch` mends both ends of the offsets, so that what lies between is met."""
    if patch:
        offsets = [0, *offsets[1:-1], behaviors]
    states, _, queries, _, *parts = made([behaviors], len(user_of))
    weights = GruWeights(*parts)
    cuts, users = torch.tensor(offsets), torch.tensor(user_of, dtype=torch.int64)
    calls: list[Callable[[Callable[[Tensor], Tensor], str], Tensor]] = [
        lambda of, by: kernels.gru(of(states), cuts, GruWeights(*map(of, weights)), backend=by),
        lambda of, by: kernels.evolve(
            of(states), cuts, of(queries), users, GruWeights(*map(of, weights)), cell=cell, backend=by
        ),
        lambda of, by: kernels.attention(of(states), cuts, of(queries), users, backend=by),
    ]
    for call, own_users in zip(calls, ([], user_of, user_of), strict=True):
        if sound(behaviors, offsets, own_users):
            truth = call(Tensor.double, "reference")
            torch.testing.assert_close(call(Tensor.clone, backend).double(), truth, rtol=0, atol=5e-6)
        else:
            with pytest.raises(KernelInputError, match=r"^(offsets|user_of): "):
                call(Tensor.clone, backend)
