import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from model.data import TEST, Behaviors, DataError, DataSet, dataset, open_data, sequences, spool
from model.data.taobao import ACTIONS, open_taobao

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def arrow_pool() -> Iterator[pa.MemoryPool]:
    """A pool of Arrow's own that counts from here on."""
    before = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counting)
    yield counting
    pa.set_memory_pool(before)


def write(path: Path, rows: int, users: int, items: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    item = generator.integers(-items // 2, items // 2, rows)
    columns = {
        "user": generator.integers(0, users, rows),
        "item": item,
        "category": item % 97,
        "behaviour": np.array(ACTIONS)[generator.integers(0, 4, rows)],
        "seconds": generator.integers(1_511_539_200, 1_511_539_200 + 5 * rows // users, rows),
    }
    pa_csv.write_csv(pa.table(columns), path, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
    return columns


def rows_of(data: DataSet) -> Iterator[tuple[int, list[tuple[int, int, str]]]]:
    behaviors = data.behaviors
    assert behaviors.actions is not None
    for user, first, last in zip(behaviors.user_ids, behaviors.offsets, behaviors.offsets[1:], strict=False):
        yield (
            int(user),
            [
                (int(behaviors.timestamps_ms[place]), int(behaviors.item_ids[place]), ACTIONS[behaviors.actions[place]])
                for place in range(first, last)
            ],
        )


@pytest.mark.parametrize("bucket_bytes", [1 << 30, 20_000, 1])
def test_rows_equal_a_sort_in_memory_whatever_the_buckets(tmp_path: Path, bucket_bytes: int) -> None:
    columns = write(tmp_path / "log.csv", rows=3000, users=70, items=40)
    data = open_taobao(tmp_path / "log.csv", bucket_bytes=bucket_bytes, block_bytes=5000)
    of_user: dict[int, list[tuple[int, int, str]]] = {}
    for place in np.lexsort((columns["seconds"], columns["user"])):
        row = (int(columns["seconds"][place]) * 1000, int(columns["item"][place]), str(columns["behaviour"][place]))
        of_user.setdefault(int(columns["user"][place]), []).append(row)
    assert dict(rows_of(data)) == of_user
    assert data.items.item_ids.tolist() == sorted(set(columns["item"].tolist()))
    assert data.items.fields["category_id"].tolist() == (data.items.item_ids % 97).tolist()
    assert data.default_action == "pv"
    assert len(data.split(TEST)) == 14


def test_a_log_is_streamed_within_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow_pool: pa.MemoryPool
) -> None:
    rows = 400_000
    write(tmp_path / "log.csv", rows=rows, users=1000, items=500)
    for module in (dataset, sequences):
        monkeypatch.setattr(module, "CHUNK", 1 << 14)
    start = arrow_pool.bytes_allocated()
    tracemalloc.start()
    try:
        data = open_taobao(tmp_path / "log.csv", bucket_bytes=200_000, block_bytes=20_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data.behaviors.item_ids) == rows
    in_memory = rows * spool.ROW.itemsize  # 13 MB
    assert peak < in_memory / 5
    assert arrow_pool.max_memory() - start < in_memory / 3
    assert all(is_mapped(column) for column in columns_of(data.behaviors))


def columns_of(behaviors: Behaviors) -> list[np.ndarray]:
    assert behaviors.actions is not None
    return [behaviors.item_ids, behaviors.timestamps_ms, behaviors.actions]


def is_mapped(column: np.ndarray) -> bool:
    return isinstance(column.base, np.memmap)


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    write(tmp_path / "log.csv", rows=100, users=9, items=9)
    data = open_data(f"taobao:{tmp_path / 'log.csv'}")
    assert len(data.behaviors.item_ids) == 100
    assert os.listdir(folder) == []


GOOD = "1,10,5,pv,1511544070\n1,20,5,buy,1511544071\n2,10,6,cart,1511544072\n2,30,5,fav,1511544073\n"


def opened(tmp_path: Path, content: str | bytes) -> DataSet:
    (tmp_path / "log.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_data(f"taobao:{tmp_path / 'log.csv'}")


def test_impossible_times_are_dropped_and_counted(tmp_path: Path) -> None:
    data = opened(tmp_path, GOOD + "3,40,5,pv,-2134949234\n1,40,5,pv,2122867355\n1,10,5,pv,0\n")
    assert "5 behaviours of 2 users; dropped: 2 rows outside 0 <= seconds < 2000000000" in data.description
    assert 40 not in data.items.item_ids
    assert data.behaviors.timestamps_ms[0] == 0


def test_a_last_line_that_breaks_off_is_dropped_and_counted(tmp_path: Path) -> None:
    assert "0 unfinished" in opened(tmp_path, GOOD.rstrip()).description
    for end in ("1", "1,20", "1,20,5,p"):
        data = opened(tmp_path, GOOD + end)
        assert len(data.behaviors.item_ids) == 4
        assert "1 unfinished last line" in data.description
    with pytest.raises(DataError, match="line 5, column 'category' missing: 2 fields: must have 5"):
        opened(tmp_path, GOOD + "1,20\n")
    with pytest.raises(DataError, match="line 5, column 'category' missing: 2 fields: must have 5"):
        opened(tmp_path, GOOD + "1,20\n1,10")


def test_an_item_with_two_categories_has_the_smaller(tmp_path: Path) -> None:
    data = opened(tmp_path, GOOD)
    assert dict(zip(data.items.item_ids.tolist(), data.items.fields["category_id"].tolist(), strict=True)) == {
        10: 5,
        20: 5,
        30: 5,
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,20,5,pv", "line 5, column 'seconds' missing: 4 fields: must have 5"),
        ("1,20,5,pv,1,1", "line 5: 6 fields: must have 5"),
        ("1,20,5,view,1", "line 5, column 'behaviour': 'view': must be one of pv, cart, fav, buy"),
        ("1,20,5,,1", "line 5, column 'behaviour': '': must be one of pv"),
        ("1.0,20,5,pv,1", "line 5, column 'user': '1.0': must be a 64-bit integer"),
        ("1,,5,pv,1", "line 5, column 'item': '': must be a 64-bit integer"),
        ("user,item,category,behaviour,seconds", "line 5, column 'user': 'user': must be a 64-bit integer"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"log\.csv: {message}"):
        opened(tmp_path, GOOD + line + "\n" + GOOD)


def test_a_line_that_is_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 5: .*must be utf-8 text"):
        opened(tmp_path, GOOD.encode() + b"1,20,5,\xff,1\n")


def test_a_file_without_a_possible_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row with 0 <= seconds < 2000000000: at least one"):
        opened(tmp_path, "1,10,5,pv,-1\n")
    with pytest.raises(DataError, match=r"log\.csv: Empty CSV file"):
        opened(tmp_path, "")


def test_an_empty_map_is_an_empty_array() -> None:
    assert len(spool.mapped(0, np.int64)) == 0


def test_the_real_file() -> None:
    file = SHARED / "taobao_userbehavior" / "UserBehavior_815users.csv"
    if not file.exists():
        pytest.skip("taobao_userbehavior is not at hand")
    data = open_data(f"taobao:{file}")
    assert len(data.behaviors.user_ids) == 815
    assert len(data.behaviors.item_ids) == 84_475
    assert len(data.split(TEST)) == 2 * 82
