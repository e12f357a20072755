"""The arithmetic of DIEN over ragged batches: interest states, attention, interest evolution.

Shapes, in every function: U users, N behaviours of all users end to end (oldest first), C candidates, I inputs,
H hidden.
"""

from kernels.backends import describe_backend, resolve_backend
from kernels.contract import BACKENDS, CELLS, BackendUnavailableError, GruWeights, KernelInputError
from kernels.fused import Batch, Fused, Tables
from kernels.heads import HeadLayer, HeadWeights
from kernels.ops import Head, attention, evolve, gru, head, prepare_head
from kernels.scans import scan

__all__ = [
    "BACKENDS",
    "CELLS",
    "BackendUnavailableError",
    "Batch",
    "Fused",
    "GruWeights",
    "Head",
    "HeadLayer",
    "HeadWeights",
    "KernelInputError",
    "Tables",
    "attention",
    "describe_backend",
    "evolve",
    "gru",
    "head",
    "prepare_head",
    "resolve_backend",
    "scan",
]
