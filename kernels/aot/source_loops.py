"""The loops of a kernel before code generation, from Triton's GPU IR: what a pass through each multiplies in one warp.

Products of the compiled loop over products of the source loop tell how far a compiler unrolled it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class SourceLoop:
    """One loop. `products`: multiply-adds of one warp in a pass, inner loops left out; `useful`: due of all warps."""

    products: int = 0
    useful: int = 0
    step: int | None = None  # of its counter, where that is a constant
    trips: int | None = None  # where the bounds are constants, too
    inner: list[SourceLoop] = field(default_factory=list)

    def every(self) -> list[SourceLoop]:
        """This loop and all inside it, itself first."""
        return [self, *(each for inner in self.inner for each in inner.every())]

    def is_remainder_of(self, other: SourceLoop) -> bool:
        """Whether this loop finishes what `other`, the same loop unrolled by Triton, leaves over."""
        if not self.step or not other.step or other.step <= self.step:
            return False
        return self.products * other.step == other.products * self.step

    def total(self) -> int | None:
        """Multiply-adds of one warp in a pass with all that is inside; None where that is not known."""
        inside = [each for each in self.inner if any(one.products for one in each.every())]
        totals = [None if each.trips is None else each.total() for each in inside]
        if None in totals:
            return None
        return self.products + sum((each.trips or 0) * (each.total() or 0) for each in inside)


_LAYOUT = re.compile(
    r"^(#\w+) = #ttg\.(?:nvidia_mma|amd_mfma)<.*warpsPerCTA = \[(\d+), (\d+)\].*instrShape = \[(\d+), (\d+)"
)
_DOT = re.compile(r"(?:tt\.dot|warp_group_dot) .* : \S*?<(\d+)x(\d+)x.* -> tensor<(\d+)x(\d+)x\w+, (#\w+)>")
_BOUND = r"%c(-?\d+)_i\d+(?:_\d+)?"
_FOR = re.compile(rf"scf\.for \S+ = (?:{_BOUND}|\S+) to (?:{_BOUND}|\S+) step (?:{_BOUND}|\S+) ")


def _tiles(size: int, tile: int, warps: int) -> int:
    """Elements of a dimension that each warp covers: whole tiles, shared out among warps; repeated if too few."""
    return math.ceil(size / (tile * warps)) * tile


def _products(line: str, layouts: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    match = _DOT.search(line)
    if match is None or match[5] not in layouts:  # other layouts multiply without the matrix units
        return 0, 0
    m, k, _, n = (int(each) for each in match.groups()[:4])
    warps_m, warps_n, tile_m, tile_n = layouts[match[5]]
    return _tiles(m, tile_m, warps_m) * _tiles(n, tile_n, warps_n) * k, m * n * k


def _opened(line: str) -> SourceLoop:
    match = _FOR.search(line)
    begin, end, step = (None if each is None else int(each) for each in (match.groups() if match else [None] * 3))
    if begin is None or end is None or not step:
        return SourceLoop(step=step)
    return SourceLoop(step=step, trips=max(0, math.ceil((end - begin) / step)))


def source_loops(text: str) -> list[SourceLoop]:
    """The outermost loops of a module in Triton's GPU IR, in the order of the text."""
    layouts: dict[str, tuple[int, ...]] = {}
    outside = SourceLoop()
    # Open loops with the depth of braces at which each began.
    open_loops, depth = [(outside, -1)], 0
    for line in text.splitlines():
        if layout := _LAYOUT.match(line):
            layouts[layout[1]] = tuple(int(each) for each in layout.groups()[1:])
        products, useful = _products(line, layouts)
        open_loops[-1][0].products += products
        open_loops[-1][0].useful += useful
        if re.search(r"\bscf\.(for|while)\b", line):
            loop = _opened(line)
            open_loops[-1][0].inner.append(loop)
            open_loops.append((loop, depth))
        depth += line.count("{") - line.count("}")
        while open_loops[-1][1] >= depth:
            open_loops.pop()
    return outside.inner


def every(loops: list[SourceLoop]) -> Iterator[SourceLoop]:
    """All loops, each before those inside it."""
    for loop in loops:
        yield from loop.every()
