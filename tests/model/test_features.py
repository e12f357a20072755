"""Vocabularies and the schema: ids as users have them, to rows of tables."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import ACTIONS, INT64, STRANGER, UNKNOWN_ITEM, made_up_data

from model.data import TEST, TRAIN, DataError, DataSet
from model.features import OUT_OF_VOCABULARY, Vocabulary, fit_schema, seen_in_training

IDS = st.lists(st.integers(int(INT64.min), int(INT64.max)) | st.integers(-3, 3), max_size=30)


@given(values=IDS, asked=IDS, min_count=st.integers(1, 3))
def test_a_vocabulary_is_a_dictionary(values: list[int], asked: list[int], min_count: int) -> None:
    vocabulary = Vocabulary.fit(np.array(values, dtype=np.int64), min_count)
    kept = sorted(value for value, count in Counter(values).items() if count >= min_count)
    place = {value: row for row, value in enumerate(kept, 1)}
    assert len(vocabulary) == len(kept) + 1
    assert vocabulary.rows(asked).tolist() == [place.get(value, OUT_OF_VOCABULARY) for value in asked]
    assert vocabulary.rows(vocabulary.ids).tolist() == list(range(1, len(vocabulary)))


def test_dense_ids_are_looked_up_as_others_are_searched() -> None:
    """And all that lies beyond them, up to the ends of int64, is unknown."""
    ids = np.arange(-5, 40, 3)
    dense = Vocabulary(ids)
    assert dense._row_of is not None
    assert Vocabulary(np.append(ids, INT64.max))._row_of is None
    asked = np.array([INT64.min, INT64.min + 1, -6, -5, -4, 37, 38, 40, INT64.max - 1, INT64.max])
    assert dense.rows(asked).tolist() == [0, 0, 0, 1, 0, 15, 0, 0, 0, 0]
    assert dense.rows(asked.reshape(2, 5)).tolist() == [[0, 0, 0, 1, 0], [15, 0, 0, 0, 0]]
    assert dense.rows(int(INT64.min)).tolist() == 0
    assert dense.rows([]).shape == (0,)


def test_rows_keep_the_shape_asked_for() -> None:
    vocabulary = Vocabulary(np.array([INT64.min, -1, 0, INT64.max]))
    assert vocabulary.rows([[0, 5], [INT64.max, INT64.min]]).tolist() == [[3, 0], [4, 1]]
    assert vocabulary.rows(-1).tolist() == 2
    assert vocabulary.rows([]).shape == (0,)
    nothing = Vocabulary(np.zeros(0, dtype=np.int64))
    assert len(nothing) == 1
    assert nothing.rows([[1, 2]]).tolist() == [[0, 0]]


def seen_by_hand(data: DataSet) -> list[int]:
    """Items of training impressions and, once each, of the behaviours that some of these can see."""
    train, past = data.split(TRAIN), data.behaviors
    items = train.item_ids.tolist()
    for user, first, end in zip(past.user_ids, past.offsets, past.offsets[1:], strict=False):
        moments = train.timestamps_ms[train.user_ids == user]
        items += [past.item_ids[n] for n in range(first, end) if np.any(past.timestamps_ms[n] < moments)]
    return [int(item) for item in items]


@pytest.mark.parametrize("min_count", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1, 4])
def test_counts_are_those_of_training_and_what_it_sees(seed: int, min_count: int) -> None:
    data = made_up_data(seed)
    schema = fit_schema(data, min_count=min_count, max_history=7)
    catalogue = data.items.item_ids.tolist()
    seen = [item for item in seen_by_hand(data) if item in catalogue]
    assert len(seen) < len(seen_by_hand(data))  # unknown items do not count
    columns = {"item_id": data.items.item_ids, **data.items.fields}
    for name, column in columns.items():
        counts = Counter(int(column[catalogue.index(item)]) for item in seen)
        kept = sorted(value for value, count in counts.items() if count >= min_count)
        assert schema.vocabularies[name].ids.tolist() == kept
    train = data.split(TRAIN)
    for name, values in [("user_id", train.user_ids), *train.context.items()]:
        kept = sorted(int(value) for value, count in Counter(values.tolist()).items() if count >= min_count)
        assert schema.vocabularies[name].ids.tolist() == kept
    assert schema.item_fields == ("item_id", "category", "author")
    assert schema.context_fields == ("tab", "hour")
    assert schema.max_history == 7
    assert schema.item_rows[0].tolist() == [0, 0, 0]
    for n, (name, column) in enumerate(columns.items()):
        assert schema.item_rows[1:, n].tolist() == schema.vocabularies[name].rows(column).tolist()
    assert schema.catalogue.rows([UNKNOWN_ITEM, INT64.min, INT64.max, 0]).tolist()[:2] == [0, 1]
    assert schema.catalogue.rows(INT64.max) == len(catalogue)
    assert schema.vocabularies["user_id"].rows(STRANGER) == OUT_OF_VOCABULARY


def test_a_rare_item_keeps_its_side_fields() -> None:
    data = made_up_data()
    counts = Counter(item for item in seen_by_hand(data) if item in data.items.item_ids)
    schema = fit_schema(data, min_count=3)
    categories = schema.vocabularies["category"]
    rare = [row for row, item in enumerate(data.items.item_ids.tolist()) if counts[item] < 3]
    sided = [row for row in rare if data.items.fields["category"][row] in categories.ids]
    assert sided
    for row in sided:
        assert schema.item_rows[row + 1, 0] == OUT_OF_VOCABULARY
        assert schema.item_rows[row + 1, 1] == categories.rows(data.items.fields["category"][row]) > 0


def test_seen_in_training_is_strictly_before_an_impression() -> None:
    data = made_up_data(1)
    seen, train, past = seen_in_training(data), data.split(TRAIN), data.behaviors
    for user, first, end in zip(past.user_ids, past.offsets, past.offsets[1:], strict=False):
        moments = train.timestamps_ms[train.user_ids == user]
        for n in range(first, end):
            assert seen[n] == np.any(past.timestamps_ms[n] < moments)
    assert seen.any()
    assert not seen.all()
    assert not seen_in_training(made_up_data(behaviors=False)).size


def test_fields_are_chosen() -> None:
    data = made_up_data()
    schema = fit_schema(data, user_id=False, context=["hour"])
    assert schema.context_fields == ("hour",)
    assert not schema.uses_user_id
    assert set(schema.vocabularies) == {"item_id", "category", "author", "hour"}
    assert fit_schema(data).uses_user_id
    assert fit_schema(data, context=[]).context_fields == ()
    with pytest.raises(DataError, match=r"^context field 'page': made up has tab, hour$"):
        fit_schema(data, context=["tab", "page"])
    with pytest.raises(DataError, match=r"^context field 'tab': made up has none$"):
        fit_schema(made_up_data(context=False), context=["tab"])


def test_two_fields_of_one_name_are_refused() -> None:
    data = made_up_data()
    for name in ("tab", "user_id"):
        fields = {**data.items.fields, name: data.items.fields["author"]}
        twice = replace(data, items=replace(data.items, fields=fields))
        with pytest.raises(DataError, match=f"^field '{name}': made up has one of items and one of users or context"):
            fit_schema(twice)
        assert name in fit_schema(twice, context=["hour"], user_id=False).item_fields


def test_actions_by_name_and_by_place() -> None:
    schema = fit_schema(made_up_data())
    assert schema.actions == ACTIONS
    assert schema.default_action == "click"
    assert schema.action_places(["long_view", "shown"]).tolist() == [2, 0]
    assert schema.action_places([]).dtype == np.int64
    assert schema.action_rows([-1, 0, 2]).tolist() == [OUT_OF_VOCABULARY, 1, 3]
    with pytest.raises(KeyError, match="buy"):
        schema.action_places(["click", "buy"])
    without = fit_schema(made_up_data(actions=False))
    assert without.actions == ()
    assert without.default_action is None


def test_without_training_impressions_everything_is_out_of_vocabulary() -> None:
    data = made_up_data()
    rows = data.impressions
    late = replace(data, impressions=rows.take(rows.splits == TEST))
    schema = fit_schema(late)
    assert {name: len(vocabulary) for name, vocabulary in schema.vocabularies.items()} == dict.fromkeys(
        ("item_id", "category", "author", "tab", "hour", "user_id"), 1
    )
    assert not schema.item_rows.any()
    assert len(schema.catalogue) == len(data.items.item_ids) + 1
