"""DIEN: interest extractor, attention, interest evolution, head (Zhou et al., AAAI 2019).

B rows, T steps, H hidden, F item fields, K context fields, D width of one embedding, E = F·D of an item, A of an
action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import CELLS
from model.features import FeatureSchema
from model.layers import Gru, Mlp

LARGEST = 4096  # of every width
ACTIVATIONS = ("dice", "prelu")
AUXILIARIES = ("net", "inner", "none")

Embed = Callable[[Tensor], Tensor]


class ConfigError(ValueError):
    """A configuration that breaks a rule: the message names the setting, its value and the rule."""


@dataclass(frozen=True, slots=True)
class DienConfig:
    """The shape of a DIEN."""

    hidden: int = field(default=32, metadata={"help": "size of the interest states"})
    embedding: int = field(default=18, metadata={"help": "width of one field's embedding"})
    cell: str = field(default="augru", metadata={"help": "of interest evolution", "choices": CELLS})
    head: tuple[int, ...] = field(default=(200, 80), metadata={"help": "widths of the last net's layers"})
    activation: str = field(default="dice", metadata={"help": "of the last net", "choices": ACTIVATIONS})
    auxiliary: str = field(
        default="net", metadata={"help": "auxiliary loss: small net, inner product, or none", "choices": AUXILIARIES}
    )
    initial_deviation: float = field(default=0.01, metadata={"help": "standard deviation of new embeddings"})

    def __post_init__(self) -> None:
        for name in ("hidden", "embedding"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"{name}={getattr(self, name)}: from 1 to {LARGEST}")
        if not 1 <= len(self.head) <= 8 or not all(1 <= width <= LARGEST for width in self.head):
            raise ConfigError(f"head={self.head}: one to eight widths from 1 to {LARGEST}")
        if not 0 <= self.initial_deviation < float("inf"):
            raise ConfigError(f"initial_deviation={self.initial_deviation}: finite and not negative")
        choices = {"cell": CELLS, "activation": ACTIVATIONS, "auxiliary": AUXILIARIES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: one of {', '.join(allowed)}")


class Inputs(NamedTuple):
    """A padded batch: rows of tables, histories left-aligned and oldest first, past the length anything."""

    user: Tensor  # int64 [B]
    context: Tensor  # int64 [B, K]
    target: Tensor  # int64 [B] rows of the catalogue
    history: Tensor  # int64 [B, T] rows of the catalogue
    actions: Tensor  # int64 [B, T]
    lengths: Tensor  # int64 [B]


class Following(NamedTuple):
    """What the auxiliary loss asks of the states, beside `Inputs.history`: which behaviours it should foretell."""

    chosen: Tensor  # bool [B, T] the behaviour is to be told as coming next
    negatives: Tensor  # int64 [B, T] rows of the catalogue: items not chosen then
    against: Tensor  # bool [B, T] the negative counts


def table_sizes(schema: FeatureSchema) -> dict[str, int]:
    """Rows of each embedding table by its name. Raises ConfigError for a name that no table can have."""
    names = [*schema.item_fields, *schema.context_fields]
    for name in names:
        # A table is a submodule of this name, and torch keeps some names for itself.
        if names.count(name) > 1 or name in ("user_id", "action") or "." in name or hasattr(nn.ModuleDict(), name):
            raise ConfigError(f"field {name!r}: used twice, or a name that is taken; rename the column")
    sizes = {name: len(vocabulary) for name, vocabulary in schema.vocabularies.items()}
    return sizes | ({"action": len(schema.actions) + 1} if schema.actions else {})


class Embeddings(nn.Module):
    """The tables of a schema: item fields, actions, user, context. Booster and light net may share one."""

    item_rows: Tensor

    def __init__(self, schema: FeatureSchema, width: int, deviation: float) -> None:
        super().__init__()
        self.width = width
        self.item_fields = schema.item_fields
        self.context_fields = schema.context_fields
        self.register_buffer("item_rows", torch.from_numpy(schema.item_rows), persistent=False)
        self.tables = nn.ModuleDict({name: nn.Embedding(size, width) for name, size in table_sizes(schema).items()})
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=deviation)  # type: ignore[arg-type]
        self.item_width = width * len(self.item_fields)
        self.action_width = width if schema.actions else 0
        self.side_width = width * (len(self.context_fields) + schema.uses_user_id)

    def items(self, rows: Tensor) -> Tensor:
        """Items by their rows of the catalogue: `[...]` to `[..., E]`."""
        fields = self.item_rows[rows]
        return torch.cat([self.tables[name](fields[..., n]) for n, name in enumerate(self.item_fields)], dim=-1)

    def behaviors(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Behaviours: the item, and beside it what was done, `[..., E + A]`."""
        items = self.items(rows)
        return torch.cat([items, self.tables["action"](actions)], dim=-1) if self.action_width else items

    def side(self, user: Tensor, context: Tensor) -> Tensor:
        """User and context fields, `[B, side_width]`."""
        parts = [self.tables[name](context[:, n]) for n, name in enumerate(self.context_fields)]
        if "user_id" in self.tables:
            parts.insert(0, self.tables["user_id"](user))
        return torch.cat(parts, dim=-1) if parts else context.new_zeros(len(user), 0, dtype=torch.float32)


