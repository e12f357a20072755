"""The models that are served, by name, and which of them answers whom."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from model.scorer import Scorer
from service.actions import ActionCodes
from service.errors import NotFoundError, shorten
from service.settings import ConfigError

SHADOW = "shadow"


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One version of a model, as requests meet it: a job keeps the one it was admitted with to its end."""

    name: str  # what requests and routes call it
    scorer: Scorer
    path: Path | None = None  # where it can be loaded again
    loaded_at: float = field(default_factory=time.time)  # seconds since 1970
    actions: ActionCodes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", ActionCodes(self.scorer.actions, self.scorer.default_action))

    @property
    def version(self) -> str:
        """The version of the artifact."""
        return self.scorer.version


@dataclass(frozen=True, slots=True)
class Routes:
    """Which share of the users each model answers, and which models score in the shadow of the answer.

    As text: `champion=90,challenger=10,next=shadow`, or `next=shadow:5` for five users of a hundred.
    """

    weights: Mapping[str, float]
    shadows: Mapping[str, float] = field(default_factory=dict)  # name to share of the users, 0 to 1

    @classmethod
    def parse(cls, text: str) -> Routes:
        """Raises ConfigError naming AUGUR_ROUTES and the rule."""
        weights: dict[str, float] = {}
        shadows: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, share = part.partition("=")
            kind, _, percent = share.partition(":")
            if not name or name in weights or name in shadows:
                raise ConfigError(f"AUGUR_ROUTES={text!r}: {part!r}: NAME=WEIGHT or NAME=shadow, each name once")
            if kind == SHADOW:
                shadows[name] = _share(text, part, percent or "100", 100) / 100
            else:
                weights[name] = _share(text, part, share, 1e9)
        if text.strip() and not sum(weights.values()) > 0:
            raise ConfigError(f"AUGUR_ROUTES={text!r}: one model at least with a weight above 0")
        return cls(weights, shadows)

    @property
    def names(self) -> Iterator[str]:
        """All that are named."""
        yield from self.weights
        yield from self.shadows


def _share(text: str, part: str, number: str, most: float) -> float:
    try:
        share = float(number)
    except ValueError:
        share = -1
    if not 0 <= share <= most:
        raise ConfigError(f"AUGUR_ROUTES={text!r}: {part!r}: a number from 0 to {most:g}")
    return share


class Models:
    """The served versions by name; the first one answers everybody unless routes say otherwise.

    Changed from the event loop alone; a reader keeps what it was given.
    """

    def __init__(self, served: list[Served], routes: Routes) -> None:
        self._by_name = {each.name: each for each in served}
        if len(self._by_name) < len(served):
            names = [each.name for each in served]
            raise ConfigError(f"AUGUR_MODELS: the names {', '.join(names)}: each once")
        for name in routes.names:
            if name not in self._by_name:
                raise ConfigError(f"AUGUR_ROUTES: {name!r} is no model; there are {', '.join(self._by_name)}")
        self.routes = routes if routes.weights else Routes({served[0].name: 1.0}, routes.shadows)

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Served:
        """Raises NotFoundError for a name that there is not."""
        found = self.find(name)
        if found is None:
            raise NotFoundError(f"model {shorten(name)}: not served; there are {', '.join(self._by_name)}")
        return found

    def find(self, name: str) -> Served | None:
        """None for a name that there is not."""
        return self._by_name.get(name)

    def put(self, served: Served) -> None:
        """A new version under its name; what was there goes on with the jobs that it has."""
        self._by_name[served.name] = served

    @property
    def default(self) -> Served:
        """The one with the largest weight."""
        return self._by_name[max(self.routes.weights, key=self.routes.weights.__getitem__)]

    def of_user(self, user_id: str) -> Served:
        """The one that answers a user: always the same, for as long as the weights stay."""
        weights = self.routes.weights
        if len(weights) == 1:
            return self._by_name[next(iter(weights))]
        place = _place("route", user_id) * sum(weights.values())
        ends = itertools.accumulate(weights.values())
        return next(self._by_name[name] for name, end in zip(weights, ends, strict=True) if place < end)

    def shadows_of(self, user_id: str) -> list[Served]:
        """Those that score this user's requests besides, unseen."""
        return [
            self._by_name[name]
            for name, share in self.routes.shadows.items()
            if _place(f"{SHADOW} {name}", user_id) < share
        ]

    @property
    def actions(self) -> tuple[str, ...]:
        """Every action that one of the models knows."""
        return tuple(dict.fromkeys(action for served in self for action in served.actions.names))


def _place(purpose: str, user_id: str) -> float:
    """From 0 to 1, evenly over users and independently between purposes."""
    text = f"{purpose} {user_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") / 2**64
