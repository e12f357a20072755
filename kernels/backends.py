"""Which body computes an operation: chosen by a rule that can be told, loaded at first use, never swapped silently."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from kernels.contract import BACKENDS, BackendUnavailableError, GruWeights, KernelInputError, check_choice
from kernels.heads import HeadInputs, HeadWeights

MODULES = {"reference": "kernels.reference", "native": "kernels.native", "triton": "kernels.triton"}

_log = logging.getLogger("augur.kernels")


class Backend(Protocol):
    """What a backend's module offers. Shapes, dtypes and devices have passed the checks; values and strides are its own
    business: it raises what `contract.check_values` raises, before anything else.
    """

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""

    def gru(
        self, inputs: Tensor, offsets: Tensor, weights: GruWeights, projected: bool, precision: str, threads: int
    ) -> Tensor:
        """`kernels.gru`."""

    def evolve(
        self,
        states: Tensor,
        offsets: Tensor,
        queries: Tensor,
        user_of: Tensor,
        weights: GruWeights,
        cell: str,
        precision: str,
        threads: int,
    ) -> Tensor:
        """`kernels.evolve`."""

    def attention(self, states: Tensor, offsets: Tensor, queries: Tensor, user_of: Tensor, threads: int) -> Tensor:
        """`kernels.attention`."""

    def pack_head(self, weights: HeadWeights) -> Any:
        """Weights in a form of its own, made once and given to every `head`."""

    def head(self, given: HeadInputs, weights: HeadWeights, packed: Any, threads: int) -> Tensor:
        """`kernels.head`."""


class Native(Backend, Protocol):
    """What the native one tells besides."""

    def isa(self) -> str:
        """The instruction set in use, such as "avx512"."""


def load_backend(name: str) -> Backend:
    """The module of a backend. Raises BackendUnavailableError, with its own reason, when it cannot run here."""
    module = _module(name)
    reason = module.unavailable()
    if reason is not None:
        raise BackendUnavailableError(f"backend {name!r} cannot run here: {reason}")
    return module


@cache
def _module(name: str) -> Backend:
    spec = importlib.util.find_spec(MODULES[name])
    if spec is None or spec.origin is None:
        raise BackendUnavailableError(f"backend {name!r} is not part of this installation")
    return cast(Backend, importlib.import_module(MODULES[name]))


def resolve_backend(
    backend: str, device: str = "cpu", dtype: torch.dtype = torch.float32, hidden: int | None = None
) -> str:
    """The backend that `backend` means for tensors on a type of device ("cpu", "cuda") with a dtype and a hidden size.

    "auto" is native for float32 on the CPU and triton for float32 on CUDA and HIP devices. It is reference where that
    one cannot run or does not take the hidden size, which a warning of the logger "augur.kernels" says once (it costs
    speed, and a log reaches those who can change it), and for all other dtypes and devices, which are the reference's
    alone. A backend asked for by name is never replaced.

    Raises KernelInputError for a name that is none and for tensors that the named backend does not take,
    BackendUnavailableError for a backend that cannot run here.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "auto":
        return _automatic(device, dtype, hidden)
    load_backend(backend)
    refusal = _refusal(backend, device, dtype, hidden)
    if refusal is not None:
        raise KernelInputError(f"backend: {refusal}")
    return backend


def backend_for(backend: str, tensor: Tensor, hidden: int) -> Backend:
    """The module that computes `backend` for such a tensor: as `resolve_backend`, which is asked once for each kind."""
    device = tensor.device.type
    if backend == "triton" and device == "cpu":  # its interpreter, which can be switched on and off
        return load_backend(resolve_backend(backend, device, tensor.dtype, hidden))
    return _resolved(backend, device, tensor.dtype, hidden)


@cache
def _resolved(backend: str, device: str, dtype: torch.dtype, hidden: int) -> Backend:
    return load_backend(resolve_backend(backend, device, dtype, hidden))


def _automatic(device: str, dtype: torch.dtype, hidden: int | None) -> str:
    wanted = {"cpu": "native", "cuda": "triton"}.get(device)
    if wanted is None or dtype != torch.float32:
        return "reference"
    try:
        return resolve_backend(wanted, device, dtype, hidden)
    except (BackendUnavailableError, KernelInputError) as error:
        _warn_once(f"{error}; on {device} the slower reference computes instead")
        return "reference"


@cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def _refusal(name: str, device: str, dtype: torch.dtype, hidden: int | None) -> str | None:
    """Why a backend that runs here does not take such tensors, or None."""
    if name == "reference":
        return None
    homes = ["cpu"]
    if name == "triton":
        homes = ["cuda", "cpu"] if importlib.import_module("kernels.triton.launch").interpreting() else ["cuda"]
        widest = importlib.import_module("kernels.triton.variants").WIDEST_HIDDEN
        if hidden is not None and hidden > widest:
            return f"{name!r} takes hidden sizes up to {widest}, not {hidden}"
    if device not in homes or dtype != torch.float32:
        return f"{name!r} computes torch.float32 on {' and '.join(homes)}, not {dtype} on {device}"
    return None


def describe_backend(name: str) -> str:
    """A backend in words, such as "native avx512": for native with the instruction set it uses.

    Raises KernelInputError for what is no backend's name (nor is "auto": resolve it first), BackendUnavailableError for
    one that cannot run here.
    """
    check_choice("backend", name, tuple(MODULES))
    module = load_backend(name)
    return f"native {cast(Native, module).isa()}" if name == "native" else name
