"""A network split for serving by what each term depends on, every term computed once.

U different histories, N behaviours of them end to end, R requests, C candidates of all requests, T steps of the longest
history, E width of an item, K of what is attended to, F of the final interest, W of the head's first layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from model.config import ModelConfig
from model.ragged import Rows
from model.zoo.attention import ActivationUnit, Bilinear, normalized
from model.zoo.network import Attending, Network, Recurrent
from model.zoo.terms import ItemTerm, SideTerm, head_weights

SIDE_SHARE = 8  # of the budget what tables of context and user may take: they save microseconds, users can be many

Net = TypeVar("Net", bound=Network)
Map = tuple[Tensor | None, Tensor | None]  # weight [E, X], and bias [X]; without both the embeddings themselves


class Runtime(NamedTuple):
    """Where and how a scorer computes."""

    device: torch.device
    backend: str
    precision: str
    threads: int | None


class Split(Generic[Net]):
    """A network's weights, cut; its tables; and the logits of a ragged batch.

    What is here serves a model without a final interest: item tables, a term of the request, and the rest of the head
    for each candidate.
    """

    def __init__(self, model: Net, runtime: Runtime, table_budget: int) -> None:
        self.model, self.runtime, embeddings = model, runtime, model.embeddings
        self.config: ModelConfig = model.config
        first: Tensor = model.head.layers[0].weight  # type: ignore[assignment]
        pieces = torch.split(first, list(model.widths.values()), dim=1)
        cut = {part: piece.t().contiguous() for part, piece in zip(model.widths, pieces, strict=True)}
        self.crossed = "crossed" in cut
        maps = {"items": (None, None), "targets": (cut["target"], None)} | self.item_maps()
        if not self.crossed:  # the kernel multiplies something for each candidate: then one column of zeros
            maps["blank"] = (first.new_zeros(embeddings.item_width, 1), None)
        columns = sum(embeddings.item_width if weight is None else weight.shape[1] for weight, _ in maps.values())
        item_bytes = len(embeddings.item_rows) * columns * 4
        self.tabled = item_bytes <= table_budget
        self.terms = {name: ItemTerm(embeddings, self.tabled, *of) for name, of in maps.items()}
        left = min(table_budget - item_bytes * self.tabled, table_budget // SIDE_SHARE)
        self.side = SideTerm(embeddings, cut["side"], left)
        self.of_pooled = cut["pooled"]
        self.actions: Tensor | None = None  # embeddings, [A + 1, D]
        if embeddings.action_width:
            self.actions = embeddings.tables["action"].weight  # type: ignore[assignment]
        crossed = cut["crossed"] if self.crossed else first.new_zeros(1, len(first))
        final = cut.get("final", first.new_zeros(0, len(first)))
        self.head = head_weights(model.head, torch.cat([crossed, final]))
        self._prepared = kernels.prepare_head(self.head, backend=runtime.backend)
        self.fused = self.fuse() if runtime.backend == "native" and self.tabled else None

    def item_maps(self) -> dict[str, Map]:
        """Linear maps of an item's embedding that this model wants as tables, by name."""
        return {}

    def fuse(self) -> kernels.Fused | None:
        """The whole network as one call on a CPU with all tables in memory, for a model that has such a call."""
        return None

    @property
    def tensors(self) -> list[Tensor]:
        """What its memory goes to: weights, and tables over items, context and users."""
        tables = [term.table for term in self.terms.values()] + [self.side.table]
        own = [table for table in tables if table is not None]
        return [*self.model.parameters(), *self.model.buffers(), *own]

    def logits(self, rows: Rows) -> Tensor:
        """Logits `[C]`."""
        final, pooled = self.final(rows), self.pooled(rows)
        return self._of_head(rows, final, pooled[rows.history_of_request])

    def final(self, rows: Rows) -> Tensor:
        """Final interests `[C, F]`; of a model without, no columns."""
        return self.of_pooled.new_zeros(len(rows.candidates), 0)

    def _of_head(self, rows: Rows, final: Tensor, pooled: Tensor) -> Tensor:
        """The head's logits `[C]` of final interests `[C, F]` and the requests' pooled histories `[R, E + A]`."""
        requests = torch.addmm(self.side(rows.side), pooled, self.of_pooled)
        item_of, multiplied = rows.candidates, self.terms["items" if self.crossed else "blank"]
        targets, items = self.terms["targets"].table, multiplied.table
        if targets is None or items is None:
            targets, items = self.terms["targets"](item_of), multiplied(item_of)
            item_of = torch.arange(len(item_of), device=self.runtime.device)
        factors = pooled[:, : multiplied.width]
        threads = self.runtime.threads
        return kernels.head(
            targets, items, item_of, requests, factors, rows.request_of, final, self._prepared, threads=threads
        )

    def behaviors(self, rows: Rows) -> Tensor:
        """The behaviours' embeddings `[N, E + A]`."""
        items = self.terms["items"](rows.behaviors)
        return items if self.actions is None else torch.cat([items, F.embedding(rows.actions, self.actions)], dim=1)

    def pooled(self, rows: Rows) -> Tensor:
        """Mean of each history's behaviours `[U, E + A]`; zero for an empty one."""
        behaviors, lengths = self.behaviors(rows), rows.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=self.runtime.device), lengths)
        total = behaviors.new_zeros(len(lengths), behaviors.shape[1]).index_add_(0, owner, behaviors)
        return total / lengths.clamp(min=1).unsqueeze(1)


