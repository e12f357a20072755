from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.data import DataError
from model.data.tables import Table, catalogue, only_columns, read_parquet
from model.data.text_tables import Kind, header, read_text, stable_id, text_blocks, text_lines


def table(tmp_path: Path, **columns: Any) -> Table:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return read_parquet(tmp_path / "t.parquet")


def test_every_integer_type_reads_as_int64(tmp_path: Path) -> None:
    for kind in (pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.int64()):
        numbers = table(tmp_path, n=pa.array([0, 1, 127], kind)).integers("n")
        assert numbers.dtype == "int64"
        assert numbers.tolist() == [0, 1, 127]
    assert table(tmp_path, n=pa.array([True, False])).integers("n").tolist() == [1, 0]
    assert table(tmp_path, n=pa.array([], pa.int64())).integers("n").tolist() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([1, None]), r"t\.parquet: row 2, column 'n': None: must not be null"),
        (pa.array([1, 2, 5]), r"t\.parquet: row 3, column 'n': 5: must be at most 2"),
        (pa.array([1, -1]), r"t\.parquet: row 2, column 'n': -1: must be at least 0"),
        (pa.array([1.0]), r"t\.parquet: column 'n' is double: must hold integers"),
        (pa.array(["1"]), r"column 'n' is string: must hold integers"),
        (
            pa.array([1, 2**63], pa.uint64()),
            r"row 2, column 'n': 9223372036854775808: must fit a signed 64-bit integer",
        ),
    ],
)
def test_a_bad_integer_is_named(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, n=values).integers("n", minimum=0, maximum=2)


def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'n' is missing; there are a, b"):
        table(tmp_path, a=[1], b=[2]).integers("n")
    with pytest.raises(DataError, match=r"column 'n' is missing; there are a, b"):
        read_parquet(tmp_path / "t.parquet", ["a", "n"])


def test_texts_and_choices(tmp_path: Path) -> None:
    for values in (pa.array(["x", "y", "x"]), pa.array(["x", "y", "x"]).dictionary_encode()):
        texts = table(tmp_path, s=values)
        names, codes = texts.strings("s")
        assert [names[code] for code in codes] == ["x", "y", "x"]
        assert texts.choices("s", ("y", "x")).tolist() == [1, 0, 1]
        with pytest.raises(DataError, match="row 2, column 's': 'y': must be one of x, z"):
            texts.choices("s", ("x", "z"))
    assert table(tmp_path, s=pa.array([], pa.string())).choices("s", ("x",)).tolist() == []
    with pytest.raises(DataError, match="column 's' is int64: must hold text"):
        table(tmp_path, s=[1]).strings("s")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([[1], [2, None]]), "row 2, value 2, column 'l': None: must not be null"),
        (pa.array([[1], None]), "row 2, column 'l': None: must not be null"),
        (pa.array([[1], [], [2, -4]]), "row 3, value 2, column 'l': -4: must be at least 0"),
        (pa.array([1]), "column 'l' is int64: must hold lists"),
        (pa.array([[0.5]]), "column 'l' is double: must hold integers"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, l=values).lists("l")[1].integers("l", minimum=0)


def test_lists_of_different_lengths_are_named(tmp_path: Path) -> None:
    lists = table(tmp_path, a=[[1], [2, 3]], b=[[1], [2]])
    with pytest.raises(DataError, match="row 2, column 'b': 1: must be as long as 'a', 2"):
        lists.same_lengths("b", lists.lists("a")[0], "a")


def test_an_id_that_comes_twice_is_named_where_it_comes_again(tmp_path: Path) -> None:
    ids = table(tmp_path, i=[3, 1, 2, 3, 1])
    with pytest.raises(DataError, match="row 4, column 'i': 3: must not come twice"):
        ids.distinct("i", ids.integers("i"))


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'action' is unknown: must be one of user_id, actions"):
        only_columns(table(tmp_path, user_id=[1], action=[1]), ("user_id", "actions"))


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'a': must not come twice"):
        read_parquet(tmp_path / "t.parquet")


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, keep: int) -> None:
    table(tmp_path, n=list(range(1000)))
    file = tmp_path / "t.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"t\.parquet: not a readable parquet file"):
        read_parquet(file)


def test_a_missing_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_parquet(tmp_path / "t.parquet")


def test_items_that_are_seen_but_not_listed_are_added() -> None:
    items = catalogue(np.array([7, -2]), {"tag": np.array([1, 2])}, np.array([9, 7, 0, 0]))
    assert items.item_ids.tolist() == [-2, 0, 7, 9]
    assert items.fields["tag"].tolist() == [2, -1, 1, -1]


