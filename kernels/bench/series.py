"""Which cases are run, and by whom."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

from kernels.bench import gpu, heads, ours, peers, torch_loops
from kernels.bench.case import Size
from kernels.bench.contender import Contender
from kernels.bench.rounds import Task

HEADLINE = Size(users=1, candidates=200, steps=100, hidden=32)
STATES_USERS = 64
HEAD_REQUESTS = 10
AXES = {
    "candidates": (1, 20, 200, 2048),
    "steps": (20, 50, 100, 500),
    "users": (1, 4, 16, 64),
    "hidden": (32, 64, 108),
}
GROWING, GROWING_ON_GPU = "evolve-eager", ("gpu-evolve-eager", "triton-exact", "triton-fast")
CASES = ("default", "headline", "growth", "all")


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asks for."""

    size: Size = HEADLINE
    cases: str = "default"
    threads: int = 1
    compiling: bool = False
    isas: tuple[str, ...] = ours.ISAS
    patterns: tuple[str, ...] = ("*",)

    def kept(self, contenders: Mapping[str, Contender]) -> dict[str, Contender]:
        """Those whose name a pattern fits."""
        return {
            name: each
            for name, each in contenders.items()
            if any(fnmatchcase(name, pattern) for pattern in self.patterns)
        }

    def counts_of_threads(self) -> list[int]:
        """1, 2, 4, ... up to the processor's cores, and the number asked for; 2 in any case."""
        doubled = [1 << n for n in range((os.cpu_count() or 1).bit_length()) if 1 << n <= (os.cpu_count() or 1)]
        return sorted({2, self.threads, *doubled})


def tasks(choice: Choice) -> list[Task]:
    """Every case with its contenders; none twice."""
    wanted = [*_headline(choice)] if choice.cases != "growth" else []
    if choice.cases in ("default", "growth"):
        wanted += [*_states(choice), *_growth(choice, axis_sizes(choice.size))]
    if choice.cases == "all":
        wanted += [*_states(choice), *_growth(choice, [*axis_sizes(choice.size), *grid()])]
    if choice.cases in ("default", "all"):
        wanted += _heads(choice)
    found: dict[tuple[str, str, Size], Task] = {}
    for task in wanted:
        found.setdefault((task.operation, task.device, task.size), task)
    return [task for task in found.values() if task.contenders]


def axis_sizes(base: Size) -> list[Size]:
    """One axis at a time, the others as in `base`."""
    return [base._replace(**{axis: value}) for axis in AXES for value in axis_values(axis, base)]


def axis_values(axis: str, base: Size) -> list[int]:
    """The values of an axis, with that of `base`."""
    return sorted({*AXES[axis], getattr(base, axis)})


def grid() -> list[Size]:
    """One user by all candidates, steps and hidden sizes; 64 users of 200 candidates by the hidden sizes."""
    every = product((1,), AXES["candidates"], AXES["steps"], AXES["hidden"])
    return [*(Size(*one) for one in every), *(Size(64, 200, 100, hidden) for hidden in AXES["hidden"])]


def _headline(choice: Choice) -> Iterable[Task]:
    """All contenders."""
    on_cpu = torch_loops.evolve_contenders(choice.compiling) | peers.contenders()
    on_cpu |= ours.evolve_contenders(choice.isas, choice.counts_of_threads())
    on_gpu = choice.kept(gpu.evolve_contenders(choice.compiling))
    if gpu.no_gpu():  # listed with the others, each with its reason
        yield Task(choice.size, choice.kept(on_cpu) | on_gpu)
    else:
        yield Task(choice.size, choice.kept(on_cpu))
        yield Task(choice.size, on_gpu, device="cuda")


def _states(choice: Choice) -> Iterable[Task]:
    """Interest states of many users, where `torch.nn.GRU` is the same work."""
    size, operation = choice.size._replace(users=STATES_USERS, candidates=1), "gru"
    contenders = torch_loops.gru_contenders() | ours.gru_contenders(_in_use(choice), ())
    yield Task(size, choice.kept(contenders), operation)
    if not gpu.no_gpu():
        yield Task(size, choice.kept(gpu.gru_contenders()), operation, device="cuda")


def _heads(choice: Choice) -> Iterable[Task]:
    """One request, and several."""
    for users in (1, HEAD_REQUESTS):
        yield Task(choice.size._replace(users=users), choice.kept(heads.contenders(choice.isas)), "head")


def _growth(choice: Choice, sizes: Iterable[Size]) -> Iterable[Task]:
    """The fastest of ours, and eager torch beside it."""
    eager = torch_loops.evolve_contenders(False)[GROWING]
    on_cpu = choice.kept({GROWING: eager} | ours.evolve_contenders(_in_use(choice), ()))
    on_gpu = choice.kept({name: gpu.evolve_contenders(False)[name] for name in GROWING_ON_GPU})
    for size in sizes:
        yield Task(size, on_cpu)
        if not gpu.no_gpu():
            yield Task(size, on_gpu, device="cuda")


def _in_use(choice: Choice) -> tuple[str, ...]:
    """The instruction set in use, where it was asked for."""
    in_use = ours.isa_in_use()
    return tuple(isa for isa in choice.isas if isa == in_use)
