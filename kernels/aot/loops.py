"""The loops of a kernel from its control flow, and how many instructions one time step takes.

A loop here is a natural loop: a jump back to an instruction that every path to the jump has passed, and all that can
reach the jump without leaving. That holds for loops that a compiler rotated, unrolled, peeled or laid out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernels.aot.disassembly import DisassemblyError, Instruction, multiply_adds
from kernels.aot.source_loops import SourceLoop


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop: `own` are the instructions that no loop inside it holds, `inner` the loops directly inside."""

    header: int  # address
    own: tuple[Instruction, ...]
    inner: tuple[Loop, ...] = ()

    @property
    def products(self) -> int:
        """Multiply-adds of a warp's matrix instructions in one pass of its own instructions."""
        return sum(multiply_adds(each.opcode) for each in self.own)

    def every(self) -> list[Loop]:
        """This loop and all inside it, itself first."""
        return [self, *(each for inner in self.inner for each in inner.every())]


def _blocks(instructions: Sequence[Instruction]) -> tuple[list[list[Instruction]], list[list[int]]]:
    """Basic blocks in the order of the text, and for each the blocks that may follow it."""
    place = {each.address: index for index, each in enumerate(instructions)}
    starts = {0}
    for index, each in enumerate(instructions):
        for target in each.targets:
            if target not in place:
                raise DisassemblyError(f"{each.opcode} {each.operands}: a jump out of the function")
            starts.add(place[target])
        if each.targets or each.ends:
            starts.add(index + 1)
    cuts = sorted(start for start in starts if start < len(instructions))
    block_at = {instructions[cut].address: number for number, cut in enumerate(cuts)}
    ends = [*cuts[1:], len(instructions)]
    blocks = [list(instructions[cut:end]) for cut, end in zip(cuts, ends, strict=True)]
    following = []
    for number, block in enumerate(blocks):
        last = block[-1]
        next_ones = [block_at[target] for target in last.targets]
        if not last.ends and number + 1 < len(blocks):
            next_ones.append(number + 1)
        following.append(sorted(set(next_ones)))
    return blocks, following


def _order(following: Sequence[Sequence[int]]) -> list[int]:
    """The blocks that can be reached, each before those after it but for jumps back."""
    seen, order = {0}, []
    waiting = [(0, iter(following[0]))]
    while waiting:
        block, rest = waiting[-1]
        unseen = next((each for each in rest if each not in seen), None)
        if unseen is None:
            order.append(block)
            waiting.pop()
        else:
            seen.add(unseen)
            waiting.append((unseen, iter(following[unseen])))
    return order[::-1]


def _dominators(order: Sequence[int], before: dict[int, list[int]]) -> dict[int, set[int]]:
    """For each block those that every path to it passes, itself among them."""
    found = {block: set(order) for block in order}
    found[order[0]] = {order[0]}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            passed = set.intersection(*(found[each] for each in before[block])) | {block}
            changed |= passed != found[block]
            found[block] = passed
    return found


def _loop_blocks(order: Sequence[int], following: Sequence[Sequence[int]]) -> dict[int, set[int]]:
    """For the first block of each loop, all blocks of the loop."""
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for each in following[block]:
            before[each].append(block)
    dominators, rank = _dominators(order, before), {block: index for index, block in enumerate(order)}
    loops: dict[int, set[int]] = {}
    for block in order:
        for header in following[block]:
            if rank[header] > rank[block]:
                continue
            if header not in dominators[block]:
                raise DisassemblyError(f"a loop with two entries, one of them block {header}: not counted")
            inside, waiting = loops.setdefault(header, {header}), [block]
            while waiting:
                each = waiting.pop()
                if each not in inside:
                    inside.add(each)
                    waiting += before[each]
    return loops


def find_loops(instructions: Sequence[Instruction]) -> list[Loop]:
    """The outermost loops of a kernel, in the order of their first instructions."""
    if not instructions:
        raise DisassemblyError("no instructions")
    blocks, following = _blocks(instructions)
    loops = _loop_blocks(_order(following), following)

    def nest(headers: list[int]) -> tuple[Loop, ...]:
        outermost = [one for one in headers if not any(one in loops[other] for other in headers if other != one)]
        built = []
        for header in sorted(outermost):
            inner = [each for each in headers if each != header and each in loops[header]]
            held = set().union(*(loops[each] for each in inner))
            own = tuple(each for block in sorted(loops[header] - held) for each in blocks[block])
            built.append(Loop(blocks[header][0].address, own, nest(inner)))
        return tuple(built)

    return list(nest(list(loops)))


