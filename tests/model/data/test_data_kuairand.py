import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from model.data import DEV, TEST, TRAIN, Behaviors, DataError, DataSet, open_data

BUNDLED = Path(__file__).parents[3] / "data" / "kuairand_pure"


@pytest.fixture(scope="module")
def bundled() -> DataSet:
    return open_data(f"kuairand:{BUNDLED}")


def test_the_bundled_data_has_the_stated_size(bundled: DataSet) -> None:
    assert np.bincount(bundled.impressions.splits).tolist() == [71_292, 20_513, 130_639]
    assert len(np.unique(bundled.impressions.user_ids)) == 25_156
    assert len(bundled.items.item_ids) == 7583
    assert sorted(bundled.items.fields) == ["author_id", "tag"]
    assert sorted(bundled.impressions.context) == ["hour", "tab"]
    assert np.all(np.isin(bundled.behaviors.item_ids, bundled.items.item_ids))


def test_the_bundled_data_opens_quickly() -> None:
    start = time.process_time()
    open_data(f"kuairand:{BUNDLED}")
    assert time.process_time() - start < 5  # half a second on an idle machine


def test_no_behaviour_at_or_after_any_impression_is_in_its_history(bundled: DataSet) -> None:
    behaviors, rows = bundled.behaviors, bundled.impressions
    first, last = behaviors.before(rows.user_ids, rows.timestamps_ms)
    start, end = behaviors.of_user(rows.user_ids)
    assert np.all(first == start)
    some = last > first
    assert np.all(behaviors.timestamps_ms[last[some] - 1] < rows.timestamps_ms[some])
    more = last < end
    assert np.all(behaviors.timestamps_ms[last[more]] >= rows.timestamps_ms[more])


def test_each_history_is_the_past_and_the_earlier_clicks(bundled: DataSet) -> None:
    rows = bundled.impressions
    first, last = bundled.behaviors.before(rows.user_ids, rows.timestamps_ms)
    table = pq.read_table(BUNDLED / "histories.parquet")
    past = dict(
        zip(
            table["user_id"].to_pylist(),
            zip(table["item_ids"].to_pylist(), table["actions"].to_pylist(), strict=True),
            strict=True,
        )
    )
    names = np.array(bundled.actions)
    assert bundled.behaviors.actions is not None
    for row in range(0, len(rows), 997):
        items, actions = past.get(int(rows.user_ids[row]), ([], []))
        clicks = np.flatnonzero(
            (rows.user_ids == rows.user_ids[row]) & (rows.timestamps_ms < rows.timestamps_ms[row]) & (rows.clicks == 1)
        )
        expected = [*zip(items, np.where(actions, "long_view", "shown"), strict=True)]
        expected += [(rows.item_ids[place], "click") for place in clicks]
        mine = slice(first[row], last[row])
        found = [*zip(bundled.behaviors.item_ids[mine], names[bundled.behaviors.actions[mine]], strict=True)]
        assert found == expected


def test_nothing_of_later_days_changes_earlier_rows(bundled: DataSet, tmp_path: Path) -> None:
    window = pq.read_table(BUNDLED / "impressions.parquet")
    end = int(pc.max(window.filter(pc.equal(window["split"].cast(pa.string()), "dev"))["timestamp_ms"]).as_py())
    pq.write_table(window.filter(pc.less_equal(window["timestamp_ms"], end)), tmp_path / "impressions.parquet")
    for name in ("histories.parquet", "items.parquet"):
        (tmp_path / name).symlink_to(BUNDLED / name)
    cut = open_data(f"kuairand:{tmp_path}")

    earlier = rows_until(bundled.behaviors, end)
    assert earlier == rows_until(cut.behaviors, end)
    assert len(earlier) == len(cut.behaviors.item_ids)
    assert cut.items.item_ids.tolist() == bundled.items.item_ids.tolist()
    for name, values in cut.items.fields.items():
        assert values.tolist() == bundled.items.fields[name].tolist()
    rows = cut.impressions
    lengths = [np.subtract(*data.behaviors.before(rows.user_ids, rows.timestamps_ms)) for data in (bundled, cut)]
    assert np.array_equal(lengths[0], lengths[1])


