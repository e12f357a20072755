"""The arithmetic of DIEN over ragged batches: interest states, attention, interest evolution.

Shapes, in every function: U users, N behaviours of all users end to end (oldest first), C candidates, I inputs,
H hidden.
"""

from kernels.contract import BACKENDS, CELLS, BackendUnavailableError, GruWeights, KernelInputError
from kernels.ops import attention, evolve, gru, resolve_backend

__all__ = [
    "BACKENDS",
    "CELLS",
    "BackendUnavailableError",
    "GruWeights",
    "KernelInputError",
    "attention",
    "evolve",
    "gru",
    "resolve_backend",
]
