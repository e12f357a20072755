"""Small DIENs of other libraries, built by them and trained for a few steps, beside what a user would state of them."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from fuxictr_dien import FuxiDien
from torch import Tensor, nn

from model.convert.deepctr_torch import SETTINGS as DEEPCTR_SETTINGS
from model.convert.fuxictr import SETTINGS as FUXICTR_SETTINGS
from model.scorer import ScoreInput, Scorer, load_scorer

torch.set_num_threads(1)

LONGEST = 6
# Rows of the libraries' tables, 0 for padding, and what requests have in their place: in another order.
ITEM_ROWS = list(range(1, 12))
ITEM_IDS = [1000 + 37 * row % 101 for row in ITEM_ROWS]
CATEGORY_ROWS = [1 + row * row % 4 for row in ITEM_ROWS]
USERS = {"ids": [70, 50, 60], "rows": [1, 2, 3]}
TABS = {"ids": [9, -4, 7], "rows": [2, 0, 1]}
SIZES = {"item": 12, "category": 5, "user": 4, "tab": 3}


class Request(NamedTuple):
    """In ids: behaviours oldest first, candidate, user, tab."""

    history: list[int]
    item: int
    user: int
    tab: int


class Peer(NamedTuple):
    """A library's model: `rows` makes its input of requests, `scores` its probabilities [B] of that."""

    library: str
    model: Any  # nn.Module
    rows: Callable[[list[Request]], Any]
    scores: Callable[[Any], Tensor]
    features: dict[str, Any]


def requests(seed: int, number: int = 20, *, empty: bool = True) -> list[Request]:
    """Random requests; the first histories are the longest, empty and of one behaviour."""
    random = np.random.default_rng(seed)
    lengths = [LONGEST, 0 if empty else 2, 1, *random.integers(0 if empty else 1, LONGEST + 1, number - 3)]

    def drawn(ids: list[int], size: int) -> list[int]:
        return [int(one) for one in random.choice(ids, size)]

    return [
        Request(drawn(ITEM_IDS, length), *(drawn(ids, 1)[0] for ids in (ITEM_IDS, USERS["ids"], TABS["ids"])))
        for length in lengths
    ]


def columns(*names: str) -> list[dict[str, Any]]:
    """What a user states of these columns."""
    known: dict[str, dict[str, Any]] = {
        "item": {"name": "item", "kind": "item", "rows": ITEM_ROWS},
        "category": {"name": "category", "kind": "item", "rows": CATEGORY_ROWS},
        "user": {"name": "user", "kind": "user", **USERS},
        "tab": {"name": "tab", "kind": "context", **TABS},
    }
    return [known[name] for name in names]


def described(order: list[str], history: list[str], **settings: Any) -> dict[str, Any]:
    """The JSON file."""
    found = {"max_history": LONGEST, "items": {"ids": ITEM_IDS}, "columns": columns(*order), "history": history}
    return found | ({"settings": settings} if settings else {})


def item_rows(ids: list[int]) -> list[int]:
    return [ITEM_ROWS[ITEM_IDS.index(one)] for one in ids]


def category_rows(ids: list[int]) -> list[int]:
    return [CATEGORY_ROWS[ITEM_IDS.index(one)] for one in ids]


def padded(histories: list[list[int]]) -> Tensor:
    return torch.tensor([[*rows, *[0] * (LONGEST - len(rows))] for rows in histories])


def batch(asked: list[Request]) -> dict[str, Tensor]:
    """Rows by column; histories oldest first, then zeros."""
    histories = [one.history for one in asked]
    return {
        "user": torch.tensor([USERS["rows"][USERS["ids"].index(one.user)] for one in asked]),
        "tab": torch.tensor([TABS["rows"][TABS["ids"].index(one.tab)] for one in asked]),
        "item": torch.tensor(item_rows([one.item for one in asked])),
        "category": torch.tensor(category_rows([one.item for one in asked])),
        "hist_item": padded([item_rows(history) for history in histories]),
        "hist_category": padded([category_rows(history) for history in histories]),
        "length": torch.tensor([len(history) for history in histories]),
    }


