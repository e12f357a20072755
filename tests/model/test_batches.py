"""Impressions to batches, each against a naive loop over the data set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import STRANGER, UNKNOWN_ITEM, made_up_data
from torch import Tensor

from model.batches import Batch, Batcher
from model.data import DEV, SPLITS, TEST, TRAIN, Behaviors, DataSet, Impressions, Items
from model.features import FeatureSchema, fit_schema


def numbered(data: DataSet) -> DataSet:
    """Impressions whose only context is their number, so that a row of a batch tells which one it is."""
    shown = data.impressions
    return replace(data, impressions=replace(shown, context={"number": np.arange(len(shown))}))


def numbers(batch: Batch) -> list[int]:
    """Places within the training split of a batch's rows."""
    return [int(row) - 1 for row in batch.inputs.context[:, 0]]


def batcher_of(data: DataSet, split: int = TRAIN, *, max_history: int = 50, negatives: str = "sampled") -> Batcher:
    return Batcher(data, fit_schema(data, max_history=max_history), split, negatives=negatives)


def everything(batcher: Batcher) -> Batch:
    return batcher.batch(np.arange(len(batcher)), np.random.default_rng(0))


def tensors(batch: Batch) -> list[Tensor]:
    return [*batch.inputs, *batch.following, batch.clicks]


def same(ones: Sequence[Batch], others: Sequence[Batch]) -> bool:
    return len(ones) == len(others) and all(
        torch.equal(one, other)
        for first, second in zip(ones, others, strict=True)
        for one, other in zip(tensors(first), tensors(second), strict=True)
    )


def past_of(data: DataSet, user: int, moment: int, most: int) -> list[int]:
    """Places of the newest behaviours of a user strictly before a moment."""
    past, places = data.behaviors, []
    for number, user_id in enumerate(past.user_ids.tolist()):
        if user_id == user:
            places = list(range(past.offsets[number], past.offsets[number + 1]))
    before = [place for place in places if past.timestamps_ms[place] < moment]
    return before[max(len(before) - most, 0) :]


@pytest.mark.parametrize("max_history", [1, 3, 50])
@pytest.mark.parametrize("actions", [True, False])
@pytest.mark.parametrize("split", range(3), ids=SPLITS)
def test_rows_are_the_data_point_in_time(split: int, actions: bool, max_history: int) -> None:
    data = made_up_data(2, actions=actions)
    batcher = batcher_of(data, split, max_history=max_history)
    schema, shown = batcher.schema, data.split(split)
    assert len(batcher) == len(shown)
    seen = set()
    for rows, batch in batcher.chunks(7):
        inputs = batch.inputs
        for n, row in enumerate(rows):
            places = past_of(data, shown.user_ids[row], shown.timestamps_ms[row], max_history)
            length = len(places)
            assert inputs.lengths[n] == length
            items = [schema.catalogue.rows(data.behaviors.item_ids[place]) for place in places]
            assert inputs.history[n].tolist() == items + [0] * (inputs.history.shape[1] - length)
            taken = (
                [1 + int(data.behaviors.actions[place]) for place in places]
                if data.behaviors.actions is not None
                else [0] * length
            )
            assert inputs.actions[n].tolist() == taken + [0] * (inputs.history.shape[1] - length)
            assert inputs.target[n] == schema.catalogue.rows(shown.item_ids[row])
            assert inputs.user[n] == schema.vocabularies["user_id"].rows(shown.user_ids[row])
            context = [schema.vocabularies[name].rows(shown.context[name][row]) for name in ("tab", "hour")]
            assert inputs.context[n].tolist() == context
            assert batch.clicks[n] == shown.clicks[row]
            seen.add(length)
        assert inputs.history.shape[1] == max(int(inputs.lengths.max()), 1)
        assert (inputs.lengths.diff() <= 0).all()  # longest first
        assert batch.clicks.dtype == torch.float32
    assert {0, max_history} <= seen or max_history == 50


def test_what_is_unknown_goes_to_the_shared_rows() -> None:
    data = made_up_data(5)
    batcher = batcher_of(data, TEST)
    shown = batcher.impressions
    strange = shown.user_ids == STRANGER
    assert strange.any()
    assert batcher.user is not None
    assert not batcher.user[strange].any()
    assert not (batcher.end - batcher.start)[strange].any()
    assert UNKNOWN_ITEM in shown.item_ids
    assert not batcher.target[shown.item_ids == UNKNOWN_ITEM].any()