def rows_until(behaviors: Behaviors, end: int) -> list[tuple[int, ...]]:
    assert behaviors.actions is not None
    assert behaviors.negatives is not None
    users = np.repeat(behaviors.user_ids, np.diff(behaviors.offsets))
    kept = behaviors.timestamps_ms <= end
    columns = (users, behaviors.item_ids, behaviors.timestamps_ms, behaviors.actions, behaviors.negatives)
    return list(zip(*(column[kept].tolist() for column in columns), strict=True))


def test_negatives_are_for_clicks_and_mostly_found(bundled: DataSet) -> None:
    behaviors = bundled.behaviors
    assert behaviors.negatives is not None
    assert behaviors.actions is not None
    click = behaviors.actions == bundled.actions.index("click")
    found = behaviors.negatives != behaviors.item_ids
    assert not found[~click].any()  # the past holds its own exposures
    assert found[click].mean() > 0.98


def made_up() -> dict[str, dict[str, Any]]:
    return {
        "impressions": {
            "user_id": [0, 0, -3], "item_id": [1, 2, 0], "timestamp_ms": [50, 60, 70],
            "click": pa.array([0, 1, 1], pa.int8()),
            "long_view": [0, 0, 1], "tab": [1, 1, 0], "hour": [3, 3, 4], "split": ["train", "dev", "test"],
        },
        "histories": {
            "user_id": [0, 7], "item_ids": [[1, 2], [9]], "actions": [[1, 0], [0]], "last_timestamp_ms": [40, 41],
        },
        "items": {"item_id": [0, 1, 2], "author_id": [5, 5, 6], "tag": [-1, 3, 3]},
    }  # fmt: skip


def write(folder: Path, tables: dict[str, dict[str, Any]]) -> str:
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return f"kuairand:{folder}"


def test_a_made_up_folder(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, made_up()))
    behaviors = data.behaviors
    assert behaviors.user_ids.tolist() == [-3, 0, 7]
    assert behaviors.offsets.tolist() == [0, 1, 4, 5]
    assert behaviors.item_ids.tolist() == [0, 1, 2, 2, 9]
    assert behaviors.timestamps_ms.tolist() == [70, 40, 40, 60, 41]
    assert behaviors.actions is not None
    assert [data.actions[action] for action in behaviors.actions] == [
        "click",
        "long_view",
        "shown",
        "click",
        "shown",
    ]
    assert behaviors.negatives is not None
    assert behaviors.negatives.tolist() == [0, 1, 2, 1, 9]
    assert data.default_action == "click"
    assert data.impressions.splits.tolist() == [TRAIN, DEV, TEST]
    assert data.items.item_ids.tolist() == [0, 1, 2, 9]
    assert data.items.fields["author_id"].tolist() == [5, 5, 6, -1]


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("impressions", "click", [0, 2, 1], "impressions.parquet: row 2, column 'click': 2: must be at most 1"),
        ("impressions", "click", [0, None, 1], "row 2, column 'click': None: must not be null"),
        ("impressions", "timestamp_ms", [1, 2, -3], "row 3, column 'timestamp_ms': -3: must be at least 0"),
        ("impressions", "user_id", [1.0, 2.0, 3.0], "column 'user_id' is double: must hold integers"),
        (
            "impressions",
            "split",
            ["train", "dev", "valid"],
            "row 3, column 'split': 'valid': must be one of train, dev",
        ),
        ("impressions", "tab", None, "column 'tab' is missing; there are user_id, item_id"),
        ("histories", "actions", [[1], [0]], "row 1, column 'actions': 1: must be as long as 'item_ids', 2"),
        ("histories", "actions", [[1, 2], [0]], "row 1, value 2, column 'actions': 2: must be at most 1"),
        ("histories", "user_id", [7, 7], "row 2, column 'user_id': 7: must not come twice"),
        ("items", "item_id", [0, 2, 2], "items.parquet: row 3, column 'item_id': 2: must not come twice"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, table: str, column: str, values: Any, message: str) -> None:
    tables = made_up()
    if values is None:
        del tables[table][column]
    else:
        tables[table][column] = values
    with pytest.raises(DataError, match=message):
        open_data(write(tmp_path, tables))


HEADER = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,play_time_ms,is_rand,tab"