def trained(peer: Peer, seed: int = 0) -> Peer:
    """The model after a few steps from weights of ordinary size, biases inside the reset product included."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peer.model.named_parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator) * 2 - 1
        if name.endswith(("bn.weight", ".1.weight")) and parameter.dim() == 1:
            parameter.data += 1.2  # a BatchNorm's gain
    optimizer = torch.optim.Adam(peer.model.parameters(), lr=0.02)
    peer.model.train()
    for step in range(4):
        asked = requests(100 + step, empty=False)
        clicks = torch.rand(len(asked), generator=generator).round()
        loss = nn.functional.binary_cross_entropy(peer.scores(peer.rows(asked)).flatten(), clicks)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    peer.model.eval()
    return peer


def written(peer: Peer, folder: Path, features: Mapping[str, Any] | None = None) -> list[str]:
    """The words of the command line that converts a model, its two files written."""
    torch.save(peer.model.state_dict(), folder / "model.pt")
    (folder / "features.json").write_text(json.dumps(features or peer.features))
    words = ("--from", peer.library, folder / "model.pt", "--features", folder / "features.json", "--out")
    return [*map(str, words), str(folder / "converted")]


def scores_of(scorer: Scorer, asked: list[Request]) -> np.ndarray[Any, Any]:
    """Scores [B] of an artifact."""
    context = "tab" in scorer.schema.context_fields
    inputs = [
        ScoreInput(
            item_ids=[one.item],
            history=one.history,
            context={"tab": one.tab} if context else {},
            user_id=one.user if scorer.schema.uses_user_id else None,
        )
        for one in asked
    ]
    return np.concatenate(scorer.score(inputs))


def largest_difference(peer: Peer, folder: Path) -> float:
    """Between the library's own forward and the artifact in a folder, over random requests.

    AssertionError where the order of a history or its candidate moves no score, so that nothing would be compared.
    """
    asked = requests(1, 60)
    reversed_, others = ([one._replace(history=one.history[::-1]) for one in asked], asked[1:] + asked[:1])
    moved = [one._replace(item=other.item) for one, other in zip(asked, others, strict=True)]
    with torch.inference_mode():
        due, *changed = (peer.scores(peer.rows(rows)).flatten().numpy() for rows in (asked, reversed_, moved))
    assert all(np.abs(due - one).max() > 1e-3 for one in changed)
    return float(np.abs(scores_of(load_scorer(folder), asked) - due).max())


def rechub(mlp: Callable[[Any, int], nn.Module] | None = None, dims: tuple[int, ...] = ()) -> Peer:
    """torch-rechub's; its head's activation is Dice, unless `mlp` makes another of the library's module and a width."""
    kinds: Any = importlib.import_module("torch_rechub.basic.features")
    past = {"embed_dim": 4, "pooling": "concat", "shared_with": "item", "padding_idx": 0}
    model = importlib.import_module("torch_rechub.models.ranking.dien").DIEN(
        [kinds.SparseFeature(name, SIZES[name], embed_dim=4) for name in ("user", "tab")],
        [kinds.SequenceFeature("hist_item", SIZES["item"], **past)],
        [kinds.SequenceFeature("neg_item", SIZES["item"], **past)],
        [kinds.SparseFeature(name, SIZES[name], embed_dim=4, padding_idx=0) for name in ("item", "category")],
        {"dims": list(dims)},
    )
    if mlp is not None:
        model.mlp = mlp(importlib.import_module("torch_rechub.basic.layers").MLP, model.all_dims)

    def rows(asked: list[Request]) -> dict[str, Tensor]:
        found = batch(asked)
        return found | {"neg_item": found["hist_item"].flip(0)}

    features = described(["item", "category", "user", "tab"], ["item"])
    return Peer("torch-rechub", model, rows, lambda given: model(given)[0], features)


def deepctr_module(name: str) -> Any:
    """A module of deepctr_torch, whose import would else ask a registry for newer versions, in a thread."""
    silent = ModuleType("deepctr_torch.utils")
    silent.check_version = lambda version: None  # type: ignore[attr-defined]
    sys.modules.setdefault("deepctr_torch.utils", silent)
    return importlib.import_module(f"deepctr_torch.{name}")


def deepctr(*, own_table: bool = False, **settings: Any) -> Peer:
    """DeepCTR-Torch's; `own_table` gives the history's categories an embedding of their own."""
    inputs = deepctr_module("inputs")
    widths = {"item": 4, "category": 3, "user": 2, "tab": 5}

    def sparse(name: str, of: str, table: str) -> Any:
        return inputs.SparseFeat(name, SIZES[of], embedding_dim=widths[of], embedding_name=table)

    def past(of: str, table: str, **length: Any) -> Any:
        return inputs.VarLenSparseFeat(sparse(f"hist_{of}", of, table), maxlen=LONGEST, **length)

    own = "hist_category" if own_table else "category"
    order = ["user", "item", "category", "tab"]
    model = deepctr_module("models.dien").DIEN(
        [
            *(sparse(name, name, name) for name in order),
            past("category", own, length_name="length"),
            past("item", "item"),
        ],
        ["item", "category"],
        dnn_hidden_units=(6, 5),
        att_hidden_units=(7, 3),
        **settings,
    )
    names = list(model.feature_index)

    def rows(asked: list[Request]) -> Tensor:
        found = batch(asked)
        return torch.cat([found[name].reshape(len(asked), -1) for name in names], dim=1).float()

    traceless = {key: value for key, value in settings.items() if key in DEEPCTR_SETTINGS}
    features = described(order, ["category", "item"], **traceless)
    if own_table:
        features["columns"][order.index("category")] |= {"history_table": own}
    return Peer("deepctr-torch", model, rows, model, features)


def with_dice(peer: Peer) -> Peer:
    """DeepCTR-Torch's model with its own Dice in the head."""
    layers = peer.model.dnn
    kind = deepctr_module("layers.activation").Dice
    layers.activation_layers = nn.ModuleList(kind(linear.out_features, dim=2) for linear in layers.linears)
    return peer


def fuxictr(**settings: Any) -> Peer:
    """FuxiCTR's, in our writing of it."""
    model = FuxiDien(SIZES, **settings)
    order = ["user", "item", "category", "tab"]
    traceless = {key: value for key, value in settings.items() if key in FUXICTR_SETTINGS}
    features = described(order, ["item", "category"], **traceless)
    if not model.long:
        for column in features["columns"][1:3]:
            column["history_table"] = f"hist_{column['name']}"
        features["training_only"] = ["neg_item"]
    return Peer("fuxictr", model, batch, model, features)