Attentive = TypeVar("Attentive", bound=Attending)


class AttendingSplit(Split[Attentive]):
    """A model with attention: the target's part of it is a table, the history's is computed once for all candidates."""

    def item_maps(self) -> dict[str, Map]:
        """Of the bilinear form the query; of the unit its first layer's term, and what is multiplied with keys."""
        form = self.model.attention
        if isinstance(form, Bilinear):
            return {"queries": (form.weight.t().contiguous(), None)}
        self._unit = form.terms()
        self._unit_rest = kernels.prepare_head(
            head_weights(form.net, self._unit.of_product), backend=self.runtime.backend
        )
        if not isinstance(form.map, torch.nn.Linear):
            return {"queries": (self._unit.of_query, None)}
        mapped = form.map.weight.t().contiguous()
        return {"compared": (mapped, None), "queries": (mapped @ self._unit.of_query, None)}

    def keys(self, rows: Rows) -> Tensor:
        """What is attended to, `[N, K]`."""
        return self.behaviors(rows)

    def attention(self, rows: Rows) -> Tensor:
        """Attention `[C, T]` over each candidate's history, 0 past its length."""
        return self.attend(self.keys(rows), rows)

    def attend(self, keys: Tensor, rows: Rows) -> Tensor:
        """Attention `[C, T]` over `keys [N, K]`."""
        if isinstance(self.model.attention, ActivationUnit):
            return self._by_unit(keys, rows)
        queries, (_, backend, _, threads) = self.terms["queries"](rows.candidates), self.runtime
        return kernels.attention(keys, rows.offsets, queries, rows.history_of, backend=backend, threads=threads)

    def _by_unit(self, keys: Tensor, rows: Rows) -> Tensor:
        """The unit is a head over pairs of a candidate and a step: terms of either are known, their product is not."""
        compared = self.terms.get("compared", self.terms["items"])(rows.candidates)
        queries, of_keys = self.terms["queries"](rows.candidates), keys @ self._unit.of_key
        lengths = rows.offsets.diff()[rows.history_of]
        steps = torch.arange(int(rows.offsets.diff().max()), device=keys.device)
        real = steps < lengths.unsqueeze(1)  # [C, T]
        candidate, step = real.nonzero(as_tuple=True)  # [P] each
        relevance = keys.new_zeros(real.shape)
        relevance[real] = kernels.head(
            queries,
            compared,
            candidate,
            of_keys,
            keys[:, : compared.shape[1]].contiguous(),
            step + rows.offsets[rows.history_of][candidate],
            keys.new_zeros(len(candidate), 0),
            self._unit_rest,
            threads=self.runtime.threads,
        )
        return normalized(relevance.t(), real.t()).t() if self.model.normalized else relevance

    def weighted_sum(self, weights: Tensor, values: Tensor, rows: Rows) -> Tensor:
        """`[C, K]` of `weights [C, T]` and the `values [N, K]` of each candidate's history."""
        total = values.new_zeros(len(weights), values.shape[1])
        for own, steps in by_history(rows):
            total[own] = weights[own, : steps.stop - steps.start] @ values[steps]
        return total


Extracting = TypeVar("Extracting", bound=Recurrent)


class RecurrentSplit(AttendingSplit[Extracting]):
    """A model with an interest extractor: its input projection is a table, its states are computed once for a user."""

    def item_maps(self) -> dict[str, Map]:
        """The item's part of the projection besides."""
        item = self.model.embeddings.item_width
        self.extractor = self.model.extractor.weights()
        of_item, of_action = self.extractor.w_input[:item], self.extractor.w_input[item:]
        action = self.model.embeddings.tables["action"].weight if len(of_action) else None
        self.projected_actions: Tensor | None = None if action is None else action @ of_action  # type: ignore[operator]
        return {"projected": (of_item, self.extractor.bias)} | super().item_maps()

    def keys(self, rows: Rows) -> Tensor:
        """Interest states `[N, H]`."""
        projected = self.terms["projected"](rows.behaviors)
        if self.projected_actions is not None:
            projected += F.embedding(rows.actions, self.projected_actions)
        return self.states(projected, rows, self.extractor, projected=True)

    def states(self, inputs: Tensor, rows: Rows, weights: kernels.GruWeights, *, projected: bool = False) -> Tensor:
        """States `[N, H]` of a GRU over all histories."""
        _, backend, precision, threads = self.runtime
        return kernels.gru(
            inputs, rows.offsets, weights, projected=projected, backend=backend, precision=precision, threads=threads
        )


def by_history(rows: Rows) -> Iterator[tuple[Tensor, slice]]:
    """Candidates by places, with the steps of the history they share; those without a history do not come."""
    for number, (begin, end) in enumerate(pairwise(rows.offsets.tolist())):
        if begin < end:
            yield (rows.history_of == number).nonzero().squeeze(1), slice(begin, end)
