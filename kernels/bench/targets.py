"""The ratios that are judged, in the headline case on one thread of torch; they do not change the exit status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kernels.bench.ours import isa_in_use, name
from kernels.bench.rounds import Result, times_faster
from kernels.bench.series import HEADLINE

EAGER, PEERS = "evolve-eager", ("deepctr-torch", "torch-rechub")


@dataclass(frozen=True, slots=True)
class Judged:
    """One ratio: what is due, what the median of the rounds says, and what the best of all rounds."""

    what: str
    target: float
    measured: float | None = None
    best: float | None = None
    reason: str | None = None  # why it was not measured

    @property
    def met(self) -> bool | None:
        """None for what was not measured."""
        return None if self.measured is None else self.measured >= self.target


def judge(results: Sequence[Result], torch_threads: int) -> list[Judged]:
    """All targets, of the results of the headline case; nothing where that was not run as it is to be."""
    found = {
        one.name: one
        for one in results
        if (one.task.size, one.task.operation, one.task.device) == (HEADLINE, "evolve", "cpu")
    }
    if torch_threads != 1 or len(found) < 2 or not all(one.correct is not False for one in found.values()):
        return []
    isa = isa_in_use() or "baseline"
    exact, fast, two = name("exact", isa), name("fast", isa), name("exact", isa, 2)
    return [
        _faster(found, exact, EAGER, 5.0),
        *(_faster(found, exact, peer, 30.0) for peer in PEERS),
        _share(found, exact, 0.6),
        _faster(found, fast, exact, 1.4),
        _faster(found, name("exact", "avx2"), EAGER, 3.0),
        _faster(found, two, exact, 1.8),
    ]


def _faster(found: Mapping[str, Result], one: str, other: str, target: float) -> Judged:
    what = f"times that {one} is faster than {other}"
    return _judged(found, (one, other), what, target, times_faster)


def _share(found: Mapping[str, Result], one: str, target: float) -> Judged:
    what = f"{one}, share of this machine's float32 FMA peak, recurrent product alone"
    return _judged(found, (one,), what, target, lambda mine: mine.shares())


def _judged(
    found: Mapping[str, Result],
    names: Sequence[str],
    what: str,
    target: float,
    ratio: Callable[..., tuple[float, float] | None],
) -> Judged:
    for each in names:
        if each not in found:
            return Judged(what, target, reason=f"{each} was not asked for")
        if found[each].reason is not None:
            return Judged(what, target, reason=f"{each}: {found[each].reason}")
    both = ratio(*(found[each] for each in names))
    return Judged(what, target, reason="no peak was measured") if both is None else Judged(what, target, *both)
