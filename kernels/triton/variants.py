"""What is compiled: for each kernel its signature, constants and options, written once.

The launcher (`kernels.triton.launch`) launches from this data and `kernels.aot` compiles from it, so what is measured
without a GPU is what runs on one. `variants` lists all that a server of one hidden size and precision can meet;
`Variant.source` and `Variant.options` go to `triton.compile`.

The rule for shapes: a block of 16 candidates (or users) is one program. Where there are few programs each gets more
warps, which share the hidden columns ("latency"); where there are many each gets as few as its registers allow
("throughput").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernels.contract import CELLS

BLOCK = 16
SHAPES = ("latency", "throughput")
WIDEST_HIDDEN = 128
SCALE_BLOCK = 1024
SPLIT_BLOCK = 1024  # divides 3P² where P is past 64
# Bytes that one program may have, where an architecture has fewer than the largest.
SHARED_MEMORY = {"cuda:80": 166_912, "cuda:86": 101_376, "cuda:89": 101_376}
MOST_SHARED_MEMORY = 232_448
SHARED_BESIDES = 16_384  # what moves between layouts, beside the weights
PROJECTION_BLOCK = {"block_rows": 32, "block_columns": 32, "block_width": 32}
# One stage: the time loops read one step ahead by themselves.
OPTIONS: dict[str, dict[str, Any]] = {
    # Left to itself, the assembler rations registers so that more programs fit, and spills a few.
    "cuda": {"enable_fp_fusion": True, "num_stages": 1, "maxnreg": 255},
    "hip": {"enable_fp_fusion": True, "num_stages": 1, "allow_flush_denorm": True},
    "plain": {},
}
FLOATS, HALVES, INTEGERS = "*fp32", "*fp16", "*i64"
SIGNATURES: dict[str, dict[str, str]] = {
    "project": {
        "inputs": FLOATS,
        "weights": FLOATS,
        "bias": FLOATS,
        "out": FLOATS,
        "rows": "i64",
        "width": "i32",
    },
    "gru": {
        "projected": FLOATS,
        "offsets": INTEGERS,
        "order": INTEGERS,
        "weights": FLOATS,
        "bias_candidate": FLOATS,
        "out": FLOATS,
        "users": "i32",
    },
    "split": {"weights": FLOATS, "out": HALVES},
    "scale": {"inputs": FLOATS, "out": FLOATS, "elements": "i64"},
    "attention": {
        "states": FLOATS,
        "queries": FLOATS,
        "order": INTEGERS,
        "table": INTEGERS,
        "out": FLOATS,
        "longest": "i32",
    },
    "evolve": {
        "states": FLOATS,
        "projected": FLOATS,
        "queries": FLOATS,
        "order": INTEGERS,
        "table": INTEGERS,
        "weights": FLOATS,
        "bias": FLOATS,
        "bias_candidate": FLOATS,
        "scores": FLOATS,
        "out": FLOATS,
    },
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One compilation of one kernel."""

    kernel: str  # "project", "scale", "split", "gru", "attention" or "evolve": `kernels.triton.device.<kernel>_kernel`
    machine: str  # "cuda", "hip", or "plain" for the interpreter
    constants: dict[str, Any]
    num_warps: int

    @property
    def splits(self) -> bool:
        """Whether the recurrent weights come from the kernel "split"."""
        return self.constants.get("storage") in ("shared", "memory")

    @property
    def signature(self) -> dict[str, str]:
        """Each argument's type in the order of the kernel's parameters, "constexpr" for the constants."""
        weights = {"weights": HALVES} if self.splits else {}
        return SIGNATURES[self.kernel] | weights | dict.fromkeys(self.constants, "constexpr")

    @property
    def attributes(self) -> dict[tuple[int], list[list[Any]]]:
        """What the compiler may assume: all pointers at multiples of 16 bytes (the launcher sees to it).

        On AMD also that a tensor is under 2 GB: a larger one is compiled for when it is met.
        """
        known = [["tt.divisibility", 16]] + ([["tt.pointer_range", 32]] if self.machine == "hip" else [])
        return {(place,): known for place, kind in enumerate(SIGNATURES[self.kernel].values()) if kind.startswith("*")}

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compilation."""
        return OPTIONS[self.machine] | {"num_warps": self.num_warps}


def padded_width(hidden: int) -> int:
    """P: the power of two that holds `hidden`, at least 16."""
    return max(16, 1 << (hidden - 1).bit_length())


def gate_form(machine: str, precision: str) -> str:
    """Which form of the gates: an approximate tanh where the machine has one in hardware and precision allows."""
    return "tanh" if precision == "fast" and machine != "hip" else "exp"


def is_turned(machine: str) -> bool:
    """Whether the product is computed transposed, weights first.

    On AMD the waves of a program divide the rows of the first operand between them, of which a state has one tile.
    """
    return machine == "hip"


def float_products(machine: str, precision: str = "exact") -> str:
    """How a product of float32 operands outside the time loop is made: of bfloat16 parts, in float32's range.

    Six of them have float32's bits, three have 16 and a half. The interpreter knows neither, and multiplies in float32.
    """
    if machine == "plain":
        return "ieee"
    return "bf16x6" if precision == "exact" else "bf16x3"


def _warps(padded: int, shape: str, machine: str) -> int:
    per_block = max(1, padded // 32)
    if machine == "hip":
        return per_block if shape == "throughput" else 2 * per_block
    if padded > 64:  # with fewer the registers do not hold a step
        return 8
    return per_block if shape == "throughput" else 4


def project(hidden: int, precision: str, machine: str, *, with_bias: bool) -> Variant:
    """The input projection, scaled for the gates' form."""
    padded = padded_width(hidden)
    blocks = PROJECTION_BLOCK | {"block_columns": min(32, padded)}
    constants = {
        "hidden": hidden,
        "padded": padded,
        "form": gate_form(machine, precision),
        "with_bias": with_bias,
    } | blocks
    return Variant("project", machine, constants | {"products": float_products(machine, precision)}, 4)


