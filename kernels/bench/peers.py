"""The public DIENs: a whole forward of each on the same work, timed; its evolution layer with our weights, checked.

Both score C rows, each with a history of its own: a user's is repeated for every candidate, and so is all work on it.
Hidden and embedding size are H; beside the item they get one feature of the user.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kernels.bench.case import Case, evolution
from kernels.bench.contender import CannotRunError, Contender, Prepared
from kernels.contract import GruWeights
from kernels.ops import attention

HEAD = (256, 128)
USER_WIDTH = 8
EXTRA = "the extra `peers` is not installed"


def _installed(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise CannotRunError(EXTRA)


def _deepctr(name: str) -> Any:
    """A module of deepctr_torch, whose import would else ask a registry for newer versions, in a thread."""
    silent = ModuleType("deepctr_torch.utils")
    silent.check_version = lambda version: None  # type: ignore[attr-defined]
    sys.modules.setdefault("deepctr_torch.utils", silent)
    return importlib.import_module(f"deepctr_torch.{name}")


def _ids(case: Case) -> tuple[Tensor, Tensor, int]:
    """Items of histories `[C, T]` and of candidates `[C]`, from 1 on, and how many there are with 0, which is none."""
    behaviors, candidates = len(case.states), len(case.queries)
    histories = (torch.arange(behaviors) + 1).view(len(case.offsets) - 1, -1)[case.user_of]
    return histories, torch.arange(candidates) + behaviors + 1, behaviors + candidates + 1


def _start(model: torch.nn.Module, hidden: int) -> torch.nn.Module:
    """Weights of ordinary size: those that the peers start with are so small that all states are zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = (torch.rand(parameter.shape, generator=generator) * 2 - 1) * hidden**-0.5
    return model.eval()


def deepctr(case: Case) -> Prepared:
    """DeepCTR-Torch: attention by a small network, softmax over it, then AUGRU in Python."""
    _installed("deepctr_torch")
    hidden, (histories, candidates, items) = case.weights.hidden, _ids(case)
    steps = histories.shape[1]
    features = _deepctr("inputs")
    item = features.SparseFeat("item", items, embedding_dim=hidden)
    past = features.SparseFeat("hist_item", items, embedding_dim=hidden, embedding_name="item")
    columns = [
        features.SparseFeat("user", len(case.offsets), embedding_dim=USER_WIDTH),
        item,
        features.VarLenSparseFeat(past, maxlen=steps, length_name="length"),
    ]
    model = _start(
        _deepctr("models.dien").DIEN(columns, ["item"], gru_type="AUGRU", dnn_hidden_units=HEAD, device="cpu"), hidden
    )
    lengths = torch.full_like(candidates, steps)
    rows = torch.cat([case.user_of[:, None], candidates[:, None], histories, lengths[:, None]], dim=1).float()
    return Prepared(lambda: model(rows), lambda: _deepctr_evolution(model, case))


def one_bias(case: Case) -> Case:
    """The case with a bias inside the reset product that is the candidate's bias outside it."""
    bias_candidate = case.weights.bias.chunk(3)[2]
    return case._replace(weights=case.weights._replace(bias_candidate=bias_candidate))


def _deepctr_evolution(model: Any, case: Case) -> Tensor:
    """Its AUGRU on our weights and our attention. It has one bias, which it adds to both products."""
    layer, weights = type(model.interest_evolution.interest_evolution), one_bias(case).weights
    evolving = layer(weights.hidden, weights.hidden, gru_type="AUGRU")
    b_u, b_r, b_c = weights.bias.chunk(3)
    with torch.no_grad():
        evolving.rnn.weight_ih.copy_(_reset_first(weights.w_input))
        evolving.rnn.weight_hh.copy_(_reset_first(weights.w_recurrent))
        evolving.rnn.bias_hh.copy_(torch.cat([b_r / 2, b_u / 2, b_c]))
    attended = attention(case.states, case.offsets, case.queries, case.user_of, backend="reference")
    lengths = case.offsets.diff()[case.user_of]
    packed = [pack_padded_sequence(each, lengths, batch_first=True) for each in (case.copies(), attended)]
    return pad_packed_sequence(evolving(*packed), batch_first=True)[0][:, -1]


def _reset_first(columns: Tensor) -> Tensor:
    u, r, c = columns.chunk(3, dim=1)
    return torch.cat([r, u, c], dim=1).T


def rechub(case: Case) -> Prepared:
    """torch-rechub: attention by a bilinear form, as the paper's; its forward computes the auxiliary loss, too."""
    _installed("torch_rechub")
    hidden, (histories, candidates, items) = case.weights.hidden, _ids(case)
    features: Any = importlib.import_module("torch_rechub.basic.features")
    past = {"embed_dim": hidden, "pooling": "concat", "shared_with": "item", "padding_idx": 0}
    model = importlib.import_module("torch_rechub.models.ranking.dien").DIEN(
        [features.SparseFeature("user", len(case.offsets), embed_dim=USER_WIDTH)],
        [features.SequenceFeature("history", items, **past)],
        [features.SequenceFeature("negatives", items, **past)],
        [features.SparseFeature("item", items, embed_dim=hidden, padding_idx=0)],
        {"dims": list(HEAD)},
    )
    _start(model, hidden)
    rows = {"user": case.user_of, "item": candidates, "history": histories, "negatives": histories.flip(1)}
    return Prepared(lambda: model(rows)[0], lambda: _rechub_evolution(model, case))


def no_inner_bias(case: Case) -> Case:
    """The case in the paper's form: no bias inside the reset product."""
    return case._replace(weights=case.weights._replace(bias_candidate=torch.zeros_like(case.weights.bias_candidate)))


def _rechub_evolution(model: Any, case: Case) -> Tensor:
    """Its attention and AUGRU on our weights; our queries are W·e already, so its W is the identity."""
    weights: GruWeights = case.weights
    evolving = type(model.interest_evolving_layers[0])(weights.hidden)
    cell = evolving.augru_cell
    with torch.no_grad():
        evolving.Wa.copy_(torch.eye(weights.hidden))
        for name, columns in (("W", weights.w_input), ("U", weights.w_recurrent), ("b", weights.bias[None])):
            for gate, own in zip("urh", columns.chunk(3, dim=1), strict=True):
                getattr(cell, name + gate).copy_(own)
    last: Tensor = evolving(case.copies(), case.queries)[1]
    return last


def contenders() -> dict[str, Contender]:
    """Both; where the extra is not installed they say so."""
    note = "whole forward on the same work; checked: its AUGRU on our weights"
    return {
        "deepctr-torch": Contender(
            deepctr, f"DeepCTR-Torch's DIEN, {note} and attention", due=lambda case: evolution(one_bias(case))
        ),
        "torch-rechub": Contender(
            rechub, f"torch-rechub's DIEN, {note}, attention too", due=lambda case: evolution(no_inner_bias(case))
        ),
    }
