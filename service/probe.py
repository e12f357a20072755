"""What a new version of a model makes of requests that the serving one answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.scorer import Scorer
from service.decode import ScoreAsk
from service.errors import ModelRejectedError
from service.models import Served
from service.replay import Replay

REQUESTS = 32
CANDIDATES = 100  # of each request, at most
SEED = 20190127

Floats = npt.NDArray[np.float64]


class Comparison(NamedTuple):
    """Probabilities of two versions for the same requests."""

    recent: int  # requests that clients really sent
    made: int  # requests made up from the catalogue of the serving version
    candidates: int
    mean_before: float
    mean_after: float
    mean_difference: float  # of the absolute differences
    max_difference: float
    rank_correlation: float | None  # Spearman's, within each request; None where no request has an order
    unknown_before: int  # candidates that the version does not know
    unknown_after: int


def probes(recent: Sequence[Replay], scorer: Scorer) -> tuple[list[Replay], int]:
    """Requests to compare with: recent ones, made up to `REQUESTS` with made-up ones; and how many are made up."""
    made = max(0, REQUESTS - len(recent))
    random = np.random.default_rng(SEED)
    return [*recent, *(_made_up(scorer, random) for _ in range(made))], made


def _made_up(scorer: Scorer, random: np.random.Generator) -> Replay:
    """A request from a catalogue's own ids, with each context field, and a history of any length."""
    schema = scorer.schema
    ids = schema.catalogue.ids if len(schema.catalogue.ids) else np.zeros(1, dtype=np.int64)
    length = int(random.integers(0, schema.max_history + 1))
    known = {name: schema.vocabularies[name].ids for name in schema.context_fields}
    context = {name: int(random.choice(values)) for name, values in known.items() if len(values)}
    actions = random.choice(schema.actions, length).tolist() if schema.actions else None
    return Replay(ScoreAsk("", random.choice(ids, CANDIDATES), context, random.choice(ids, length), actions))


def sound(served: Served, replays: Sequence[Replay], stopping: Callable[[], None]) -> list[Floats]:
    """A version's probabilities for requests, one at a time so that nothing else waits long.

    Raises:
        ModelRejectedError: one is not finite, or no probability.
    """
    rows = []
    for replay in replays:
        stopping()
        scores = served.scorer.score([replay.as_input(served, CANDIDATES)])[0].astype(np.float64)
        # Written so that NaN does not pass.
        if not np.all((scores >= 0) & (scores <= 1)):
            raise ModelRejectedError(f"version {served.version} gives scores that are no probabilities")
        rows.append(scores)
    return rows


def compare(before: Served, after: Served, recent: Sequence[Replay], stopping: Callable[[], None]) -> Comparison:
    """Asks both versions the same; raises as `sound`."""
    replays, made = probes(recent, before.scorer)
    old, new = sound(before, replays, stopping), sound(after, replays, stopping)
    all_old, all_new = np.concatenate(old), np.concatenate(new)
    differences = np.abs(all_new - all_old)
    items = np.concatenate([replay.asked.item_ids[:CANDIDATES] for replay in replays])
    found = [c for c in map(rank_correlation, old, new) if c is not None]
    return Comparison(
        recent=len(recent),
        made=made,
        candidates=len(differences),
        mean_before=float(all_old.mean()),
        mean_after=float(all_new.mean()),
        mean_difference=float(differences.mean()),
        max_difference=float(differences.max()),
        rank_correlation=sum(found) / len(found) if found else None,
        unknown_before=before.scorer.count_unknown(items),
        unknown_after=after.scorer.count_unknown(items),
    )


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's, -1 to 1, equal values sharing their mean rank; None where one side has no order."""
    a, b = _ranks(first), _ranks(second)
    scale = float(np.sqrt(a @ a * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def _ranks(values: Floats) -> Floats:
    """Ranks around 0."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks - ranks.mean() if len(ranks) else ranks
