"""What the tests of the Triton backend share: made-up layers, their truth in float64, outputs that start as NaN."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels import GruWeights, reference

# After 100 steps, against float64.
TOLERANCES = {"exact": 2e-5, "fast": 2e-3}


def made(*shape: int, seed: int = 0, scale: float = 0.4) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made_weights(inputs: int, hidden: int, *, scale: float = 0.7) -> GruWeights:
    shapes = [(inputs, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,), (hidden,)]
    return GruWeights(*(made(*shape, seed=n, scale=scale / hidden**0.5) for n, shape in enumerate(shapes)))


def doubled(weights: GruWeights) -> GruWeights:
    return GruWeights(*(part.double() for part in weights))


@dataclass(frozen=True)
class Ragged:
    """Users with these lengths and candidates that point to them in no order."""

    states: Tensor
    offsets: Tensor
    queries: Tensor
    user_of: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.states, self.offsets, self.queries, self.user_of


def ragged(lengths: list[int], hidden: int, candidates: int = 5) -> Ragged:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    user_of = torch.arange(candidates).mul(5).add(1) % len(lengths)
    return Ragged(made(sum(lengths), hidden, seed=5), offsets, made(candidates, hidden, seed=6), user_of)


def true_evolve(case: Ragged, weights: GruWeights, cell: str) -> Tensor:
    states, offsets, queries, user_of = case.arguments
    truth = (states.double(), offsets, queries.double(), user_of, doubled(weights))
    return reference.evolve(*truth, cell, "exact", 1)


def largest_error(found: Tensor, truth: Tensor) -> float:
    """The largest difference; NaN anywhere is an error without bound."""
    assert found.shape == truth.shape
    assert found.dtype == torch.float32
    difference = (found.double() - truth).abs().nan_to_num(nan=torch.inf)
    return float(difference.max()) if difference.numel() else 0.0


@contextmanager
def empty_is_nan() -> Iterator[None]:
    """Every tensor that is only allocated is NaN (and the largest integer) until somebody writes it."""
    deterministic: Any = torch.utils.deterministic  # its properties have no types
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = before[1]
