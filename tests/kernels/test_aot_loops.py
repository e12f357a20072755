"""Loops found and counted in disassembly written for the purpose."""

import json

import pytest

from kernels.aot.disassembly import DisassemblyError, Instruction, multiply_adds, read_amdgcn, read_sass
from kernels.aot.loops import Loop, Walk, find_loops, walks
from kernels.aot.source_loops import SourceLoop, source_loops

PRODUCT = 16 * 8 * 16  # of one HMMA.16816


def sass(text: str, *others: str) -> list[Instruction]:
    """Instructions written as `[@guard] OPCODE operands`, one a line, from address 0 on in steps of 16."""
    listed = []
    for line in text.strip().splitlines():
        guard, _, rest = line.strip().partition(" ") if line.strip().startswith("@") else ("", "", line.strip())
        opcode, _, operands = rest.partition(" ")
        entry = {"opcode": opcode, "operands": operands} | ({"predicate": guard} if guard else {})
        if operands.startswith("$"):
            entry["other-attributes"] = {"subroutine-call": "True"}  # type: ignore[assignment]
        listed.append(entry)
    functions = [{"function-name": name, "start": 0, "sass-instructions": listed} for name in ("k", *others)]
    return read_sass(json.dumps([{}, functions]), "k")


def loop(products: int = PRODUCT, step: int | None = 1, trips: int | None = None, **inner: SourceLoop) -> SourceLoop:
    return SourceLoop(products, products, step, trips, list(inner.values()))


def one_walk(text: str, source: SourceLoop) -> Walk:
    (found,) = walks(sass(text), [source], 1)
    return found


def headers(loops: list[Loop]) -> list[int]:
    return [each.header for loop in loops for each in loop.every()]


ROTATED = """
    MOV R0,R1
    @P0 BRA 0x60
    HMMA.16816.F32 R0
    MUFU.EX2 R0
    NOP
    @!P0 BRA 0x20
    EXIT
    BRA 0x70
    NOP
"""


def test_a_rotated_loop_is_its_body_alone() -> None:
    found = one_walk(ROTATED, loop())
    assert (found.instructions, found.padding) == (3, 1)
    assert found.opcodes == {"HMMA.16816.F32", "MUFU.EX2", "BRA"}
    assert headers(find_loops(sass(ROTATED))) == [0x20]


def test_a_loop_tested_at_its_head_and_left_by_a_guarded_call() -> None:
    """As ptxas writes for sm_80: the call is a jump that leaves."""
    text = """
        HMMA.16816.F32 R0
        @!PT UIADD3 URZ
        @!P0 CALL.REL.NOINC 0x40
        BRA 0x0
        EXIT
    """
    assert (one_walk(text, loop()).instructions, one_walk(text, loop()).padding) == (3, 1)


def test_a_body_laid_out_behind_its_own_jump_back() -> None:
    text = """
        HMMA.16816.F32 R0
        BRA.U UP0,0x50
        FADD R0
        @P0 BRA 0x0
        EXIT
        FMUL R0
        FMUL R1
        BRA 0x20
    """
    assert one_walk(text, loop()).instructions == 7


def test_ways_of_a_warp_that_has_come_apart_are_not_counted() -> None:
    text = """
        HMMA.16816.F32 R0
        BRA.CONV ~URZ,0x40
        MOV R0
        CALL.REL.NOINC $warpsync
        BRA.DIV UR4,0x70
        @P0 BRA 0x0
        EXIT
        BRX R2
        BRA 0x50
    """
    assert one_walk(text, loop()).instructions == 4


def test_unrolling_is_divided_out_and_the_remainder_left_out() -> None:
    """Two steps in a pass, seven instructions; then one step in a pass, five."""
    text = """
        HMMA.16816.F32 R0
        FADD R0
        HMMA.16816.F32 R0
        FADD R0
        FADD R0
        ISETP R0
        @P0 BRA 0x0
        HMMA.16816.F32 R0
        FADD R0
        FADD R0
        ISETP R0
        @P0 BRA 0x70
        EXIT
    """
    assert one_walk(text, loop()).instructions == 3.5


def test_unrolling_by_triton_is_divided_out_and_its_remainder_left_out() -> None:
    text = """
        HMMA.16816.F32 R0
        HMMA.16816.F32 R0
        @P0 BRA 0x0
        HMMA.16816.F32 R0
        @P0 BRA 0x30
        EXIT
    """
    (found,) = walks(sass(text), [loop(2 * PRODUCT, step=2), loop(PRODUCT, step=1)], 1)
    assert found.instructions == 1.5


def test_a_peeled_step_is_not_counted() -> None:
    text = """
        HMMA.16816.F32 R0
        HMMA.16816.F32 R0
        @P0 BRA 0x10
        HMMA.16816.F32 R0
        EXIT
    """
    assert one_walk(text, loop()).instructions == 2


