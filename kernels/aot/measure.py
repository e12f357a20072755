"""One variant for one target: compiled, its binary read, and judged."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kernels.aot import records
from kernels.aot.disassembly import DisassemblyError, Instruction, read_amdgcn, read_sass
from kernels.aot.loops import Walk, walks
from kernels.aot.source_loops import source_loops
from kernels.triton.variants import Variant

FUNCTIONS = "kernels.triton.launch:function_of"
NAMED = 16  # candidates for which instructions are counted
# For each machine the opcode by which a class of instructions shows.
CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "cuda": {"matrix": ("HMMA", "HGMMA"), "exp2": ("MUFU.EX2",), "reciprocal": ("MUFU.RCP",), "tanh": ("MUFU.TANH",)},
    "hip": {"matrix": ("v_mfma_f32",), "exp2": ("v_exp_f32",), "reciprocal": ("v_rcp_f32",)},
}
LOCAL_MEMORY = {"cuda": ("LDL", "STL"), "hip": ("scratch_",)}
LONGEST_LINE = 400
RECURRENT = ("gru", "evolve")
WITHOUT_PRODUCTS = ("scale", "split")
GATES = {"exp": ("exp2", "reciprocal"), "tanh": ("tanh",)}


@dataclass(frozen=True, slots=True)
class Job:
    """What to compile and for which target, "cuda:90" or "hip:gfx942".

    `functions` names, as `module:function`, what gives the `triton.jit` function of a variant.
    """

    variant: Variant
    target: str
    precision: str
    functions: str = FUNCTIONS

    @property
    def kernel(self) -> str:
        """The kernel's name, with what makes this variant one of several."""
        constants, name = self.variant.constants, self.variant.kernel
        if "cell" in constants:
            name += f"-{constants['cell']}"
        if constants.get("with_bias") is False:
            name += "-no-bias"
        return name


