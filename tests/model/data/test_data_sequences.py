from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import DEV, TEST, TRAIN, Behaviors, DataError, sequences
from model.data.dataset import IntArray
from model.data.sequences import draw, last_item_impressions, popularity, read_sequences


def of_lists(lists: list[list[int]]) -> Behaviors:
    lengths = np.array([len(items) for items in lists], dtype=np.int64)
    places = np.concatenate([np.arange(length) for length in lengths]) if len(lists) else np.zeros(0, dtype=np.int64)
    flat = np.array([item for items in lists for item in items], dtype=np.int64)
    return Behaviors(np.arange(len(lists)), np.concatenate([[0], np.cumsum(lengths)]), flat, places)


def many(users: int = 100) -> Behaviors:
    generator = np.random.default_rng(3)
    return of_lists([generator.integers(-5, 30, size=generator.integers(0, 9)).tolist() for _ in range(users)])


@given(items=st.lists(st.integers(-3, 3), max_size=40), chunk=st.integers(1, 50), data=st.data())
def test_popularity_in_chunks_equals_counting(items: list[int], chunk: int, data: st.DataObject) -> None:
    without = data.draw(st.sets(st.sampled_from(range(len(items))))) if items else set()
    ids = np.array(items, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "CHUNK", chunk)
        found, running = popularity(ids, without=np.array(sorted(without), dtype=np.int64))
    expected, counts = np.unique(np.delete(ids, sorted(without)), return_counts=True)
    assert found.tolist() == expected.tolist()
    assert running.tolist() == np.cumsum(counts).tolist()


def test_a_drawn_item_is_never_the_avoided_one_and_follows_popularity() -> None:
    avoid = np.zeros(20_000, dtype=np.int64)
    drawn = draw(popularity(np.array([0] * 50 + [1] * 30 + [2] * 10)), avoid, np.random.default_rng(0))
    assert not np.any(drawn == 0)
    assert np.mean(drawn == 1) == pytest.approx(0.75, abs=0.02)


def test_one_item_leaves_nothing_to_draw() -> None:
    with pytest.raises(DataError, match="1 different items: a negative needs at least 2"):
        draw(popularity(np.array([4, 4])), np.array([4]), np.random.default_rng(0))


def test_last_items_of_users_split_by_seed() -> None:
    behaviors = many()
    rows = last_item_impressions(behaviors, seed=1)
    lengths = np.diff(behaviors.offsets)
    assert set(rows.user_ids.tolist()) == set(np.flatnonzero(lengths >= 2).tolist())
    positives = rows.take(rows.clicks == 1)
    assert positives.item_ids.tolist() == behaviors.item_ids[behaviors.offsets[positives.user_ids + 1] - 1].tolist()
    assert np.all(rows.clicks[rows.splits == TRAIN] == 1)
    for split, share in ((DEV, 0.05), (TEST, 0.1)):
        clicks = rows.clicks[rows.splits == split]
        assert np.mean(clicks) == 0.5
        assert np.sum(clicks) == round(np.sum(lengths >= 2) * share)
    first, last = behaviors.before(rows.user_ids, rows.timestamps_ms)
    assert (last - first).tolist() == (lengths[rows.user_ids] - 1).tolist()


def test_the_split_depends_on_the_seed_alone() -> None:
    same, again, other = (last_item_impressions(many(), seed=seed) for seed in (1, 1, 2))
    assert same.splits.tolist() == again.splits.tolist()
    assert same.item_ids.tolist() == again.item_ids.tolist()
    assert set(same.user_ids[same.splits == TEST]) != set(other.user_ids[other.splits == TEST])


def test_prefixes_train_on_all_but_the_first_and_leave_held_out_users_alone() -> None:
    behaviors = many()
    short, long = (last_item_impressions(behaviors, seed=1, prefixes=prefixes) for prefixes in (False, True))
    trained = short.user_ids[short.splits == TRAIN]
    lengths = np.diff(behaviors.offsets)
    assert (
        np.bincount(long.user_ids[long.splits == TRAIN], minlength=100)[trained].tolist()
        == (lengths[trained] - 1).tolist()
    )
    assert set(long.user_ids[long.splits == TRAIN]) == set(trained)
    assert np.all(long.timestamps_ms > 0)
    held = [rows.take(rows.splits != TRAIN) for rows in (short, long)]
    assert held[0].item_ids.tolist() == held[1].item_ids.tolist()


def test_the_last_item_of_held_out_users_does_not_count_for_popularity() -> None:
    # Each user's last item is their own; were it counted, it could be drawn for others.
    behaviors = of_lists([[0, 1, 100 + user] for user in range(40)])
    rows = last_item_impressions(behaviors, seed=0, dev_share=0.3, test_share=0.3)
    held = set(rows.item_ids[(rows.splits != TRAIN) & (rows.clicks == 1)].tolist())
    assert not held & set(rows.item_ids[rows.clicks == 0].tolist())


def write(path: Path, users: list[int], items: list[list[int]]) -> Path:
    pq.write_table(pa.table({"user_id": users, "item_ids": pa.array(items, pa.list_(pa.int64()))}), path)
    return path


def test_sequences_are_sorted_by_user_and_timed_by_place(tmp_path: Path) -> None:
    behaviors = read_sequences(write(tmp_path / "s.parquet", [9, -1, 4], [[5, 6], [7, 7, -8], []]))
    assert behaviors.user_ids.tolist() == [-1, 4, 9]
    assert behaviors.offsets.tolist() == [0, 3, 3, 5]
    assert behaviors.item_ids.tolist() == [7, 7, -8, 5, 6]
    assert behaviors.timestamps_ms.tolist() == [0, 1, 2, 0, 1]


def test_an_item_that_is_not_known_is_named(tmp_path: Path) -> None:
    known: IntArray = np.array([5, 6])
    with pytest.raises(DataError, match="row 2, value 2, column 'item_ids': 7: must be listed in items"):
        read_sequences(write(tmp_path / "s.parquet", [1, 2], [[5], [6, 7]]), known=known)