COLUMNS: dict[str, Kind] = {"a": int, "s": ("x", "y"), "f": float}


def text(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "t.csv").write_bytes(content)
    return tmp_path / "t.csv"


def test_text_is_read_whatever_its_ends_of_line(tmp_path: Path) -> None:
    for content in (b"a,s,f,z\n1,x,0.5,\n-2,y,3,q\n", b"\xef\xbb\xbfa,s,f,z\r\n1,x,0.5,\r\n\r\n-2,y,3,q"):
        rows = read_text(text(tmp_path, content), COLUMNS)
        assert rows.integers("a").tolist() == [1, -2]
        assert rows.numbers("f", minimum=0, maximum=3).tolist() == [0.5, 3]
        assert rows.choices("s", ("x", "y")).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,s\n1,x\n", "column 'f' is missing; there are a, s"),
        (b"a,s,f\n1,x,1\n2,x\n", "line 3, column 'f' missing: 2 fields: must have 3"),
        (b"a,s,f\n1,x,1\n\n2,x,1,1\n", "line 4: 4 fields: must have 3"),
        (b"a,s,f\n\n1,x,1\n2.0,x,1\n", "line 4, column 'a': '2.0': must be a 64-bit integer"),
        (b"a,s,f\n9223372036854775808,x,1\n", "line 2, column 'a': '9223372036854775808': must be a 64-bit integer"),
        (b"a,s,f\n,x,1\n", "line 2, column 'a': '': must be a 64-bit integer"),
        (b"a,s,f\n1,z,1\n", "line 2, column 's': 'z': must be one of x, y"),
        (b"a,s,f\n1,x,one\n", "line 2, column 'f': 'one': must be a number"),
        (b"a,s,f\n1,\xff,1\n", "line 2: .*must be utf-8 text"),
        (b"a,s,f\n1,x,1\n\xff\n", "line 3: .*must be utf-8 text"),
        (b'a,s,f\n1,"x,1\n', "line 2: .*unexpected end of data"),
        (b"", "line 1: must hold the column names"),
        (b"\n1,x,1\n", "line 1: must hold the column names"),
        (b"a,s,f", "t.csv: "),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_text(text(tmp_path, content), COLUMNS)


def test_the_line_of_a_value_counts_blank_lines(tmp_path: Path) -> None:
    rows = read_text(text(tmp_path, b"a\n1\n\n\n-7\n"), {"a": int})
    with pytest.raises(DataError, match="line 5, column 'a': -7: must be at least 0"):
        rows.integers("a", minimum=0)
    rows = read_text(text(tmp_path, b"1\n\n-7\n"), {"a": int}, names=["a"])
    with pytest.raises(DataError, match="line 3, column 'a': -7: must be at least 0"):
        rows.integers("a", minimum=0)


@pytest.mark.parametrize("value", ["nan", "inf", "-0.1"])
def test_numbers_are_finite_and_in_range(tmp_path: Path, value: str) -> None:
    rows = read_text(text(tmp_path, f"f\n1\n{value}\n".encode()), {"f": float})
    with pytest.raises(DataError, match=r"line 3, column 'f': .*: must be from 0 to 5"):
        rows.numbers("f", minimum=0, maximum=5)


def test_quotes_mean_nothing_between_tabs(tmp_path: Path) -> None:
    file = text(tmp_path, b'a:token\tt:token_seq\n1\t"Great\n')
    assert header(file, "\t") == ["a", "t"]
    assert read_text(file, {"t": str}, delimiter="\t").strings("t")[0] == ('"Great',)


def test_a_forgiven_line_is_passed_over_and_others_are_not(tmp_path: Path) -> None:
    file = text(tmp_path, b"1,2\n3")
    rows = [
        block.to_pydict() for block in text_blocks(file, {"a": int}, names=["a", "b"], forgive=lambda line: line == "3")
    ]
    assert rows == [{"a": [1]}]
    file = text(tmp_path, b"3\n1,2\n4")
    with pytest.raises(DataError, match="line 3, column 'b' missing"):
        list(text_blocks(file, {"a": int}, names=["a", "b"], forgive=lambda line: line == "3"))


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder, must be one file"):
        read_parquet(tmp_path)


def test_a_missing_text_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such file"):
        next(text_lines(tmp_path / "none"))
    with pytest.raises(DataError, match="none: no such file"):
        read_text(tmp_path / "none", {"a": int}, names=["a"])


def test_stable_ids_do_not_change() -> None:
    assert stable_id("Comedy") == 9018917729769796409
    assert len({stable_id(str(number)) for number in range(1000)}) == 1000
    assert all(0 <= stable_id(str(number)) < 2**63 for number in range(1000))
