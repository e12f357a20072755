from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.data import DEV, TEST, TRAIN, DataError, DataSet, open_data

Tables = dict[str, dict[str, Any]]


def lists(values: list[list[int]]) -> pa.Array:
    return pa.array(values, pa.list_(pa.int64()))


def made_up() -> Tables:
    return {
        "items": {"item_id": [30, -1, 0], "shop": [7, 8, 9]},
        "impressions": {
            "user_id": [2, 2, 0, 2, 2], "item_id": [0, 30, 0, -1, 30], "timestamp_ms": [10, 10, 11, 12, 13],
            "click": [0, 1, 0, 1, 1], "action": [None, "cart", "seen", "buy", "buy"], "page": [1, 2, 1, 2, 1],
            "split": ["train", "train", "dev", "test", "test"],
        },
        "histories": {
            "user_id": [2, -9], "item_ids": lists([[0, 30, -1], [30]]),
            "actions": [["shown", "buy", "cart"], ["shown"]],
        },
    }  # fmt: skip


def write(folder: Path, tables: Tables) -> str:
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return f"canonical:{folder}"


def opened(folder: Path, tables: Tables) -> DataSet:
    return open_data(write(folder, tables))


def names_of(data: DataSet) -> list[str]:
    assert data.behaviors.actions is not None
    return [data.actions[action] for action in data.behaviors.actions]


def test_impressions_with_histories(tmp_path: Path) -> None:
    data = opened(tmp_path, made_up())
    assert data.items.item_ids.tolist() == [-1, 0, 30]
    assert data.items.fields["shop"].tolist() == [8, 9, 7]
    assert data.behaviors.user_ids.tolist() == [-9, 2]
    assert data.behaviors.offsets.tolist() == [0, 1, 7]
    assert data.behaviors.item_ids.tolist() == [30, 0, 30, -1, 30, -1, 30]
    assert data.behaviors.timestamps_ms.tolist() == [9, 9, 9, 9, 10, 12, 13]
    assert data.actions == ("buy", "cart", "shown")  # what a row without a click is said to be is not a behaviour
    assert names_of(data) == ["shown", "shown", "buy", "cart", "cart", "buy", "buy"]
    assert data.default_action == "buy"
    assert data.behaviors.negatives is not None
    assert data.behaviors.negatives.tolist() == [30, 0, 30, -1, 0, 0, 0]
    assert data.impressions.splits.tolist() == [TRAIN, TRAIN, DEV, TEST, TEST]
    assert {name: values.tolist() for name, values in data.impressions.context.items()} == {"page": [1, 2, 1, 2, 1]}
    first, last = data.behaviors.before(data.impressions.user_ids, data.impressions.timestamps_ms)
    assert (last - first).tolist() == [3, 3, 0, 4, 5]


def test_without_actions_there_are_none(tmp_path: Path) -> None:
    tables = made_up()
    del tables["impressions"]["action"], tables["histories"]["actions"]
    data = opened(tmp_path, tables)
    assert data.actions == ()
    assert data.behaviors.actions is None
    assert data.default_action is None
    assert data.behaviors.item_ids.tolist() == [30, 0, 30, -1, 30, -1, 30]


def test_behaviours_without_a_name_are_clicks_where_others_have_names(tmp_path: Path) -> None:
    tables = made_up()
    del tables["impressions"]["action"]
    (tmp_path / "1").mkdir()
    data = opened(tmp_path / "1", tables)
    assert data.actions == ("buy", "cart", "click", "shown")
    assert names_of(data)[4:] == ["click"] * 3
    assert data.default_action == "click"

    tables = made_up()
    del tables["histories"]["actions"]
    (tmp_path / "2").mkdir()
    data = opened(tmp_path / "2", tables)
    assert names_of(data) == ["click"] * 4 + ["cart", "buy", "buy"]


def test_without_histories_and_splits(tmp_path: Path) -> None:
    tables = made_up()
    del tables["histories"], tables["impressions"]["split"]
    data = opened(tmp_path, tables)
    assert data.behaviors.item_ids.tolist() == [30, -1, 30]
    assert data.actions == ("buy", "cart")
    assert data.impressions.splits.tolist() == [TRAIN, TRAIN, TRAIN, TRAIN, TEST]


def test_nobody_clicked(tmp_path: Path) -> None:
    tables = made_up()
    del tables["histories"]
    tables["impressions"]["click"] = [False] * 5
    data = opened(tmp_path, tables)
    assert data.actions == ()
    assert len(data.behaviors.user_ids) == len(data.behaviors.item_ids) == 0
    first, last = data.behaviors.before(data.impressions.user_ids, data.impressions.timestamps_ms)
    assert not np.any(last - first)