@dataclass(frozen=True, slots=True)
class Walk:
    """An outermost loop with matrix instructions, as compiled. Counts are for one step of the source loop's counter."""

    instructions: float
    padding: float
    opcodes: frozenset[str]
    repeated: float  # what all warps multiply over what is to be multiplied: 4 where four warps do the same


def walks(instructions: Sequence[Instruction], source: Sequence[SourceLoop], num_warps: int) -> list[Walk]:
    """Each outermost source loop that multiplies, as it was compiled, in the order of the source.

    What Triton or a compiler behind it unrolled is divided out, and the loop over the remainder left out. Raises
    DisassemblyError where loops cannot be told apart or what they execute is not known.
    """
    loops = [loop for loop in find_loops(instructions) if any(each.products for each in loop.every())]
    due = [loop for loop in source if any(each.products for each in loop.every())]
    groups = _groups(loops, due)
    whole = [index for index in range(len(due)) if not index or not due[index].is_remainder_of(due[index - 1])]
    return [_walk(groups[index], due[index], num_warps) for index in whole]


def _walk(group: Sequence[Loop], origin: SourceLoop, num_warps: int) -> Walk:
    # Of a loop unrolled with a remainder the unrolled one is what runs.
    unrolled, loop = max(((_unrolled(one, origin), one) for one in group), key=lambda pair: pair[0])
    held = [each for one in loop.every() for each in one.own]
    if any(each.leaves for each in held):
        raise DisassemblyError(f"the loop at {loop.header:#x} calls a subroutine or jumps to a computed address")
    if not origin.step:
        raise DisassemblyError(f"the loop at {loop.header:#x} does not count by a constant")
    work, padding = _executed(loop, origin)
    steps = unrolled * origin.step
    products, useful = sum(each.products for each in origin.every()), sum(each.useful for each in origin.every())
    opcodes = frozenset(each.opcode for each in held if not each.padding)
    return Walk(work / steps, padding / steps, opcodes, num_warps * products / useful)


def _unrolled(loop: Loop, origin: SourceLoop) -> int:
    """How many passes of the source one pass of the compiled loop makes; 0 where it is no loop of that source."""
    compiled, written = ([each.products for each in one.every() if each.products] for one in (loop, origin))
    if len(compiled) > 1 or not loop.products:
        return int(compiled == written)
    total = origin.total()  # with the loops inside, which the compiler unrolled, too
    return loop.products // total if total and loop.products % total == 0 else 0


def _groups(loops: Sequence[Loop], source: Sequence[SourceLoop]) -> list[Sequence[Loop]]:
    """The compiled loops shared out, in order, among the source's: one for each, more where it was unrolled."""

    def share(rest: Sequence[Loop], due: Sequence[SourceLoop]) -> list[list[Sequence[Loop]]]:
        if not due:
            return [] if rest else [[]]
        found = []
        for size in range(1, len(rest) - len(due) + 2):
            if not _unrolled(rest[size - 1], due[0]):
                break
            found += [[rest[:size], *others] for others in share(rest[size:], due[1:])]
        return found

    shared = share(loops, source)
    if len(shared) != 1:
        compiled = ", ".join(str([each.products for each in loop.every()]) for loop in loops)
        written = ", ".join(str([each.products for each in loop.every()]) for loop in source)
        raise DisassemblyError(
            f"loops that multiply {compiled or 'nothing'} where the source's multiply {written or 'nothing'}: "
            + ("more than one way to match them" if shared else "they do not match")
        )
    return shared[0]


def _executed(loop: Loop, origin: SourceLoop) -> tuple[int, int]:
    """Instructions and padding in one pass of a loop, what is inside it as often as it runs."""
    work, padding = sum(not each.padding for each in loop.own), sum(each.padding for each in loop.own)
    inside = iter([each for each in origin.inner if any(one.products for one in each.every())])
    for inner in loop.inner:
        written = next(inside, None) if any(each.products for each in inner.every()) else None
        if written is None or written.trips is None:
            raise DisassemblyError(f"the loop at {inner.header:#x} runs an unknown number of times in each step")
        inner_work, inner_padding = _executed(inner, written)
        work, padding = work + written.trips * inner_work, padding + written.trips * inner_padding
    return work, padding
