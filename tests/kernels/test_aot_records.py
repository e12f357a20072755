"""The records of binaries, and the messages of compilers, written for the purpose."""

import struct

import pytest

from kernels.aot.records import RecordError, amd_resources, messages, nvidia_resources, sections, unpack

USAGE = """
Resource usage:
 Common:
  GLOBAL:11 CONSTANT[4]:8
 Function k:
  REG:40 STACK:{stack} SHARED:1024 LOCAL:{local} CONSTANT[0]:576 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
REPORT = """\
ptxas-blackwell info    : 11 bytes gmem, 8 bytes cmem[4]
ptxas-blackwell info    : Compiling entry function 'k' for 'sm_90a'
ptxas-blackwell info    : Function properties for k
    {frame} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas-blackwell info    : Used 40 registers, used 1 barriers, {frame} bytes cumulative stack size
ptxas-blackwell info    : Compile time = 31.960 ms

"""


def test_nvidia_records() -> None:
    found = nvidia_resources(USAGE.format(stack=0, local=0), REPORT.format(frame=0, stores=0, loads=0))
    assert (found.registers, found.spills, found.local_bytes, found.shared_bytes) == (40, 0, 0, 1024)
    found = nvidia_resources(USAGE.format(stack=32, local=8), REPORT.format(frame=32, stores=28, loads=36))
    assert (found.spills, found.spill_store_bytes, found.spill_load_bytes, found.local_bytes) == (64, 28, 36, 40)


@pytest.mark.parametrize(("usages", "reports"), [(0, 1), (1, 0), (2, 1), (1, 2)])
def test_records_of_another_number_of_kernels(usages: int, reports: int) -> None:
    usage, report = USAGE.format(stack=0, local=0), REPORT.format(frame=0, stores=0, loads=0)
    with pytest.raises(RecordError, match=f"{usages} records of use and {reports} of spills"):
        nvidia_resources(usage * usages, report * reports)


def test_the_usual_report_holds_no_message() -> None:
    assert messages(REPORT.format(frame=0, stores=0, loads=0)) == []
    assert messages(REPORT.replace("ptxas-blackwell", "ptxas").format(frame=0, stores=0, loads=0)) == []


@pytest.mark.parametrize(
    "line",
    [
        "ptxas info    : (C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized",
        "ptxas /tmp/x.ptx, line 9; warning : Double is not supported",
        "ptxas-blackwell warning : incompatible redefinition for option 'regAllocOptLevel'",
        "'+ptx99' is not a recognized feature for this target (ignoring feature)",
        "triton-amdgpu-assembler:3570:2: error: invalid instruction",
        "nvdisasm warning : something new",
    ],
)
def test_anything_else_is_a_message(line: str) -> None:
    assert messages(REPORT.format(frame=0, stores=0, loads=0) + line + "\n") == [line]


KERNEL = {
    ".vgpr_count": 110,
    ".sgpr_count": 300,
    ".vgpr_spill_count": 2,
    ".sgpr_spill_count": 5,
    ".private_segment_fixed_size": 70000,
    ".group_segment_fixed_size": 0,
}


def packed(value: object) -> bytes:
    """MessagePack in its shortest forms."""
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(packed(key) + packed(each) for key, each in value.items())
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    assert isinstance(value, int)
    for tag, form, least in ((0xCE, ">I", 1 << 16), (0xCD, ">H", 1 << 8), (0xCC, ">B", 1 << 7)):
        if value >= least:
            return bytes([tag]) + struct.pack(form, value)
    return bytes([value])


def elf(note: bytes, kind: int = 32) -> bytes:
    """An ELF file with a section of notes: one of another kind, and `note`."""

    def noted(kind: int, content: bytes) -> bytes:
        padding = b"\0" * (-len(content) % 4)
        return struct.pack("<III", 7, len(content), kind) + b"AMDGPU\0\0" + content + padding

    names, notes = b"\0.note\0.names\0", noted(1, b"abc") + noted(kind, note)
    start = 64 + len(names) + len(notes)
    header = b"\x7fELF\x02\x01".ljust(40, b"\0") + struct.pack("<QIHHHHHH", start, 0, 64, 0, 0, 64, 3, 2)
    described = [(0, 0, 0, 0, 0, 0), (1, 7, 0, 0, 64 + len(names), len(notes)), (7, 3, 0, 0, 64, len(names))]
    return header + names + notes + b"".join(struct.pack("<IIQQQQ", *each).ljust(64, b"\0") for each in described)


def test_amd_records() -> None:
    found = amd_resources(elf(packed({"amdhsa.version": [1, 2], "amdhsa.kernels": [KERNEL]})))
    assert (found.registers, found.scalar_registers, found.spills) == (110, 300, 7)
    assert (found.local_bytes, found.shared_bytes) == (70000, 0)


@pytest.mark.parametrize(
    ("binary", "said"),
    [
        (b"MZ" + bytes(100), "no little-endian 64-bit ELF file"),
        (elf(packed({"amdhsa.kernels": [KERNEL]}), kind=33), "no note on just one kernel"),
        (elf(packed({"amdhsa.kernels": [KERNEL, KERNEL]})), "no note on just one kernel"),
        (elf(packed({"amdhsa.kernels": [{".vgpr_count": 1}]})), "the code object's note has no '.vgpr_spill_count'"),
    ],
)
def test_binaries_without_the_record(binary: bytes, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        amd_resources(binary)


def test_sections() -> None:
    assert [name for name, _, _ in sections(elf(b""))] == ["", ".note", ".names"]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\xc0", None),
        (b"\xc2", False),
        (b"\xc3", True),
        (b"\x7f", 127),
        (b"\xff", -1),
        (b"\xd0\x80", -128),
        (b"\xd1\xff\x00", -256),
        (b"\xcf" + bytes(7) + b"\x09", 9),
        (b"\xd9\x02ab", "ab"),
        (b"\xda\x00\x02ab", "ab"),
        (b"\xdc\x00\x02\x01\x02", [1, 2]),
        (b"\xdf\x00\x00\x00\x01\xa1a\x90", {"a": []}),
    ],
)
def test_forms_of_messagepack(data: bytes, value: object) -> None:
    assert unpack(data) == value


@pytest.mark.parametrize(
    ("data", "said"), [(b"\xcb" + bytes(8), "byte 0xcb in the metadata"), (b"\x01\x02", "1 bytes after the end")]
)
def test_what_no_code_object_holds(data: bytes, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        unpack(data)
