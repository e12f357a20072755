"""What holds for all tests."""

import os

from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")

# Idle threads of torch sleep, here and in the processes that tests start: between two small products they would spin,
# on cores that other tests wait for. To be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