@dataclass(slots=True)
class Measurement:
    """What a job came to. What is None was not found or has no meaning for the kernel; `failures` says why it fails."""

    kernel: str
    target: str
    precision: str
    hidden: int
    num_warps: int
    registers: int | None = None
    spills: int | None = None
    local_bytes: int | None = None
    shared_bytes: int | None = None
    instructions_per_step_per_16_candidates: float | None = None  # of one warp
    instructions_per_step_per_16_candidates_all_warps: float | None = None
    instructions_per_step: float | None = None  # of one warp, for its program's rows
    attention_instructions_per_step_per_16_candidates: float | None = None
    padding_per_step: float | None = None  # of one warp; in none of the counts
    repeated_products: float | None = None
    spill_store_bytes: int | None = None
    spill_load_bytes: int | None = None
    scalar_registers: int | None = None
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job) -> Measurement:
        """Nothing measured yet."""
        variant = job.variant
        return cls(job.kernel, job.target, job.precision, variant.constants["hidden"], variant.num_warps)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation left: resources, instructions, the GPU IR, and what was said."""

    resources: records.Resources
    instructions: Sequence[Instruction]
    source: str
    messages: list[str]


@contextmanager
def captured(file: Path) -> Iterator[None]:
    """What this process writes to its standard streams, native code's writing included, goes to `file`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    with file.open("wb") as target:
        for stream, _ in kept:
            os.dup2(target.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def compiled(job: Job, scratch: Path) -> Compiled:
    """Compile in this process, whatever was compiled before. Raises what the compiler raises."""
    from triton import compile as build
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, name = job.functions.partition(":")
    function, variant = getattr(importlib.import_module(module), name)(job.variant), job.variant
    machine, _, arch = job.target.partition(":")
    target = GPUTarget(machine, int(arch), 32) if machine == "cuda" else GPUTarget(machine, arch, 64)
    source = ASTSource(function, variant.signature, variant.constants, variant.attributes)
    said = scratch / "messages"
    with knobs.cache.scope(), knobs.compilation.scope(), knobs.nvidia.scope():
        # What comes out of a cache comes without the compiler's messages; ptxas's are kept from view by default.
        knobs.cache.dir = str(scratch / "cache")
        knobs.compilation.always_compile = True
        knobs.nvidia.dump_ptxas_log = True
        with captured(said):
            kernel = build(source, target=target, options=variant.options)
    report, shared = said.read_text(errors="replace"), kernel.metadata.shared
    read = _read_nvidia if machine == "cuda" else _read_amd
    resources, instructions, more = read(kernel, report, scratch)
    resources = replace(resources, shared_bytes=resources.shared_bytes + shared)
    return Compiled(resources, instructions, kernel.asm["ttgir"], records.messages(report) + more)


_Read = tuple[records.Resources, list[Instruction], list[str]]


def _read_nvidia(kernel: Any, report: str, scratch: Path) -> _Read:
    from triton import knobs

    binary = scratch / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    usage, listing = (
        subprocess.run([*command, str(binary)], capture_output=True, text=True, check=True)
        for command in (
            [knobs.nvidia.cuobjdump.path, "-res-usage"],
            [knobs.nvidia.nvdisasm.path, "-json", "-ndf"],
        )
    )
    said = records.messages(usage.stderr) + records.messages(listing.stderr)
    instructions = read_sass(listing.stdout, kernel.metadata.name)
    return records.nvidia_resources(usage.stdout, report), instructions, said


def _read_amd(kernel: Any, report: str, scratch: Path) -> _Read:
    from triton.backends.amd.compiler import assemble_amdgcn

    text, binary = kernel.asm["amdgcn"], kernel.asm["hsaco"]
    # The package disassembles no AMD code. Its assembly counts as the binary's if it assembles to the same bytes.
    if _code(assemble_amdgcn(text, kernel.metadata.arch, "")) != _code(binary):
        raise DisassemblyError("the assembly does not assemble to the code of the binary")
    return records.amd_resources(binary), read_amdgcn(text, kernel.metadata.name), []


def _code(binary: bytes) -> bytes:
    code = [content for name, _, content in records.sections(binary) if name == ".text"]
    if len(code) != 1 or not code[0]:
        raise records.RecordError("no code in the object")
    return code[0]


def measure(job: Job, scratch: Path) -> Measurement:
    """Compile, read and judge. What goes wrong is among the measurement's failures."""
    found = Measurement.of(job)
    try:
        built = compiled(job, scratch)
    except subprocess.CalledProcessError as error:
        found.failures.append(f"cannot be read: {Path(error.cmd[0]).name} says: {_line(error.stderr)}")
        return found
    except Exception as error:  # whatever a compiler raises is reported, and the next kernel compiled
        said = scratch / "messages"
        last = records.messages(said.read_text(errors="replace"))[-3:] if said.exists() else []
        found.failures.append(f"does not compile: {type(error).__name__}: {_line(' '.join([str(error), *last]))}")
        return found
    for name, value in asdict(built.resources).items():
        setattr(found, name, value)
    found.failures += [f"the compiler says: {line.strip()}" for line in built.messages]
    found.failures += _memory_failures(job.variant.machine, built)
    try:
        _count(found, job.variant, built)
    except DisassemblyError as error:
        found.failures.append(str(error))
    return found


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_LINE else f"... {line[-LONGEST_LINE:]}"  # the end says what is wrong


def _memory_failures(machine: str, built: Compiled) -> Iterator[str]:
    taken, prefixes = built.resources, LOCAL_MEMORY[machine]
    on_it = sum(each.opcode.startswith(prefixes) for each in built.instructions)
    if taken.spills or taken.local_bytes or on_it:
        spilled = f"{taken.spills} {'bytes' if machine == 'cuda' else 'registers'}"
        yield f"spills {spilled}, takes {taken.local_bytes} bytes of local memory, has {on_it} instructions on it"


def _count(found: Measurement, variant: Variant, built: Compiled) -> None:
    """The instructions of the loops over time, and the classes of instructions that must be in them."""
    if variant.kernel in WITHOUT_PRODUCTS:
        return
    everything = walks(built.instructions, source_loops(built.source), variant.num_warps)
    if not everything:
        raise DisassemblyError("no loop with matrix instructions")
    recurrent = variant.kernel in RECURRENT
    scores = everything[:-1] if recurrent else everything if variant.kernel == "attention" else []
    for walk in scores:
        found.failures += _missing(walk, variant.machine, ("matrix", "exp2"), "loop over scores")
    if scores:
        each = sum(walk.instructions for walk in scores)
        found.attention_instructions_per_step_per_16_candidates = _scaled(each, variant)
    last = everything[-1]
    if not recurrent:
        found.failures += _missing(last, variant.machine, ("matrix",), "loop")
        return
    due = ("matrix", *GATES[variant.constants["form"]], *(("exp2",) if variant.kernel == "evolve" else ()))
    found.failures += _missing(last, variant.machine, due, "time loop")
    found.instructions_per_step, found.padding_per_step = last.instructions, last.padding
    found.instructions_per_step_per_16_candidates = _scaled(last.instructions, variant) / variant.num_warps
    found.instructions_per_step_per_16_candidates_all_warps = _scaled(last.instructions, variant)
    found.repeated_products = last.repeated


def _scaled(instructions: float, variant: Variant) -> float:
    """Of all warps of a program, for 16 of its candidates."""
    return instructions * variant.num_warps * NAMED / float(variant.constants["block"])


def _missing(walk: Walk, machine: str, due: Sequence[str], where: str) -> Iterator[str]:
    for name in dict.fromkeys(due):
        opcodes = CLASSES[machine][name]
        if not any(opcode.startswith(opcodes) for opcode in walk.opcodes):
            yield f"no {' or '.join(opcodes)} in the {where}"