def scale(hidden: int, precision: str, machine: str) -> Variant:
    """The caller's input projection in the form of our own."""
    constants = {"hidden": hidden, "padded": padded_width(hidden), "form": gate_form(machine, precision)}
    return Variant("scale", machine, constants | {"block_elements": SCALE_BLOCK}, 4)


def split(hidden: int, precision: str, machine: str) -> Variant:
    """The recurrent weights as the kernels want them where they are too many to be split by each program."""
    constants = {"hidden": hidden, "padded": padded_width(hidden), "form": gate_form(machine, precision)}
    return Variant("split", machine, constants | {"block_elements": SPLIT_BLOCK}, 4)


def _storage(padded: int, precision: str, machine: str, num_warps: int, shared_memory: int) -> str:
    """Where the recurrent weights are in the time loop.

    "own": split by the program, and left to the compiler, which on AMD keeps them in registers and on NVIDIA in shared
    memory; "registers": made to stay there; "shared": split beforehand, in shared memory; "memory": split beforehand,
    and read anew for every step, since neither holds them.
    """
    if machine == "hip":
        return "own"
    if padded > 64:
        fits = padded * padded * (12 if precision == "exact" else 6) + SHARED_BESIDES <= shared_memory
        return "shared" if fits else "memory"
    # Several warps each hold other columns than those that `kept` would leave them with, and two halves of the weights
    # take so many registers that the rest spills, or fewer programs fit than the fetches cost.
    kept = machine == "cuda" and num_warps == 1 and precision == "fast"
    return "registers" if kept else "own"


def _recurrent(precision: str, machine: str, storage: str) -> dict[str, Any]:
    return {
        "turned": is_turned(machine),
        "storage": storage,
        "exact": precision == "exact",
        "form": gate_form(machine, precision),
        "machine": machine,
    }


def gru(hidden: int, precision: str, machine: str, shape: str, shared_memory: int = MOST_SHARED_MEMORY) -> Variant:
    """Interest states."""
    padded = padded_width(hidden)
    # Inputs of every row take registers: wide states are spread over more warps, however many users there are.
    warps = _warps(padded, "latency" if padded > 32 else shape, machine)
    storage = _storage(padded, precision, machine, warps, shared_memory)
    constants = {"hidden": hidden, "padded": padded, "block": BLOCK}
    return Variant("gru", machine, constants | _recurrent(precision, machine, storage), warps)


def _scored(hidden: int, machine: str, steps: int) -> dict[str, Any]:
    padded = padded_width(hidden)
    products = float_products(machine)
    return {"hidden": hidden, "padded": padded, "block": BLOCK, "steps": steps, "products": products}


def attention(hidden: int, machine: str) -> Variant:
    """The attention itself."""
    return Variant("attention", machine, _scored(hidden, machine, 64), 4)


def evolve(
    hidden: int,
    precision: str,
    machine: str,
    shape: str,
    shared_memory: int = MOST_SHARED_MEMORY,
    *,
    cell: str,
) -> Variant:
    """Interest evolution."""
    padded = padded_width(hidden)
    if cell == "aigru" and padded == 64 and precision == "exact":
        shape = "latency"  # inputs that differ from candidate to candidate leave two warps too few registers
    warps = _warps(padded, shape, machine)
    storage = _storage(padded, precision, machine, warps, shared_memory)
    steps = 16 * warps if padded <= 64 else 32
    constants = _scored(hidden, machine, steps) | {"cell": cell}
    return Variant("evolve", machine, constants | _recurrent(precision, machine, storage), warps)


def variants(hidden: int, precision: str, target: str = "cuda", *, cells: tuple[str, ...] = CELLS) -> Iterator[Variant]:
    """Every compilation that calls with this hidden size and precision can meet on `target`.

    A target is "cuda", "hip", or one with its architecture, "cuda:86": what fits its shared memory depends on it. Both
    launch shapes of `evolve` for each of `cells` and of `gru`; the projection with and without bias, and that of the
    caller; attention; wide weights split.
    """
    machine, shared_memory = target.partition(":")[0], SHARED_MEMORY.get(target, MOST_SHARED_MEMORY)
    found: dict[str, Variant] = {}
    for with_bias in (True, False):
        found |= _named(project(hidden, precision, machine, with_bias=with_bias))
    found |= _named(scale(hidden, precision, machine)) | _named(attention(hidden, machine))
    for shape in SHAPES:
        found |= _named(gru(hidden, precision, machine, shape, shared_memory))
        for cell in cells:
            found |= _named(evolve(hidden, precision, machine, shape, shared_memory, cell=cell))
    if any(one.splits for one in found.values()):
        found |= _named(split(hidden, precision, machine))
    yield from found.values()


def _named(variant: Variant) -> dict[str, Variant]:
    return {repr(variant): variant}
