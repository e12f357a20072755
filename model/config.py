"""What a network is made of, and what each model of the zoo allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kernels import CELLS

LARGEST = 4096  # of every width
ACTIVATIONS = ("dice", "prelu")
ATTENTIONS = ("bilinear", "unit")
AUXILIARIES = ("net", "inner", "none")
AUTO, NONE = "auto", "none"
RELEASED = "augru_released"  # AUGRU with the update gate of the authors' code, which is not the paper's


class ConfigError(ValueError):
    """A configuration that breaks a rule: the message names the setting, its value and the rule."""


class Definition(NamedTuple):
    """A model's own settings: of each that it can have, its own first."""

    title: str
    attention: tuple[str, ...] = (NONE,)
    cell: tuple[str, ...] = (NONE,)
    auxiliary: tuple[str, ...] = (NONE, "net", "inner")
    recurrent: bool = False  # has interest states, of size `hidden`


def _evolving(title: str, *cells: str, auxiliary: tuple[str, ...] = (NONE, "net", "inner")) -> Definition:
    return Definition(title, ("bilinear", "unit"), cells, auxiliary, recurrent=True)


# The rows of the comparison in DIEN's tables 2 and 3, in their order.
MODELS: Mapping[str, Definition] = {
    "base": Definition("BaseModel"),
    "wide_deep": Definition("Wide&Deep"),
    "pnn": Definition("PNN"),
    "din": Definition("DIN", ("unit", "bilinear")),
    "gru_attention": Definition("GRU + attention", ("bilinear", "unit"), recurrent=True),
    "aigru": _evolving("GRU + AIGRU", "aigru"),
    "agru": _evolving("GRU + AGRU", "agru"),
    "augru": _evolving("GRU + AUGRU", "augru"),
    "dien": _evolving("DIEN", *CELLS, RELEASED, auxiliary=("net", "inner", NONE)),
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a network. What is `auto` becomes the model's own."""

    model: str = field(default="dien", metadata={"help": "which of the zoo", "choices": tuple(MODELS)})
    hidden: int = field(default=32, metadata={"help": "size of the interest states"})
    embedding: int = field(default=18, metadata={"help": "width of one field's embedding"})
    cell: str = field(
        default=AUTO,
        metadata={"help": "of interest evolution; another than AUGRU for dien", "choices": (AUTO, *CELLS, RELEASED)},
    )
    attention: str = field(
        default=AUTO,
        metadata={"help": "softmax of a bilinear product, or the activation unit", "choices": (AUTO, *ATTENTIONS)},
    )
    head: tuple[int, ...] = field(default=(200, 80), metadata={"help": "widths of the last net's layers"})
    activation: str = field(
        default="dice", metadata={"help": "of the last net and of the activation unit", "choices": ACTIVATIONS}
    )
    auxiliary: str = field(
        default=AUTO,
        metadata={"help": "auxiliary loss: small net, inner product, or none", "choices": (AUTO, *AUXILIARIES)},
    )
    initial_deviation: float = field(default=0.01, metadata={"help": "standard deviation of new embeddings"})
    inner_bias: bool = field(
        default=False,
        metadata={"help": "bias inside the reset product, r * (U h + bias), as in nn.GRU; the paper has none"},
    )

    def __post_init__(self) -> None:
        for name in ("hidden", "embedding"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"{name}={getattr(self, name)}: from 1 to {LARGEST}")
        if not 1 <= len(self.head) <= 8 or not all(1 <= width <= LARGEST for width in self.head):
            raise ConfigError(f"head={self.head}: one to eight widths from 1 to {LARGEST}")
        if not 0 <= self.initial_deviation < float("inf"):
            raise ConfigError(f"initial_deviation={self.initial_deviation}: finite and not negative")
        for name, allowed in (("model", tuple(MODELS)), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: one of {', '.join(allowed)}")
        for name in ("cell", "attention", "auxiliary"):
            allowed = getattr(self.definition, name)
            if getattr(self, name) == AUTO:
                object.__setattr__(self, name, allowed[0])
            if getattr(self, name) not in allowed:
                rule = f"one of {', '.join(allowed)}, for model={self.model}"
                raise ConfigError(f"{name}={getattr(self, name)!r}: {rule}")

        if self.inner_bias and not self.definition.recurrent:
            raise ConfigError(f"inner_bias=True: model={self.model} has no recurrent layer")

    @property
    def definition(self) -> Definition:
        """What the model is and allows."""
        return MODELS[self.model]

    @property
    def title(self) -> str:
        """The model as papers call it, with what was chosen of it: `DIEN augru hidden 32`."""
        own, parts = self.definition, [self.definition.title]
        parts += [self.cell] if len(own.cell) > 1 else []
        parts += [f"hidden {self.hidden}"] if own.recurrent else []
        parts += [f"{self.attention} attention"] if self.attention != own.attention[0] else []
        parts += ["inner bias"] if self.inner_bias else []
        return " ".join(parts)


def settings_of(config: ModelConfig) -> Mapping[str, object]:
    """The configuration as JSON writes it."""
    return {
        name: list(value) if isinstance(value := getattr(config, name), tuple) else value for name in config.__slots__
    }