class AuxiliaryNet(nn.Module):
    """How well a state foretells an item: a 100-50-1 net as in the released code, or the paper's inner product.

    The item alone, without what was done with it: that would give away which one was chosen.
    """

    def __init__(self, form: str, hidden: int, item: int) -> None:
        super().__init__()
        self.form = form
        if form == "net":
            self.of_state = nn.Linear(hidden, 100)
            self.of_item = nn.Linear(item, 100, bias=False)
            self.rest = nn.Sequential(nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 1))
        elif hidden != item:
            # The inner product wants one width; hidden is free of it, so items are mapped.
            self.map = nn.Linear(item, hidden, bias=False)

    def forward(self, states: Tensor, items: Tensor) -> Tensor:
        """Logits `[..., 1]` of `states [..., H]` and `items [..., E]`."""
        if self.form == "net":
            return self.rest(self.of_state(states) + self.of_item(items))  # type: ignore[no-any-return]
        mapped = self.map(items) if hasattr(self, "map") else items
        return (states * mapped).sum(-1, keepdim=True)


def auxiliary_loss(net: AuxiliaryNet, states: Tensor, items: Tensor, following: Following, embed: Embed) -> Tensor:
    """L_aux (DIEN eq. 7): each state tells what was chosen next from what was not, over real steps alone.

    `states [T-1, B, H]`; `items` and the parts of `following`, each `[T-1, B]`, are those of the next step. With one
    negative for each positive this is the paper's mean over pairs; 0 when there is nothing to tell.
    """
    told = net(states[following.chosen], embed(items[following.chosen]))
    told_not = net(states[following.against], embed(following.negatives[following.against]))
    # log σ(x) for what was chosen, log(1 - σ(x)) for what was not.
    gain = F.logsigmoid(told).sum() + F.logsigmoid(-told_not).sum()
    return -gain / max((len(told) + len(told_not)) / 2, 1)