def test_sequences(tmp_path: Path) -> None:
    tables: Tables = {
        "items": {"item_id": range(10)},
        "sequences": {"user_id": range(40), "item_ids": lists([[user % 10, (user + 1) % 10, 3] for user in range(40)])},
    }
    data = opened(tmp_path, tables)
    assert data.sampled_negatives
    assert data.items.fields == {}
    assert len(data.split(TEST)) == 8
    assert len(open_data(f"canonical:{tmp_path}", prefixes=True).split(TRAIN)) == 2 * len(data.split(TRAIN))
    other = open_data(f"canonical:{tmp_path}", split_seed=1)
    assert set(other.split(TEST).user_ids) != set(data.split(TEST).user_ids)


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("items", "item_id", [1, 2, 1], "items.parquet: row 3, column 'item_id': 1: must not come twice"),
        ("items", "item_id", [1.0, 2.0, 3.0], "items.parquet: column 'item_id' is double: must hold integers"),
        ("items", "shop", ["a", "b", "c"], "items.parquet: column 'shop' is string: must hold integers"),
        ("items", "shop", [1, None, 3], "items.parquet: row 2, column 'shop': None: must not be null"),
        ("items", "item_id", None, "items.parquet: column 'item_id' is missing; there are shop"),
        ("impressions", "item_id", [0, 30, 0, 5, 30], "row 4, column 'item_id': 5: must be listed in items.parquet"),
        ("impressions", "click", [0, 1, 0, 1, 2], "impressions.parquet: row 5, column 'click': 2: must be at most 1"),
        ("impressions", "click", [0, 1, 0, -1, 1], "row 4, column 'click': -1: must be at least 0"),
        ("impressions", "timestamp_ms", [1, 2, 3, 4, -5], "row 5, column 'timestamp_ms': -5: must be at least 0"),
        ("impressions", "timestamp_ms", None, "column 'timestamp_ms' is missing; there are user_id"),
        ("impressions", "user_id", ["a"] * 5, "column 'user_id' is string: must hold integers"),
        ("impressions", "page", [0.5] * 5, "column 'page' is double: must hold integers"),
        (
            "impressions",
            "split",
            ["train"] * 4 + ["validation"],
            "row 5, column 'split': 'validation': must be one of tra",
        ),
        (
            "impressions",
            "action",
            pa.array([None] * 5, pa.string()),
            "row 2, column 'action': None: must be named where click is 1",
        ),
        ("impressions", "action", [1] * 5, "column 'action' is int64: must hold text"),
        ("histories", "user_id", [2, 2], "histories.parquet: row 2, column 'user_id': 2: must not come twice"),
        ("histories", "item_ids", lists([[0, 30, 8], [30]]), "row 1, value 3, column 'item_ids': 8: must be listed"),
        ("histories", "item_ids", [1, 2], "column 'item_ids' is int64: must hold lists"),
        ("histories", "actions", [["a"], ["b"]], "row 1, column 'actions': 1: must be as long as 'item_ids', 3"),
        ("histories", "actions", [["a", "", "c"], ["b"]], "row 1, value 2, column 'actions': '': must not be empty"),
        ("histories", "action", ["a", "b"], "column 'action' is unknown: must be one of user_id, item_ids, actions"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, table: str, column: str, values: Any, message: str) -> None:
    tables = made_up()
    if values is None:
        del tables[table][column]
    else:
        tables[table][column] = values
    with pytest.raises(DataError, match=message):
        opened(tmp_path, tables)


def test_an_unknown_item_in_a_sequence_is_named(tmp_path: Path) -> None:
    tables: Tables = {"items": {"item_id": [1]}, "sequences": {"user_id": [5, 6], "item_ids": lists([[1], [1, 4]])}}
    with pytest.raises(DataError, match=r"sequences\.parquet: row 2, value 2, column 'item_ids': 4: must be listed"):
        opened(tmp_path, tables)


def test_no_impressions_at_all(tmp_path: Path) -> None:
    tables = made_up()
    empty = {name: pa.array([], pa.int64()) for name in ("user_id", "item_id", "timestamp_ms", "click")}
    with pytest.raises(DataError, match=r"impressions\.parquet: no rows: at least one"):
        opened(tmp_path, {**tables, "impressions": empty})


def test_impressions_and_sequences_exclude_one_another(tmp_path: Path) -> None:
    tables = made_up()
    tables["sequences"] = {"user_id": [1], "item_ids": lists([[0]])}
    with pytest.raises(DataError, match=r"sequences.parquet and impressions.parquet: must be one or the other"):
        opened(tmp_path, tables)


def test_items_alone_are_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold impressions.parquet or sequences.parquet"):
        opened(tmp_path, {"items": {"item_id": [1]}})


def test_prefixes_are_refused_with_impressions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prefixes=True is for sequences"):
        open_data(write(tmp_path, made_up()), prefixes=True)


def test_the_number_of_actions_is_bounded(tmp_path: Path) -> None:
    tables = made_up()
    tables["histories"] = {
        "user_id": [2], "item_ids": lists([[0] * 128]), "actions": [[f"a{place:03}" for place in range(128)]],
    }  # fmt: skip
    with pytest.raises(DataError, match=r"130 different actions \(a000, a001, a002, \.\.\.\): at most 127"):
        opened(tmp_path, tables)
