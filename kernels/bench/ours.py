"""Our own kernels on CPUs, by instruction set, precision and number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product

from torch import Tensor

from kernels import native
from kernels.bench.case import Case, interest_states
from kernels.bench.contender import FAST, NATIVE_EXACT, CannotRunError, Contender, Prepared
from kernels.contract import PRECISIONS
from kernels.ops import evolve, gru

ISAS = ("baseline", "avx2", "avx512", "avx512vnni", "zen4", "amx", "neon")
TOLERANCES = {"exact": NATIVE_EXACT, "fast": FAST}
PEAK_MILLISECONDS = 5.0


def name(precision: str, isa: str, threads: int = 1) -> str:
    """What such a contender is called."""
    return f"native-{precision}-{isa}" + (f"-{threads}t" if threads > 1 else "")


def isa_in_use() -> str | None:
    """The instruction set that is chosen where none is forced; None where the extension cannot run."""
    return None if native.unavailable() else native.isa()


def evolve_contenders(isas: Iterable[str], threads: Iterable[int]) -> dict[str, Contender]:
    """Every instruction set on one thread, the one in use on the other numbers of threads."""
    return {name(*one): _contender(*one) for one in _variants(isas, threads)}


def gru_contenders(isas: Iterable[str], threads: Iterable[int]) -> dict[str, Contender]:
    """Likewise for interest states."""
    return {name(*one): _contender(*one, states=True) for one in _variants(isas, threads)}


def _variants(isas: Iterable[str], threads: Iterable[int]) -> Iterator[tuple[str, str, int]]:
    asked, in_use = tuple(isas), isa_in_use()
    yield from ((precision, isa, 1) for isa, precision in product(asked, PRECISIONS))
    if in_use in asked:
        more = sorted(set(threads) - {1})
        yield from ((precision, in_use, number) for number, precision in product(more, PRECISIONS))


def _contender(precision: str, isa: str, threads: int, states: bool = False) -> Contender:
    number = "one thread" if threads == 1 else f"{threads} threads"
    contender = Contender(
        _prepare(precision, isa, threads, states),
        f"C++, {isa}, {precision}, {number}",
        tolerance=TOLERANCES[precision],
        threads=threads,
        isa=isa,
        precision=precision,
        ours=True,
    )
    return replace(contender, due=interest_states) if states else contender


def _prepare(precision: str, isa: str, threads: int, states: bool) -> Callable[[Case], Prepared]:
    def prepare(case: Case) -> Prepared:
        reason = native.unavailable()
        if reason is None and isa not in native.isas():
            reason = f"this CPU has no {isa}"
        if reason:
            raise CannotRunError(reason)

        def evolved() -> Tensor:
            return evolve(*case, backend="native", precision=precision, threads=threads)

        def stepped() -> Tensor:
            inputs = case.states, case.offsets, case.weights
            return gru(*inputs, backend="native", precision=precision, threads=threads)

        return Prepared(stepped if states else evolved, around=lambda: native.use_isa(isa))

    return prepare


def peak(threads: int) -> float:
    """Float32 multiply-adds per second that this machine does at most, measured now."""
    return native.fma_peak(threads, PEAK_MILLISECONDS)
