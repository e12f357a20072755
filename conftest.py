"""What holds for all tests."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")

# Idle threads of torch sleep, here and in the processes that tests start: between two small products they would spin,
# on cores that other tests wait for. To be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="module")
def unwatched_processes() -> Iterator[None]:
    """For a module whose processes run what those of others do: coverage would cost each of them a second or more."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def poisoned_outputs() -> Iterator[None]:
    """Memory that torch allocates without a value is NaN: what a kernel leaves unwritten shows."""
    import torch  # noqa: PLC0415  # most tests need none of it

    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
