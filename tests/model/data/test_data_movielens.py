from pathlib import Path

import numpy as np
import pytest

from model.data import DEV, TEST, TRAIN, DataError, open_data
from model.data.text_tables import stable_id

SHARED = Path(__file__).parents[4] / "shared" / "data"

RATINGS = [(1, 10, 4, 100), (1, 20, 3, 200), (2, 10, 1, 150), (1, 30, 5, 200), (1, 40, 2, 300)]


def lines(*rows: str) -> bytes:
    return "".join(row + "\n" for row in rows).encode("latin-1")


def joined(delimiter: str) -> list[str]:
    return [delimiter.join(map(str, row)) for row in RATINGS]


def write(folder: Path, form: str) -> None:
    flags = "|".join("1" if place in (5, 16) else "0" for place in range(19))
    none = "|".join("1" if place == 0 else "0" for place in range(19))
    contents = {
        "atomic": {
            "ml.inter": lines("user_id:token\titem_id:token\trating:float\ttimestamp:float", *joined("\t")),
            "ml.item": lines(
                "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
                '10\tToy "Story\t1995\tComedy War',
                "20\tNo\t\t",
            ),
        },
        "csv": {
            "ratings.csv": lines("userId,movieId,rating,timestamp", *joined(",")),
            "movies.csv": lines(
                "movieId,title,genres", '10,"Toy, ""Story"" (1995)",Comedy|War', "20,No,(no genres listed)"
            ),
        },
        "dat": {
            "ratings.dat": lines(*joined("::")),
            "movies.dat": lines("10::Misérables: a toy (1995)::Comedy|War", "20::No::"),
        },
        "u": {
            "u.data": lines(*joined("\t")),
            "u.item": lines(f"10|Misérables (1994)|01-Jan-1995||url|{flags}", f"20|unknown||||{none}"),
        },
    }
    for name, content in contents[form].items():
        (folder / name).write_bytes(content.decode("latin-1").encode() if name == "movies.csv" else content)


@pytest.mark.parametrize("form", ["atomic", "csv", "dat", "u"])
def test_every_form_reads_the_same(tmp_path: Path, form: str) -> None:
    write(tmp_path, form)
    data = open_data(f"movielens:{tmp_path}")
    assert data.impressions.user_ids.tolist() == [1, 1, 2, 1, 1]
    assert data.impressions.item_ids.tolist() == [10, 20, 10, 30, 40]
    assert data.impressions.clicks.tolist() == [1, 0, 0, 1, 0]
    assert data.impressions.timestamps_ms.tolist() == [100_000, 200_000, 150_000, 200_000, 300_000]
    assert data.behaviors.item_ids.tolist() == [10, 20, 30, 40, 10]
    assert data.behaviors.actions is not None
    assert [data.actions[action] for action in data.behaviors.actions] == [
        "liked",
        "neutral",
        "liked",
        "disliked",
        "disliked",
    ]
    assert data.items.item_ids.tolist() == [10, 20, 30, 40]
    assert data.items.fields["release_year"].tolist() == [1995, -1, -1, -1]
    assert data.items.fields["genre"].tolist() == [stable_id("Comedy"), -1, -1, -1]
    first, last = data.behaviors.before(data.impressions.user_ids, data.impressions.timestamps_ms)
    assert (last - first).tolist() == [0, 1, 0, 1, 3]  # the two of one second do not see one another


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.csv", "userId,movieId,rating\n1,2,3\n", "column 'timestamp' is missing"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n", r"no ratings: at least one"),
        (
            "ratings.csv",
            "userId,movieId,rating,timestamp\n1,2,6,4\n",
            "line 2, column 'rating': 6.0: must be from 0 to 5",
        ),
        (
            "ratings.csv",
            "userId,movieId,rating,timestamp\n1,2,5,-4\n",
            "line 2, column 'timestamp': -4.0: must be from 0",
        ),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1.5,2,5,4\n", "line 2, column 'userId': '1.5': must be a 64"),
        ("movies.csv", "movieId,title,genres\n1,2\n", "line 2: 2 fields: must have 3"),
        (
            "movies.csv",
            "movieId,title,genres\nx,a,b\n",
            "line 2, column 'movieId': 'x': must be a 64-bit integer, given",
        ),
        (
            "movies.csv",
            "movieId,title,genres\n1,a,b\n1,a,b\n",
            "line 3, column 'movieId': '1': must be a 64-bit integer",
        ),
        (
            "movies.csv",
            f"movieId,title,genres\n{2**63},a,b\n",
            "line 2, column 'movieId': .*: must be a 64-bit integer",
        ),
        ("movies.csv", 'movieId,title,genres\n1,"a,b\n', "line 2: .*unexpected end of data"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    write(tmp_path, "csv")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        open_data(f"movielens:{tmp_path}")


def test_files_must_be_one_of_a_kind(tmp_path: Path) -> None:
    write(tmp_path, "atomic")
    (tmp_path / "ml.item").unlink()
    with pytest.raises(DataError, match=r"0 files \*\.item: must be one"):
        open_data(f"movielens:{tmp_path}")
    (tmp_path / "other.inter").write_text("")
    with pytest.raises(DataError, match=r"ml\.inter and other\.inter: must be one"):
        open_data(f"movielens:{tmp_path}")


def test_the_real_files() -> None:
    if not (SHARED / "movielens_100k").exists():
        pytest.skip("movielens_100k is not at hand")
    data = open_data(f"movielens:{SHARED / 'movielens_100k'}")
    assert np.bincount(data.impressions.splits).tolist() == [79_999, 10_001, 10_000]
    ends = [data.split(split).timestamps_ms for split in (TRAIN, DEV, TEST)]
    assert ends[0].max() < ends[1].min()
    assert ends[1].max() < ends[2].min()
    assert len(np.unique(data.items.fields["genre"])) == 19