def test_without_users_contexts_actions() -> None:
    data = made_up_data(actions=False, context=False)
    batch = everything(Batcher(data, fit_schema(data, user_id=False), DEV))
    assert not batch.inputs.user.any()
    assert batch.inputs.context.shape == (len(data.split(DEV)), 0)
    assert not batch.inputs.actions.any()


def test_chunks_give_places_that_put_scores_back() -> None:
    batcher = batcher_of(made_up_data(), TEST)
    scores, seen = np.full(len(batcher), -1), []
    for rows, batch in batcher.chunks(8):
        scores[rows] = batch.inputs.target
        seen += rows.tolist()
        assert len(rows) <= 8
    assert sorted(seen) == list(range(len(batcher)))
    assert scores.tolist() == batcher.target.tolist()


@pytest.mark.parametrize("size", [1, 10, 56, 1000])
def test_an_epoch_is_every_row_once(size: int) -> None:
    batcher = batcher_of(numbered(made_up_data()))
    batches = list(batcher.epoch(size, seed=3, epoch=1))
    assert len(batches) == batcher.steps(size) == -(-len(batcher) // size)
    assert all(len(batch.clicks) == size for batch in batches[:-1])
    assert sorted(row for batch in batches for row in numbers(batch)) == list(range(len(batcher)))


def test_an_epoch_is_what_seed_and_number_say() -> None:
    batcher = batcher_of(numbered(made_up_data()))
    batches = list(batcher.epoch(10, seed=3, epoch=1))
    assert same(batches, list(batcher.epoch(10, seed=3, epoch=1)))
    for other in (batcher.epoch(10, seed=3, epoch=2), batcher.epoch(10, seed=4, epoch=1)):
        assert numbers(next(other)) != numbers(batches[0])


@pytest.mark.parametrize("sampled", [True, False])
def test_an_epoch_goes_on_from_any_step(sampled: bool) -> None:
    batcher = batcher_of(numbered(made_up_data(sampled_negatives=sampled)))
    batches = list(batcher.epoch(10, seed=3, epoch=1))
    for first in range(len(batches) + 1):
        assert same(list(batcher.epoch(10, seed=3, epoch=1, first_step=first)), batches[first:])


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("sampled", [True, False])
def test_workers_share_each_batch(ranks: int, sampled: bool) -> None:
    batcher = batcher_of(numbered(made_up_data(sampled_negatives=sampled)))
    size = 13
    assert len(batcher) % size >= ranks
    whole = batcher.epoch(size, seed=3, epoch=0)
    shares = [batcher.epoch(size, seed=3, epoch=0, rank=rank, ranks=ranks) for rank in range(ranks)]
    for batch, *parts in zip(whole, *shares, strict=True):
        lengths = [len(numbers(part)) for part in parts]
        assert max(lengths) - min(lengths) <= (2 if sampled else 1)
        assert sorted(row for part in parts for row in numbers(part)) == sorted(numbers(batch))


def test_no_worker_is_left_without_a_row() -> None:
    batcher = batcher_of(numbered(made_up_data()))
    size = len(batcher) - 1
    shares = [list(batcher.epoch(size, seed=3, epoch=0, rank=rank, ranks=3)) for rank in range(3)]
    (rest,) = numbers(list(batcher.epoch(size, seed=3, epoch=0))[-1])
    assert [numbers(share[-1]) for share in shares] == [[rest]] * 3


def test_sampled_negatives_follow_their_positives() -> None:
    data = numbered(made_up_data(sampled_negatives=True))
    batcher = batcher_of(data)
    train = data.split(TRAIN)
    drawn: dict[int, list[int]] = {}
    for epoch in range(40):
        rows = []
        for batch in batcher.epoch(16, seed=0, epoch=epoch):
            positive = batch.clicks == 1
            assert positive.sum() * 2 == len(batch.clicks)
            clicked, other = (np.array(numbers(batch))[mask] for mask in (positive, ~positive))
            assert sorted(clicked) == sorted(other)
            assert batch.inputs.target[positive].tolist() == batcher.target[clicked].tolist()
            for row, target in zip(other.tolist(), batch.inputs.target[~positive].tolist(), strict=True):
                assert target != batcher.target[row]
                drawn.setdefault(row, []).append(target)
            rows += clicked.tolist()
            lengths = batcher.end - batcher.start
            assert batch.inputs.lengths.tolist() == lengths[numbers(batch)].tolist()
        assert sorted(rows) == list(range(len(train)))
    assert all(len(set(targets)) > 1 for targets in drawn.values())  # fresh in every epoch
    known = {row for row in batcher.frequencies[0].tolist() if row}
    assert {target for targets in drawn.values() for target in targets} <= known
    assert len(everything(Batcher(data, batcher.schema, DEV)).clicks) == len(data.split(DEV))


def test_negatives_are_drawn_by_training_frequency() -> None:
    data = made_up_data()
    batcher = batcher_of(data)
    rows = [int(row) for row in batcher.schema.catalogue.rows(data.split(TRAIN).item_ids) if row]
    train, past = data.split(TRAIN), data.behaviors
    for place, item in enumerate(past.item_ids):
        owner = past.user_ids[np.searchsorted(past.offsets, place, side="right") - 1]
        if np.any(train.timestamps_ms[train.user_ids == owner] > past.timestamps_ms[place]):
            rows.append(int(batcher.schema.catalogue.rows(item)))
    known = [row for row in rows if row]
    items, running = batcher.frequencies
    assert items.tolist() == sorted(set(known))
    assert np.diff(running, prepend=0).tolist() == [known.count(item) for item in items]


def test_a_data_set_without_behaviors() -> None:
    data = made_up_data(behaviors=False)
    for negatives in ("sampled", "shown"):
        for batch in batcher_of(data, negatives=negatives).epoch(16, seed=0, epoch=0):
            assert not batch.inputs.lengths.any()
            assert batch.inputs.history.tolist() == [[0]] * len(batch.clicks)
            assert not batch.following.chosen.any()
            assert not batch.following.against.any()
    empty = everything(batcher_of(replace(data, impressions=data.impressions.take(np.zeros(0, dtype=np.int64)))))
    assert empty.inputs.history.shape == (0, 1)


def place_of(data: DataSet, batcher: Batcher, batch: Batch) -> list[list[int]]:
    """Places of the behaviours of each row of a batch of the whole split."""
    order = np.argsort(batcher.start - batcher.end, kind="stable")
    assert batch.inputs.target.tolist() == batcher.target[order].tolist()
    return [list(range(batcher.start[row], batcher.end[row])) for row in order]


def test_drawn_negatives_of_the_auxiliary_loss() -> None:
    """Every behaviour is to be told from another item, whatever was done with it; padding from nothing."""
    data = made_up_data()
    batcher = batcher_of(data)
    batch = everything(batcher)
    real = torch.arange(batch.inputs.history.shape[1]) < batch.inputs.lengths[:, None]
    assert torch.equal(batch.following.chosen, real)
    assert torch.equal(batch.following.against, real)
    for number in range(20):
        one = batcher.batch(np.arange(len(batcher)), np.random.default_rng(number))
        assert not (one.following.negatives == one.inputs.history)[real].any()
        assert set(one.following.negatives[real].tolist()) <= set(batcher.frequencies[0].tolist())
        assert number == 0 or not torch.equal(one.following.negatives, batch.following.negatives)


def test_shown_negatives_of_the_auxiliary_loss() -> None:
    """An exposure is a negative itself; what was chosen has the negative the data gives, or none."""
    data = made_up_data()
    batcher = batcher_of(data, negatives="shown")
    batch, schema, past = everything(batcher), batcher.schema, data.behaviors
    assert past.actions is not None
    assert past.negatives is not None
    kinds = set()
    for n, places in enumerate(place_of(data, batcher, batch)):
        chosen, negatives, against = (part[n].tolist() for part in batch.following)
        for t, place in enumerate(places):
            exposure = past.actions[place] == 0
            given = past.negatives[place] != past.item_ids[place]
            assert chosen[t] == (not exposure)
            assert against[t] == (exposure or given)
            expected = past.item_ids[place] if exposure else past.negatives[place]
            assert negatives[t] == schema.catalogue.rows(expected)
            kinds.add((bool(exposure), bool(given)))
        assert not any(chosen[len(places) :] + against[len(places) :])
    assert len(kinds) == 4


@pytest.mark.parametrize("given", [True, False])
def test_shown_negatives_where_the_data_has_no_exposures(given: bool) -> None:
    """Given ones where there are any; for the rest they are drawn."""
    data = made_up_data(actions=False, given_negatives=given)
    batcher = batcher_of(data, negatives="shown")
    batch, past = everything(batcher), data.behaviors
    drawn = 0
    for n, places in enumerate(place_of(data, batcher, batch)):
        chosen, negatives, against = (part[n].tolist() for part in batch.following)
        length = len(places)
        assert chosen == against == [True] * length + [False] * (len(chosen) - length)
        for t, place in enumerate(places):
            if past.negatives is not None and past.negatives[place] != past.item_ids[place]:
                assert negatives[t] == batcher.schema.catalogue.rows(past.negatives[place])
            else:
                assert negatives[t] in batcher.frequencies[0]
                drawn += 1
            assert negatives[t] != batch.inputs.history[n, t]
    assert drawn


def tiny(item_ids: list[int], given: list[int] | None, catalogue: list[int]) -> tuple[DataSet, FeatureSchema]:
    """One user's behaviours and one later impression of item 1."""
    history = np.array(item_ids)
    past = Behaviors(
        np.array([7]),
        np.array([0, len(history)]),
        history,
        np.arange(len(history)),
        None,
        None if given is None else np.array(given),
    )
    one = np.ones(1, dtype=np.int8)
    shown = Impressions(np.array([7]), np.array([1]), np.array([99]), one, one * TRAIN)
    data = DataSet("tiny", Items(np.array(catalogue), {}), past, shown)
    return data, fit_schema(data)


def test_a_given_negative_that_is_as_unknown_as_its_positive_does_not_count() -> None:
    """Both would be the shared row, told from itself."""
    data, schema = tiny([8, 9, 1, 2], [9, 1, 8, 1], [1, 2])
    batch = everything(Batcher(data, schema, TRAIN, negatives="shown"))
    assert batch.inputs.history.tolist() == [[0, 0, 1, 2]]
    assert batch.following.against.tolist() == [[True] * 4]
    assert batch.following.negatives[0, 1:].tolist() == [1, 0, 1]
    assert batch.following.negatives[0, 0] != 0  # drawn instead


def test_negatives_are_fresh_for_each_seed_and_epoch() -> None:
    """One impression alone: shuffling cannot hide that the draws are the same."""
    data, schema = tiny([1, 2, 3, 4, 5] * 3, None, [1, 2, 3, 4, 5])
    batcher = Batcher(data, schema, TRAIN)
    drawn = {
        tuple(next(batcher.epoch(1, seed=seed, epoch=epoch)).following.negatives[0].tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(drawn) == 9


def test_a_single_known_item_leaves_nothing_to_draw() -> None:
    data, schema = tiny([1, 1, 1], [1, 5, 1], [1])
    for negatives, against in (("sampled", [False] * 3), ("shown", [False, True, False])):
        following = everything(Batcher(data, schema, TRAIN, negatives=negatives)).following
        assert following.chosen.tolist() == [[True] * 3]
        assert following.against.tolist() == [against]


def test_a_batch_moves_whole() -> None:
    batch = everything(batcher_of(made_up_data()))
    moved = batch.to(torch.device("meta"))
    assert all(part.device.type == "meta" for part in tensors(moved))
    assert [part.shape for part in tensors(moved)] == [part.shape for part in tensors(batch)]
    assert same([batch.to(torch.device("cpu"))], [batch])


def test_unknowns_are_made_at_their_rate_and_nowhere_else() -> None:
    data = made_up_data(impressions=400)
    batcher = Batcher(data, fit_schema(data), TRAIN)
    plain, again = (next(batcher.epoch(10_000, 3, 0)) for _ in range(2))
    made, same = (next(batcher.epoch(10_000, 3, 0, unknown_rate=0.5)) for _ in range(2))
    for name, part in plain.inputs._asdict().items():
        assert torch.equal(part, getattr(again.inputs, name))
        got = getattr(made.inputs, name)
        assert torch.equal(got, getattr(same.inputs, name))
        assert bool(((got == part) | (got == 0)).all())
        if name != "lengths":
            assert 0.3 < float((got == 0)[part > 0].double().mean()) < 0.7, name
    assert torch.equal(plain.inputs.lengths, made.inputs.lengths)
    assert torch.equal(plain.clicks, made.clicks)
    for before, after in zip(plain.following, made.following, strict=True):
        assert torch.equal(before, after)
