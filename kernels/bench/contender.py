"""What is timed: how it is made ready, what is due of it, and how close it must come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from kernels.bench.case import Case, evolution

# Largest error against float64 that each arithmetic promises; float32 in torch is held to what ours is.
NATIVE_EXACT = 5e-6
TRITON_EXACT = 2e-5
FAST = 2e-3


class CannotRunError(Exception):
    """Why a contender cannot run here; it is listed with this reason."""


def refused(what: str, error: Exception) -> CannotRunError:
    """The start of what another program said, in one line."""
    return CannotRunError(f"{what}: {' '.join(str(error).split())[:160]}")


class Prepared(NamedTuple):
    """A contender with all at hand that its caller would have."""

    call: Callable[[], Tensor]  # what is timed; one row for each candidate, or for each behaviour
    checked: Callable[[], Tensor] | None = None  # what is held to the truth, where it is not what `call` gives
    around: Callable[[], AbstractContextManager[object]] = nullcontext  # entered around checks and timed calls


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to time. `prepare` raises CannotRunError where it cannot run."""

    prepare: Callable[[Case], Prepared]
    meaning: str
    due: Callable[[Case], Tensor] = evolution
    tolerance: float = NATIVE_EXACT
    threads: int | None = None  # of its own; torch's where None
    isa: str | None = None
    precision: str | None = None
    ours: bool = False  # counts towards the share of the machine's peak


def cannot_run(reason: str) -> Callable[[Case], Prepared]:
    """`prepare` of a contender that cannot run here."""

    def prepare(case: Case) -> Prepared:
        raise CannotRunError(reason)

    return prepare
