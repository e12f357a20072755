"""`python -m kernels.bench`: interest evolution against what else one could run, checked first and then timed.

U users, N behaviours of all users end to end, C candidates, T steps, H hidden.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.contract import GruWeights
from kernels.ops import evolve, gru

TOLERANCE = 5e-6
DEFAULTS = {"users": 1, "candidates": 200, "steps": 100, "hidden": 32, "threads": 1, "repeats": 30}


class Case(NamedTuple):
    """One input for every contender: what `evolve` takes, all users with the same number of steps."""

    states: Tensor  # [N, H]
    offsets: Tensor  # [U + 1]
    queries: Tensor  # [C, H]
    user_of: Tensor  # [C]
    weights: GruWeights

    def copies(self) -> Tensor:
        """Every candidate with its own copy of its user's states: `[C, T, H]`."""
        return self.states.view(len(self.offsets) - 1, -1, self.weights.hidden)[self.user_of]

    def double(self) -> Case:
        """The same in float64."""
        weights = GruWeights(*(each.double() for each in self.weights))
        return self._replace(states=self.states.double(), queries=self.queries.double(), weights=weights)


def random_case(users: int, candidates: int, steps: int, hidden: int) -> Case:
    """`candidates` for each user: states as tanh leaves them, weights as torch starts them."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator) * 2 - 1

    sizes = [(hidden, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,), (hidden,)]
    return Case(
        states=uniform(users * steps, hidden),
        offsets=torch.arange(users + 1) * steps,
        queries=uniform(users * candidates, hidden),
        user_of=torch.arange(users).repeat_interleave(candidates),
        weights=GruWeights(*(uniform(*size) * hidden**-0.5 for size in sizes)),
    )


def shared(case: Case) -> Callable[[], Tensor]:
    """The public operation, its checks at the door included."""
    return lambda: evolve(*case, backend="reference")


def copied(case: Case) -> Callable[[], Tensor]:
    """AUGRU where nothing is shared: a server that knows no users gets a history with each candidate."""
    copies, queries, (w_input, w_recurrent, bias, bias_candidate) = case.copies(), case.queries, case.weights

    def call() -> Tensor:
        attended = torch.softmax(torch.bmm(copies, queries.unsqueeze(2)).squeeze(2), dim=1)  # [C, T]
        x_u, x_r, x_c = (copies @ w_input + bias).chunk(3, dim=2)  # [C, T, H] each
        state = torch.zeros_like(queries)
        for t in range(copies.shape[1]):
            h_u, h_r, h_c = (state @ w_recurrent).chunk(3, dim=1)
            u = attended[:, t : t + 1] * torch.sigmoid(x_u[:, t] + h_u)
            c = torch.tanh(x_c[:, t] + torch.sigmoid(x_r[:, t] + h_r) * (h_c + bias_candidate))
            state = (1 - u) * state + u * c
        return state

    return call


def torch_gru(case: Case) -> Callable[[], Tensor]:
    """`torch.nn.GRU` over the copies. Its gates are in the order r, z, n, and it keeps the old state by z = 1 - u."""
    copies, weights, hidden = case.copies(), case.weights, case.weights.hidden

    def reordered(columns: Tensor) -> Tensor:
        u, r, c = columns.chunk(3, dim=-1)
        return torch.cat([r, -u, c], dim=-1)

    layer = torch.nn.GRU(hidden, hidden, batch_first=True)
    layer.load_state_dict(
        {
            "weight_ih_l0": reordered(weights.w_input).T,
            "weight_hh_l0": reordered(weights.w_recurrent).T,
            "bias_ih_l0": reordered(weights.bias),
            "bias_hh_l0": torch.cat([torch.zeros(2 * hidden), weights.bias_candidate]),
        }
    )
    return lambda: layer(copies)[1].squeeze(0)


def evolution(case: Case) -> Tensor:
    """What is due of AUGRU: the reference in float64."""
    return evolve(*case.double(), backend="reference")


def last_states(case: Case) -> Tensor:
    """What is due of a GRU: the last state of each candidate's user, by the reference in float64."""
    exact = case.double()
    states = gru(exact.states, exact.offsets, exact.weights, backend="reference")
    return states[exact.offsets[1:] - 1][exact.user_of]