class Dien(nn.Module):
    """The network. `forward` gives logits; `interests` and `attend` give what lies between."""

    def __init__(self, schema: FeatureSchema, config: DienConfig, embeddings: Embeddings | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = embeddings or Embeddings(schema, config.embedding, config.initial_deviation)
        item, behavior = self.embeddings.item_width, self.embeddings.item_width + self.embeddings.action_width
        self.extractor = Gru(behavior, config.hidden)
        self.attention = nn.Linear(item, config.hidden, bias=False)  # W of a = softmax(h W e_a)
        self.evolution = Gru(config.hidden, config.hidden)
        self.head = Mlp(
            self.embeddings.side_width + item + behavior + item + config.hidden, config.head, config.activation
        )
        self.auxiliary = None if config.auxiliary == "none" else AuxiliaryNet(config.auxiliary, config.hidden, item)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits `[B]`."""
        behaviors = self.behaviors(inputs)
        return self.logits(inputs, behaviors, self.interests(behaviors, inputs.lengths))

    def behaviors(self, inputs: Inputs) -> Tensor:
        """The behaviour layer, steps first: `[T, B, E + A]` (DIEN section 3.1)."""
        return self.embeddings.behaviors(inputs.history.t(), inputs.actions.t())

    def interests(self, behaviors: Tensor, lengths: Tensor) -> Tensor:
        """Interest states `[T, B, H]` (DIEN section 3.2); past the length the last real one."""
        real = mask(lengths, behaviors.shape[0]).to(behaviors.dtype)
        return self.extractor(behaviors, real, lengths)  # type: ignore[no-any-return]

    def attend(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """Attention `[T, B]` of `target [B, E]` over real steps (DIEN eq. 9); all zero for an empty history."""
        scores = (states * self.attention(target)).sum(-1)
        real = mask(lengths, states.shape[0])
        # A finite filling: a row without a real step must give zeros, and -inf would give NaN there.
        weights = torch.softmax(scores.masked_fill(~real, torch.finfo(scores.dtype).min), dim=0)
        return weights * real

    def evolve(self, states: Tensor, attention: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, H]` (DIEN section 3.3): AUGRU, AGRU or AIGRU by configuration."""
        if self.config.cell == "aigru":
            real = mask(lengths, states.shape[0]).to(states.dtype)
            evolved = self.evolution(states * attention.unsqueeze(-1), real, lengths)
        else:
            evolved = self.evolution(states, attention, lengths, self.config.cell)
        return evolved[-1]  # type: ignore[no-any-return]

    def logits(self, inputs: Inputs, behaviors: Tensor, states: Tensor) -> Tensor:
        """Logits `[B]` from `behaviors [T, B, E + A]` and interest states `[T, B, H]`."""
        target = self.embeddings.items(inputs.target)
        real = mask(inputs.lengths, behaviors.shape[0]).to(behaviors.dtype)
        pooled = (behaviors * real.unsqueeze(-1)).sum(0) / inputs.lengths.clamp(min=1).unsqueeze(-1)
        final = self.final(states, target, inputs.lengths)
        crossed = target * pooled[:, : target.shape[1]]
        side = self.embeddings.side(inputs.user, inputs.context)
        return self.head(torch.cat([side, target, pooled, crossed, final], dim=-1))  # type: ignore[no-any-return]

    def final(self, states: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The final interest `[B, H]` towards `target [B, E]`."""
        return self.evolve(states, self.attend(states, target, lengths), lengths)

    def losses(self, inputs: Inputs, following: Following, clicks: Tensor) -> dict[str, Tensor]:
        """`target` and `auxiliary` losses (DIEN eq. 6-8), and the logits."""
        behaviors = self.behaviors(inputs)
        states = self.interests(behaviors, inputs.lengths)
        logits = self.logits(inputs, behaviors, states)
        losses = {"logits": logits, "target": F.binary_cross_entropy_with_logits(logits, clicks)}
        if self.auxiliary is not None:
            after = Following(*(part.t()[1:] for part in following))
            history = inputs.history.t()[1:]
            losses["auxiliary"] = auxiliary_loss(self.auxiliary, states[:-1], history, after, self.embeddings.items)
        return losses

    def parameter_groups(self, embedding_decay: float) -> list[dict[str, Any]]:
        """Parameters for the optimiser: embeddings with weight decay, all others without."""
        embedded = {id(parameter) for parameter in self.embeddings.parameters()}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in embedded]
        return [
            {"params": list(self.embeddings.parameters()), "weight_decay": embedding_decay},
            {"params": rest, "weight_decay": 0.0},
        ]


def mask(lengths: Tensor, steps: int) -> Tensor:
    """True on the first `lengths` of `steps`: bool `[T, B]`."""
    return torch.arange(steps, device=lengths.device).unsqueeze(-1) < lengths


def settings_of(config: DienConfig) -> Mapping[str, object]:
    """The configuration as JSON writes it."""
    return {
        name: list(value) if isinstance(value := getattr(config, name), tuple) else value for name in config.__slots__
    }