NESTED = """
    FADD R0
    HMMA.16816.F32 R0
    @P1 BRA 0x10
    MUFU.EX2 R0
    @P0 BRA 0x0
    EXIT
"""


def test_an_inner_loop_counts_as_often_as_it_runs() -> None:
    found = one_walk(NESTED, loop(0, inner=loop(trips=4)))
    assert found.instructions == 3 + 4 * 2
    assert headers(find_loops(sass(NESTED))) == [0x0, 0x10]


def test_an_inner_loop_that_the_compiler_unrolled() -> None:
    body = "\n".join(["HMMA.16816.F32 R0"] * 4)
    assert one_walk(f"{body}\n@P0 BRA 0x0\nEXIT", loop(0, inner=loop(trips=4))).instructions == 5


def test_an_inner_loop_that_runs_an_unknown_number_of_times() -> None:
    with pytest.raises(DisassemblyError, match="the loop at 0x10 runs an unknown number of times"):
        one_walk(NESTED, loop(0, inner=loop(trips=None)))
    waits = NESTED.replace("MUFU.EX2 R0", "HMMA.16816.F32 R0").replace("HMMA.16816.F32 R0", "LDG R0", 1)
    with pytest.raises(DisassemblyError, match="the loop at 0x10 runs an unknown number of times"):
        one_walk(waits, loop())


TWO = """
    HMMA.16816.F32 R0
    FADD R0
    @P0 BRA 0x0
    HMMA.16816.F32 R0
    HMMA.16816.F32 R0
    HMMA.16816.F32 R0
    @P0 BRA 0x30
    LDG R0
    @P0 BRA 0x70
    EXIT
"""


def test_several_loops_are_told_apart_by_what_they_multiply() -> None:
    first, second = walks(sass(TWO), [loop(step=16), loop(3 * PRODUCT)], 1)
    assert (first.instructions, second.instructions) == (3 / 16, 4)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([loop()], "more than|do not match"),
        ([loop(step=16), loop(2 * PRODUCT)], "do not match"),
        ([], r"where the source's multiply nothing: they do not match"),
        ([loop(), loop(), loop()], "do not match"),
    ],
)
def test_loops_that_do_not_match_the_source(source: list[SourceLoop], said: str) -> None:
    only_two = TWO.replace("HMMA.16816.F32 R0\n    FADD R0", "HMMA.1688.F32 R0\n    FADD R0")
    with pytest.raises(DisassemblyError, match=said):
        walks(sass(only_two), source, 1)


def test_a_loop_that_could_be_of_either_source_loop() -> None:
    text = "\n".join(f"HMMA.16816.F32 R0\n@P0 BRA {hex(32 * n)}" for n in range(3)) + "\nEXIT"
    with pytest.raises(DisassemblyError, match="more than one way to match them"):
        walks(sass(text), [loop(), loop(step=16)], 1)


def test_no_loop_at_all() -> None:
    assert walks(sass("HMMA.16816.F32 R0\nEXIT"), [], 1) == []


@pytest.mark.parametrize("jump", ["CALL.REL.NOINC $slow", "BRX R2"])
def test_what_the_text_does_not_show_is_not_counted(jump: str) -> None:
    with pytest.raises(DisassemblyError, match="calls a subroutine or jumps to a computed address"):
        one_walk(f"HMMA.16816.F32 R0\n{jump}\n@P0 BRA 0x0\nEXIT", loop())


def test_a_loop_with_two_entries_is_not_counted() -> None:
    text = """
        @P0 BRA 0x20
        HMMA.16816.F32 R0
        FADD R0
        @P1 BRA 0x10
        EXIT
    """
    with pytest.raises(DisassemblyError, match="a loop with two entries"):
        one_walk(text, loop())


def test_a_counter_that_does_not_move_by_a_constant() -> None:
    with pytest.raises(DisassemblyError, match="does not count by a constant"):
        one_walk(ROTATED, loop(step=None))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BRA UR4", "BRA UR4: a jump to no address"),
        ("BRA 0x50", "a jump out of the function"),
        ("", "no instructions"),
    ],
)
def test_text_that_cannot_be_followed(text: str, said: str) -> None:
    with pytest.raises(DisassemblyError, match=said):
        find_loops(sass(text))


def test_the_function_asked_for_is_the_one_read() -> None:
    assert len(sass("EXIT", "$slow")) == 1
    with pytest.raises(DisassemblyError, match="k: 2 functions of that name"):
        sass("EXIT", "k")