class Contender(NamedTuple):
    """Something to time. `prepare` gives the call, with all at hand that its caller would have."""

    prepare: Callable[[Case], Callable[[], Tensor]]
    due: Callable[[Case], Tensor]
    meaning: str


CONTENDERS = {
    "evolve-reference": Contender(shared, evolution, "kernels.evolve in torch, a user's projection shared"),
    "evolve-copied": Contender(copied, evolution, "the same in torch, a copied history for each candidate"),
    "torch-gru-copied": Contender(
        torch_gru, last_states, "torch.nn.GRU over the copies; less work: no attention, nor its gate"
    ),
}


def largest_error(got: Tensor, due: Tensor) -> float | None:
    """The largest absolute difference; None for another shape or what is not a number."""
    comparable = got.shape == due.shape and bool(torch.isfinite(got).all())
    return float((got.double() - due).abs().max()) if comparable else None


def times_in_rounds(calls: Mapping[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every call in each round; rounds start with another contender each time."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            calls[name]()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return times


def measure(case: Case, repeats: int, contenders: Mapping[str, Contender]) -> list[dict[str, Any]]:
    """An object for each contender: its error and, when none is wrong, its time and its ratio to the first's.

    The ratio is the median over rounds of the ratio in a round: what slows one down slows both.
    """
    calls = {name: each.prepare(case) for name, each in contenders.items()}
    # The calls that are checked are the warm-up, too.
    errors = {name: largest_error(calls[name](), each.due(case)) for name, each in contenders.items()}
    found: list[dict[str, Any]] = [
        {"contender": name, "correct": error is not None and error <= TOLERANCE, "largest_error": error}
        for name, error in errors.items()
    ]
    if all(one["correct"] for one in found):
        times = times_in_rounds(calls, repeats)
        base = next(iter(times.values()))
        for one, own in zip(found, times.values(), strict=True):
            ratio = statistics.median(mine / first for mine, first in zip(own, base, strict=True))
            one.update(median_ms=statistics.median(own), least_ms=min(own), ratio=ratio)
    return found


def table(found: Sequence[Mapping[str, Any]], contenders: Mapping[str, Contender]) -> str:
    """For people to read."""
    lines = [f"{'contender':<18}{'largest error':>14}{'median ms':>11}{'ratio':>7}  what it is"]
    for one in found:
        error = "-" if one["largest_error"] is None else f"{one['largest_error']:.1e}"
        timed = f"{one['median_ms']:>11.3f}{one['ratio']:>7.2f}" if "ratio" in one else f"{'-':>11}{'-':>7}"
        lines.append(f"{one['contender']:<18}{error:>14}{timed}  {contenders[one['contender']].meaning}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, contenders: Mapping[str, Contender] = CONTENDERS) -> int:
    """Checks, times and prints. Returns 0, or 1 when an output is wrong: then nothing is timed."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description="Times interest evolution.")
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=_count, default=default, metavar="N", help=f"at least 1 ({default})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the last line, the results, to a file")
    chosen = vars(parser.parse_args(arguments))
    numbers = {name: chosen[name] for name in DEFAULTS}
    threads = torch.get_num_threads()
    torch.set_num_threads(numbers["threads"])
    try:
        with torch.inference_mode():
            case = random_case(*(numbers[name] for name in ("users", "candidates", "steps", "hidden")))
            found = measure(case, numbers["repeats"], contenders)
    finally:
        torch.set_num_threads(threads)
    common = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "tolerance": TOLERANCE}
    line = json.dumps([one | numbers | common for one in found])
    print(", ".join(f"{value} {name}" for name, value in numbers.items()) + "; CPU; errors are against float64")
    print(table(found, contenders))
    print(line)
    if chosen["json"]:
        chosen["json"].write_text(line + "\n")
    wrong = [one["contender"] for one in found if not one["correct"]]
    if wrong:
        print(f"off by more than {TOLERANCE:g}: {', '.join(wrong)}; nothing was timed", file=sys.stderr)
    return 1 if wrong else 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
