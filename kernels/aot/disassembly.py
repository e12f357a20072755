"""The text of a disassembled kernel as instructions: what they are, where they may go next, what they multiply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class DisassemblyError(ValueError):
    """A disassembly that cannot be counted: the message says what stands in the way."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its `address`, the addresses it may jump to, and whether the next is never reached from it."""

    address: int
    opcode: str
    operands: str = ""
    targets: tuple[int, ...] = ()
    ends: bool = False
    padding: bool = False
    leaves: bool = False  # for code that the text does not show: a call, an indirect jump


SASS_BYTES = 16  # of every instruction since sm_70
_ADDRESS = re.compile(r"(?:^|,)(0x[0-9a-f]+)$")
_SASS_JUMPS = ("BRA", "JMP", "CALL")
_SASS_INDIRECT = ("BRX", "BRXU", "JMX", "JMXU")
_SASS_ENDS = ("EXIT", "KILL", "RET")


def read_sass(text: str, kernel: str) -> list[Instruction]:
    """The instructions of `kernel` in what `nvdisasm -json` prints; subroutines stand apart there, as functions."""
    _, functions = json.loads(text)
    own = [each for each in functions if each["function-name"] == kernel]
    if len(own) != 1:
        raise DisassemblyError(f"{kernel}: {len(own)} functions of that name in the disassembly")
    listed = enumerate(own[0]["sass-instructions"])
    return [_sass_instruction(own[0]["start"] + place * SASS_BYTES, entry) for place, entry in listed]


def _sass_instruction(address: int, entry: dict[str, Any]) -> Instruction:
    opcode, operands, guard = entry["opcode"], entry.get("operands", ""), entry.get("predicate")
    base = opcode.partition(".")[0]
    targets: tuple[int, ...] = ()
    ends = base in _SASS_ENDS and guard is None
    leaves = base in _SASS_INDIRECT or "subroutine-call" in entry.get("other-attributes", {})
    # BRA.CONV jumps where the warp is together, BRA.DIV where it is not; Triton's warps are, around and in their loops.
    if base in _SASS_JUMPS and not leaves and not opcode.startswith("BRA.DIV"):
        found = _ADDRESS.search(operands)
        if found is None:
            raise DisassemblyError(f"{opcode} {operands}: a jump to no address")
        targets = (int(found[1], 16),)
        # What stands before the address is a condition (`BRA.U UP0,0x40`); ptxas leaves some loops by a guarded CALL.
        alone = found[1] == operands or opcode.startswith("BRA.CONV")
        ends = guard is None and alone and base != "CALL"
    # ptxas keeps hazards apart by NOP or by a uniform addition that its guard switches off.
    padding = base == "NOP" or guard in ("@!PT", "@!UPT")
    return Instruction(address, opcode, operands, targets, ends, padding, leaves)


_AMD_LABEL = re.compile(r"^([.\w$]+):")
_AMD_INSTRUCTION = re.compile(r"^\s+([a-z]\w+)\s*([^;]*)")


def read_amdgcn(text: str, kernel: str) -> list[Instruction]:
    """The instructions of `kernel` in AMD assembly; their addresses are their places in the text."""
    labels: dict[str, int] = {}
    lines: list[tuple[str, str]] = []
    for line in _amd_body(text, kernel):
        if label := _AMD_LABEL.match(line):
            labels[label[1]] = len(lines)
        elif (match := _AMD_INSTRUCTION.match(line)) and not line.strip().startswith("."):
            lines.append((match[1], match[2].strip()))
    return [_amd_instruction(place, *line, labels) for place, line in enumerate(lines)]


def _amd_body(text: str, kernel: str) -> Iterator[str]:
    lines = iter(text.splitlines())
    if not any(line.startswith(f"{kernel}:") for line in lines):
        raise DisassemblyError(f"{kernel}: not in the assembly")
    for line in lines:
        if line.startswith(".Lfunc_end"):
            return
        yield line
    raise DisassemblyError(f"{kernel}: its end is not in the assembly")


def _amd_instruction(place: int, opcode: str, operands: str, labels: dict[str, int]) -> Instruction:
    targets: tuple[int, ...] = ()
    if opcode == "s_branch" or opcode.startswith("s_cbranch"):
        if operands not in labels:
            raise DisassemblyError(f"{opcode} {operands}: a jump to no label")
        targets = (labels[operands],)
    ends = opcode in ("s_branch", "s_endpgm", "s_setpc_b64")
    leaves = opcode in ("s_swappc_b64", "s_setpc_b64", "s_call_b64")
    return Instruction(place, opcode, operands, targets, ends, opcode == "s_nop", leaves)


# m, n, k of what a warp multiplies. HMMA.16816: its digits are m = 16, n = 8, k = 16; HMMA.1688: 16, 8, 8.
_HMMA = {"16816": 16 * 8 * 16, "1688": 16 * 8 * 8, "1684": 16 * 8 * 4}
_HGMMA = re.compile(r"^HGMMA\.(\d+)x(\d+)x(\d+)\.")
_MFMA = re.compile(r"^v_(?:smfmac|mfma)_f32_(\d+)x(\d+)x(\d+)(?:_(\d+)b)?_")
WARPS_OF_A_GROUP = 4


def multiply_adds(opcode: str) -> int:
    """How many products one warp adds up by an instruction of the matrix units; 0 for any other instruction.

    Raises DisassemblyError for a matrix instruction of unknown shape, so that none goes uncounted.
    """
    if opcode.startswith("HMMA."):
        shape = opcode.split(".")[1]
        if shape in _HMMA:
            return _HMMA[shape]
    elif match := _HGMMA.match(opcode):
        m, n, k = map(int, match.groups())
        return m * n * k // WARPS_OF_A_GROUP
    elif match := _MFMA.match(opcode):
        m, n, k, blocks = (int(each or 1) for each in match.groups())
        return m * n * k * blocks
    elif "MMA" not in opcode and "mfma" not in opcode and "wmma" not in opcode:
        return 0
    raise DisassemblyError(f"{opcode}: a matrix instruction of unknown shape")