AMD = """\
k:
.Lfunc_begin0:
\t.loc 1 2 3
\ts_load_dwordx2 s[2:3], s[0:1], 0x0    ; a comment
\ts_cbranch_scc1 .LBB0_3
; %bb.1:
\t;;#ASMSTART
\tv_nop_of_mine v0
\t;;#ASMEND
.LBB0_2:                                ; =>This Inner Loop Header
\tv_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[6:7], 0
\ts_nop 3
\tv_exp_f32_e32 v0, v0
\ts_cbranch_scc0 .LBB0_2
.LBB0_3:
\ts_endpgm
.Lfunc_end0:
\ts_branch .LBB0_2
"""


def test_amd_assembly() -> None:
    read = read_amdgcn(AMD, "k")
    assert [each.opcode for each in read[:3]] == ["s_load_dwordx2", "s_cbranch_scc1", "v_nop_of_mine"]
    (found,) = walks(read, [loop(16 * 16 * 16)], 1)
    assert (found.instructions, found.padding) == (3, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AMD.replace("k:\n", "other:\n"), "k: not in the assembly"),
        (AMD.partition(".Lfunc_end0")[0], "k: its end is not in the assembly"),
        (AMD.replace("scc0 .LBB0_2", "scc0 .LBB0_9"), "a jump to no label"),
    ],
)
def test_amd_assembly_that_is_not_whole(text: str, said: str) -> None:
    with pytest.raises(DisassemblyError, match=said):
        read_amdgcn(text, "k")


@pytest.mark.parametrize(
    ("opcode", "products"),
    [
        ("HMMA.16816.F32", 2048),
        ("HMMA.1688.F32.TF32", 1024),
        ("HGMMA.64x32x16.F32", 64 * 32 * 16 // 4),
        ("v_mfma_f32_16x16x16_f16", 4096),
        ("v_mfma_f32_32x32x8_f16", 8192),
        ("v_mfma_f32_4x4x4_16b_f16", 1024),
        ("FFMA", 0),
        ("v_fma_f32", 0),
    ],
)
def test_what_an_instruction_multiplies(opcode: str, products: int) -> None:
    assert multiply_adds(opcode) == products


@pytest.mark.parametrize("opcode", ["HMMA.999.F32", "UTCHMMA", "v_mfma_i32_16x16x32_i8", "v_wmma_f32_16x16x16_f16"])
def test_no_matrix_instruction_goes_uncounted(opcode: str) -> None:
    with pytest.raises(DisassemblyError, match=f"{opcode}: a matrix instruction of unknown shape"):
        multiply_adds(opcode)


DOT = "%p = tt.dot %a, %b, %c, inputPrecision = tf32 : tensor<{m}x{k}xf16, #dot> * tensor<{k}x{n}xf16, #dot>"
IR = f"""
#blocked = #ttg.blocked<{{sizePerThread = [1, 1]}}>
#mma = #ttg.nvidia_mma<{{versionMajor = 2, versionMinor = 0, warpsPerCTA = [1, 4], instrShape = [16, 8]}}>
module attributes {{"ttg.num-warps" = 4 : i32}} {{
  tt.func public @k(%n: i32) {{
    %0 = scf.for %t = %c0_i32 to %n step %c16_i32 iter_args(%x = %y) -> (f32)  : i32 {{
      {DOT.format(m=16, n=64, k=32)} -> tensor<16x64xf32, #mma>
      %9 = scf.if %8 -> (f32) {{
        {DOT.format(m=16, n=16, k=16)} -> tensor<16x16xf32, #mma>
      }} else {{
        scf.yield %1 : f32
      }}
      scf.for %k = %c0_i32_5 to %c8_i32 step %c2_i32  : i32 {{
        {DOT.format(m=32, n=32, k=16)} -> tensor<32x32xf32, #mma>
        {DOT.format(m=16, n=64, k=32)} -> tensor<16x64xf32, #blocked>
      }}
    }}
    %1 = scf.while (%z = %y) : (i32) -> i32 {{
      scf.condition(%3) %z : i32
    }} do {{
      {DOT.format(m=16, n=32, k=16)} -> tensor<16x32xf32, #mma>
    }}
  }}
}}
"""


def test_loops_of_the_source() -> None:
    """16 columns among four warps of eight: two warps repeat what the other two do."""
    first, second = source_loops(IR)
    assert (first.products, first.useful) == (16 * 16 * 32 + 16 * 8 * 16, 16 * 64 * 32 + 16 * 16 * 16)
    assert (first.step, first.trips) == (16, None)
    (inner,) = first.inner
    assert (inner.products, inner.step, inner.trips) == (32 * 8 * 16, 2, 4)
    assert first.total() == first.products + 4 * inner.products
    assert (second.products, second.step, second.inner) == (16 * 8 * 16, None, [])


def test_repeated_products() -> None:
    """Four warps that all do the whole product."""
    (found,) = walks(sass(ROTATED), [SourceLoop(PRODUCT, PRODUCT, 1)], 4)
    assert found.repeated == 4
