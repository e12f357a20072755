"""Variants of kernels of the tests' own, for `kernels.aot`; their code is in `aot_kernels`."""

from dataclasses import dataclass, field
from typing import Any, cast

from kernels.aot.measure import Job
from kernels.triton.variants import Variant

FUNCTIONS = "aot_kernels:function_of"
CONSTANTS = {
    "hidden": 32,
    "block": 16,
    "form": "exp",
    "exact": False,
    "unroll": 1,
    "matrix": True,
    "gates": "exp",
    "remarks": False,
}


@dataclass(frozen=True)
class OwnVariant:
    """Of `recurrence`, under the name of a kernel whose rules hold for it."""

    kernel: str
    machine: str
    constants: dict[str, Any]
    num_warps: int = 1
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> dict[str, str]:
        pointers = dict.fromkeys(("inputs", "weights", "out"), "*fp32")
        return pointers | {"steps": "i32"} | dict.fromkeys(self.constants, "constexpr")

    @property
    def attributes(self) -> dict[tuple[int], list[list[Any]]]:
        return {(place,): [["tt.divisibility", 16]] for place in range(3)}

    @property
    def options(self) -> dict[str, Any]:
        return {"num_warps": self.num_warps, "enable_fp_fusion": True, "num_stages": 1} | self.more


def own_job(
    target: str, *, kernel: str = "gru", num_warps: int = 1, more: dict[str, Any] | None = None, **constants: Any
) -> Job:
    """A job for `recurrence` with some constants changed and `more` options."""
    machine = target.partition(":")[0]
    variant = OwnVariant(kernel, machine, CONSTANTS | constants, num_warps, more or {})
    return Job(cast("Variant", variant), target, "fast", FUNCTIONS)