def exposure(user: int, video: int, date: int, ms: int, click: int = 0, long_view: int = 0) -> str:
    return f"{user},{video},{date},1530,{ms},{click},0,{long_view},0,0,1"


def write_logs(folder: Path, early: list[str], late: list[str], videos: list[str] | None = None) -> str:
    (folder / "log_standard_4_08_to_4_21_pure.csv").write_text("\n".join([HEADER, *early]) + "\n")
    (folder / "log_standard_4_22_to_5_08_pure.csv").write_text("\n".join([HEADER, *late]) + "\n")
    (folder / "log_random_4_22_to_5_08_pure.csv").write_text("never read")
    (folder / "video_features_statistic_pure.csv").write_text("never read")
    rows = videos if videos is not None else ['1,11,NORMAL,"39,2"', "2,12,NORMAL,", "3,13,AD,7"]
    (folder / "video_features_basic_pure.csv").write_text(
        "\n".join(["video_id,author_id,video_type,tag", *rows]) + "\n"
    )
    return f"kuairand:{folder}"


EARLY = [exposure(0, 1 + place % 3, 20220409, 1000 + place, 1, place % 2) for place in range(60)]
LATE = [
    exposure(5, 2, 20220424, 1990),
    exposure(0, 3, 20220425, 2000, 1, 1),
    exposure(0, 2, 20220425, 2000),
    exposure(0, 2, 20220425, 2000),
    exposure(0, 8, 20220430, 3000, 1, 0),
    exposure(5, 1, 20220501, 4000),
    exposure(5, 1, 20220508, 5000, 1, 0),
]


def test_the_public_logs(tmp_path: Path) -> None:
    data = open_data(write_logs(tmp_path, EARLY, LATE))
    rows = data.impressions
    assert rows.timestamps_ms.tolist() == [2000, 2000, 3000, 4000, 5000]  # one of two equal rows
    assert rows.splits.tolist() == [TRAIN, TRAIN, DEV, TEST, TEST]
    assert rows.context["hour"].tolist() == [15] * 5
    assert data.items.fields["tag"].tolist() == [39, -1, 7, -1]
    assert data.items.fields["author_id"].tolist() == [11, 12, 13, -1]
    behaviors = data.behaviors
    assert behaviors.offsets.tolist() == [0, 52, 54]
    assert behaviors.timestamps_ms[:52].tolist() == [*range(1010, 1060), 2000, 3000]
    assert behaviors.actions is not None
    names = [data.actions[action] for action in behaviors.actions]
    assert names[:4] == ["shown", "long_view", "shown", "long_view"]
    assert names[50:] == ["click", "click", "shown", "click"]
    assert behaviors.negatives is not None
    assert behaviors.negatives[50:].tolist() == [2, 2, 2, 1]


def test_no_window_at_all(tmp_path: Path) -> None:
    data = open_data(write_logs(tmp_path, [], [], videos=[]))
    assert len(data.impressions) == len(data.behaviors.item_ids) == len(data.items.item_ids) == 0


@pytest.mark.parametrize(
    ("late", "videos", "message"),
    [
        (
            [exposure(1, 1, 20220509, 1)],
            None,
            "5_08_pure.csv: line 2, column 'date': 20220509: must be at most 20220508",
        ),
        ([exposure(1, 1, 20220501, -1)], None, "line 2, column 'time_ms': -1: must be at least 0"),
        ([exposure(1, 1, 20220501, 1, 3)], None, "line 2, column 'is_click': 3: must be at most 1"),
        (["1,2,3"], None, "line 2, column 'hourmin' missing: 3 fields: must have 11"),
        ([], ["1,2,NORMAL,sport"], "basic_pure.csv: line 2, column 'tag': 'sport': must be integers with commas"),
        ([], ["1,2,NORMAL,1", "1,2,NORMAL,1"], "line 3, column 'video_id': 1: must not come twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, late: list[str], videos: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(write_logs(tmp_path, EARLY, late, videos))


def test_the_file_of_videos_is_needed(tmp_path: Path) -> None:
    name = write_logs(tmp_path, EARLY, LATE)
    (tmp_path / "video_features_basic_pure.csv").unlink()
    with pytest.raises(DataError, match=r"video_features_basic_pure\.csv: no such file"):
        open_data(name)
