"""A regression of the served GPU kernels is seen where there is no GPU: compiled, no spill, within its instructions."""

import pytest

from kernels.aot.__main__ import unavailable
from kernels.aot.measure import Job, Measurement
from kernels.aot.workers import measure_all
from kernels.contract import PRECISIONS
from kernels.triton.variants import variants

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.usefixtures("unwatched_processes"),
]

TARGETS = ("cuda:80", "cuda:90", "hip:gfx942")
HIDDEN = 32  # the light net's
# Instructions that one warp may take for a step: with several warps to a block of 16 (few users), and with one. A
# tenth above what was reached; whatever was reached, on sm_90 one warp may take no more than 300 fast, 520 exact.
BUDGETS = {
    ("cuda:80", "fast"): {"evolve-augru": (90, 250), "gru": (118, 385)},
    ("cuda:80", "exact"): {"evolve-augru": (148, 455), "gru": (178, 595)},
    ("cuda:90", "fast"): {"evolve-augru": (90, 250), "gru": (118, 385)},
    ("cuda:90", "exact"): {"evolve-augru": (146, 450), "gru": (170, 585)},
    ("hip:gfx942", "fast"): {"evolve-augru": (108, 195), "gru": (165, 275)},
    ("hip:gfx942", "exact"): {"evolve-augru": (144, 255), "gru": (195, 335)},
}
MOST = {"fast": 300, "exact": 520}
MOST_ATTENTION = 24  # for 16 candidates and a step, of the loop over scores


def served(target: str) -> list[Job]:
    """What a server of the light net launches, each compilation once."""
    found: dict[str, Job] = {}
    for precision in PRECISIONS:
        for variant in variants(HIDDEN, precision, target, cells=("augru",)):
            found.setdefault(repr(variant), Job(variant, target, precision))
    return list(found.values())


@pytest.fixture(scope="module")
def found() -> list[Measurement]:
    return measure_all([job for target in TARGETS for job in served(target)])


@pytest.mark.parametrize("target", TARGETS)
def test_no_compiler_complains_and_nothing_spills(target: str, found: list[Measurement]) -> None:
    own = [one for one in found if one.target == target]
    assert {one.kernel for one in own} >= {"project", "gru", "attention", "evolve-augru"}
    assert [f"{one.kernel} {one.precision} {one.num_warps}: {one.failures}" for one in own if one.failures] == []
    assert {(one.spills, one.local_bytes) for one in own} == {(0, 0)}


@pytest.mark.parametrize("kernel", ["evolve-augru", "gru"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", TARGETS)
def test_both_launch_shapes_keep_to_their_instructions(
    target: str, precision: str, kernel: str, found: list[Measurement]
) -> None:
    wanted = (target, precision, kernel)
    own = [one for one in found if (one.target, one.precision, one.kernel) == wanted]
    one_warp, several = sorted(own, key=lambda one: one.num_warps)
    assert one_warp.num_warps == 1 < several.num_warps
    most_of_several, most_of_one = BUDGETS[target, precision][kernel]
    assert 0 < (one_warp.instructions_per_step or 0) <= most_of_one
    assert 0 < (several.instructions_per_step or 0) <= most_of_several
    assert one_warp.instructions_per_step_per_16_candidates == one_warp.instructions_per_step
    if (target, kernel) == ("cuda:90", "evolve-augru"):
        assert all((one.instructions_per_step_per_16_candidates or 0) <= MOST[precision] for one in own)


@pytest.mark.parametrize("target", TARGETS)
def test_attention_keeps_to_its_instructions(target: str, found: list[Measurement]) -> None:
    own = [one for one in found if one.target == target and one.kernel == "evolve-augru"]
    assert len(own) == 4
    for one in own:
        assert 0 < (one.attention_instructions_per_step_per_16_candidates or 0) <= MOST_ATTENTION
