"""What the binaries and the compilers' own reports say of registers, spills and memory."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class RecordError(ValueError):
    """A binary or a report that does not hold the record that is due."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes. `spills`: bytes stored and loaded (NVIDIA), or registers spilled (AMD)."""

    registers: int  # for each thread; on AMD vector registers, accumulators among them
    spills: int
    local_bytes: int  # for each thread
    shared_bytes: int  # what the binary sets aside; what a launch asks for comes on top
    spill_store_bytes: int = 0
    spill_load_bytes: int = 0
    scalar_registers: int = 0


_USAGE = re.compile(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
# What ptxas says of every kernel; any other line is a message.
_USUAL = re.compile(
    r"^\s*$"
    r"|^ptxas\S* info\s+: ("
    r"\d+ bytes gmem(, \d+ bytes cmem\[\d+\])*"
    r"|Compiling entry function '\S+' for '\S+'"
    r"|Function properties for \S+"
    r"|Used \d+ registers(, .*)?"
    r"|Compile time = .*)$"
    r"|^\s+\d+ bytes stack frame, \d+ bytes spill stores, \d+ bytes spill loads$"
)
# A remark on the container that holds sm_80 to sm_89 code, not on the code.
_CONTAINER = "nvdisasm warning : Disassembling Std Elf to Old format or Old Elf to Std format"


def messages(text: str) -> list[str]:
    """The lines of what a compiler or disassembler wrote that are not its usual report."""
    return [line for line in text.splitlines() if not _USUAL.match(line) and not line.startswith(_CONTAINER)]


def nvidia_resources(usage: str, report: str) -> Resources:
    """From `cuobjdump -res-usage` and the report of `ptxas -v`. Raises RecordError unless both speak of one kernel."""
    functions, spills = _USAGE.findall(usage), _SPILLS.findall(report)
    if len(functions) != 1 or len(spills) != 1:
        raise RecordError(f"{len(functions)} records of use and {len(spills)} of spills: one of each is due")
    registers, stack, shared, local = map(int, functions[0][1:])
    frame, stores, loads = map(int, spills[0])
    return Resources(registers, stores + loads, max(stack, frame) + local, shared, stores, loads)


def amd_resources(binary: bytes) -> Resources:
    """From the metadata note of a code object (AMDGPU ABI, code object version 5)."""
    metadata = next((unpack(note) for kind, note in _notes(binary) if kind == _NT_AMDGPU_METADATA), None)
    kernels = metadata.get("amdhsa.kernels") if isinstance(metadata, dict) else None
    if not isinstance(kernels, list) or len(kernels) != 1:
        raise RecordError("no note on just one kernel in the code object")
    kernel = kernels[0]
    try:
        return Resources(
            # One file of registers for both since gfx90a: the count of vector registers holds the accumulators.
            registers=kernel[".vgpr_count"],
            spills=kernel[".vgpr_spill_count"] + kernel[".sgpr_spill_count"],
            local_bytes=kernel[".private_segment_fixed_size"],
            shared_bytes=kernel[".group_segment_fixed_size"],
            scalar_registers=kernel[".sgpr_count"],
        )
    except KeyError as missing:
        raise RecordError(f"the code object's note has no {missing}") from missing


_NT_AMDGPU_METADATA = 32
_SECTION_NOTE = 7


def sections(binary: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, type and content of each section of a little-endian 64-bit ELF file."""
    if binary[:6] != b"\x7fELF\x02\x01":
        raise RecordError("no little-endian 64-bit ELF file")
    (start,) = struct.unpack_from("<Q", binary, 40)
    size, count, names_at = struct.unpack_from("<HHH", binary, 58)
    headers = [struct.unpack_from("<IIQQQQ", binary, start + index * size) for index in range(count)]
    names = headers[names_at][4]
    for name, kind, _, _, offset, length in headers:
        begin = names + name
        yield binary[begin : binary.index(b"\0", begin)].decode(), kind, binary[offset : offset + length]


def _notes(binary: bytes) -> Iterator[tuple[int, bytes]]:
    for _, kind, content in sections(binary):
        at = 0
        while kind == _SECTION_NOTE and at < len(content):
            name, length, note = struct.unpack_from("<III", content, at)
            begin = at + 12 + -(-name // 4) * 4
            yield note, content[begin : begin + length]
            at = begin + -(-length // 4) * 4


def unpack(data: bytes) -> Any:
    """The value that a MessagePack text holds: maps, arrays, strings, whole numbers, truth values, nil."""
    value, end = _unpack(data, 0)
    if end != len(data):
        raise RecordError(f"{len(data) - end} bytes after the end of the metadata")
    return value


_NUMBERS = {0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"}
_STRINGS = {0xD9: "B", 0xDA: "H", 0xDB: "I"}
_ARRAYS = {0xDC: "H", 0xDD: "I"}
_MAPS = {0xDE: "H", 0xDF: "I"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def _number(data: bytes, at: int, form: str) -> tuple[int, int]:
    return struct.unpack_from(f">{form}", data, at)[0], at + struct.calcsize(form)


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    tag, at = data[at], at + 1
    if tag < 0x80 or tag >= 0xE0:
        return (tag if tag < 0x80 else tag - 0x100), at
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag in _NUMBERS:
        return _number(data, at, _NUMBERS[tag])
    if tag < 0xC0 or tag in _STRINGS | _ARRAYS | _MAPS:
        return _unpack_sized(data, at, tag)
    raise RecordError(f"byte {tag:#x} in the metadata: no MessagePack that a code object uses")


def _unpack_sized(data: bytes, at: int, tag: int) -> tuple[Any, int]:
    if tag < 0x90:
        count, of = tag & 0x0F, "map"
    elif tag < 0xA0:
        count, of = tag & 0x0F, "array"
    elif tag < 0xC0:
        count, of = tag & 0x1F, "string"
    else:
        count, at = _number(data, at, (_STRINGS | _ARRAYS | _MAPS)[tag])
        of = "string" if tag in _STRINGS else "array" if tag in _ARRAYS else "map"
    if of == "string":
        return data[at : at + count].decode(), at + count
    values = []
    for _ in range(count * 2 if of == "map" else count):
        value, at = _unpack(data, at)
        values.append(value)
    return (dict(zip(values[::2], values[1::2], strict=True)) if of == "map" else values), at
