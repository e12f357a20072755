import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.data import TEST, DataError, open_data
from model.data.text_tables import stable_id

SHARED = Path(__file__).parents[4] / "shared" / "data"


def write_parquet(folder: Path) -> None:
    lists = [[user % 7, user % 5, -(user % 3)] for user in range(50)]
    pq.write_table(pa.table({"user_id": range(50), "item_ids": lists}), folder / "sequences.parquet")
    items = {"item_id": range(-1, 7), "category_id": [3] * 8, "category_name": ["x"] * 8}
    pq.write_table(pa.table(items), folder / "items.parquet")


def test_sequences_and_categories(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    data = open_data(f"amazon:{tmp_path}", split_seed=4)
    assert data.sampled_negatives
    assert data.actions == ()
    assert data.behaviors.timestamps_ms[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert data.items.item_ids.tolist() == [*range(-2, 7)]
    assert data.items.fields["category_id"].tolist() == [-1] + [3] * 8  # item -2 is in no list of items
    assert len(data.split(TEST)) == 10
    assert len(open_data(f"amazon:{tmp_path}", prefixes=True).impressions) > len(data.impressions)


def review(user: str, asin: str, seconds: int) -> dict[str, object]:
    return {"reviewerID": user, "asin": asin, "unixReviewTime": seconds, "reviewText": 'it\'s "good"'}


REVIEWS = [
    review(f"U{place % 30}", f"B00000000{place % 8}", 1_400_000_000 - place // 4 * 86400) for place in range(120)
]
META = [
    {"asin": "B000000000", "categories": [["Sports", "Balls"], ["Toys"]], "title": "It's"},
    {"asin": "B000000001", "categories": [["Sports", "Nets"]]},
    {"asin": "B000000002", "categories": []},
    {"asin": "B000000003"},
    {"asin": "ZZZZZZZZZZ", "categories": [["Never reviewed"]]},
]


def write_raw(folder: Path, *, as_literal: bool, reviews: list[dict[str, object]] = REVIEWS) -> None:
    say = repr if as_literal else json.dumps
    (folder / "reviews_Balls_5.json.gz").write_bytes(gzip.compress("\n".join(map(say, reviews)).encode() + b"\n\n"))
    (folder / "meta_Balls.json.gz").write_bytes(gzip.compress("\n".join(map(say, META)).encode()))


@pytest.mark.parametrize("as_literal", [False, True])
def test_public_files_as_json_and_as_literals(tmp_path: Path, as_literal: bool) -> None:
    write_raw(tmp_path, as_literal=as_literal)
    data = open_data(f"amazon:{tmp_path}")
    asins = [np.base_repr(item, 36).zfill(10) for item in data.items.item_ids]
    assert asins == [f"B00000000{place}" for place in range(8)]
    assert data.items.fields["category_id"][:2].tolist() == [stable_id("Balls"), stable_id("Nets")]
    assert set(data.items.fields["category_id"][2:].tolist()) == {-1}
    place = int(np.searchsorted(data.behaviors.user_ids, stable_id("U1")))
    assert data.behaviors.user_ids[place] == stable_id("U1")
    mine = [row for row in REVIEWS if row["reviewerID"] == "U1"]
    mine.sort(key=lambda row: str(row["unixReviewTime"]))
    first, last = data.behaviors.offsets[place : place + 2]
    assert [np.base_repr(item, 36) for item in data.behaviors.item_ids[first:last]] == [row["asin"] for row in mine]
    assert data.behaviors.timestamps_ms[first:last].tolist() == list(range(len(mine)))


def test_reviews_of_one_moment_keep_their_order_and_leading_zeros_stay(tmp_path: Path) -> None:
    asins = ["0000000009", "0000000001", "A000000005"]
    write_raw(tmp_path, as_literal=False, reviews=[review(user, asin, 5) for user in "vw" for asin in asins])
    data = open_data(f"amazon:{tmp_path}")
    assert [np.base_repr(item, 36).zfill(10) for item in data.behaviors.item_ids[:3]] == asins


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'asin': ", "line 2: .*must be a JSON object or a Python literal"),
        ("__import__('os').getcwd()", "line 2: .*must be a JSON object or a Python literal"),
        ("[1, 2]", "line 2: .*Python literal of one"),
        ("(" * 5000, "line 2: .*must be a JSON object or a Python literal"),
        (json.dumps({**review("u", "B000000001", 1), "reviewerID": 4}), "line 2, column 'reviewerID': 4: must be text"),
        (json.dumps({"reviewerID": "u"}), "line 2, column 'asin': None: must be text"),
        (json.dumps(review("u", "b000000001", 1)), "line 2, column 'asin': 'b000000001': must be 10 characters"),
        (json.dumps(review("u", "B0000000011", 1)), "line 2, column 'asin': .*must be 10 characters"),
        (json.dumps(review("u", "B000000001", -1)), "line 2, column 'unixReviewTime': -1: must be an integer from 0"),
        (
            json.dumps({**review("u", "B000000001", 1), "unixReviewTime": 1.5}),
            "line 2, column 'unixReviewTime': 1.5: must be",
        ),
    ],
)
def test_a_bad_review_is_named(tmp_path: Path, line: str, message: str) -> None:
    write_raw(tmp_path, as_literal=False)
    content = json.dumps(REVIEWS[0]) + "\n" + line + "\n"
    (tmp_path / "reviews_Balls_5.json.gz").write_bytes(gzip.compress(content.encode()))
    with pytest.raises(DataError, match=r"reviews_Balls_5\.json\.gz: " + message):
        open_data(f"amazon:{tmp_path}")


def test_a_line_that_is_not_text_is_named(tmp_path: Path) -> None:
    write_raw(tmp_path, as_literal=False)
    (tmp_path / "reviews_Balls_5.json.gz").write_bytes(gzip.compress(b'{"asin": "\xff"}'))
    with pytest.raises(DataError, match=r"line 1: .*must be a JSON object"):
        open_data(f"amazon:{tmp_path}")


@pytest.mark.parametrize("categories", ["Balls", ["Balls"], [[]], [[3]]])
def test_bad_categories_are_named(tmp_path: Path, categories: object) -> None:
    write_raw(tmp_path, as_literal=False)
    line = json.dumps({"asin": "B000000001", "categories": categories}).encode()
    (tmp_path / "meta_Balls.json.gz").write_bytes(gzip.compress(line))
    with pytest.raises(
        DataError, match=r"meta_Balls\.json\.gz: line 1, column 'categories': .*a list of lists of names"
    ):
        open_data(f"amazon:{tmp_path}")


@pytest.mark.parametrize(
    "break_", [lambda whole: whole[:-20], lambda whole: b"plain text", lambda whole: whole[:40] + b"?" * 60]
)
def test_a_broken_gzip_file_is_refused(tmp_path: Path, break_: object) -> None:
    write_raw(tmp_path, as_literal=False)
    file = tmp_path / "reviews_Balls_5.json.gz"
    assert callable(break_)
    file.write_bytes(break_(file.read_bytes()))
    with pytest.raises(DataError, match=r"reviews_Balls_5\.json\.gz: (after line \d+: not a whole gzip|line \d)"):
        open_data(f"amazon:{tmp_path}")


@pytest.mark.parametrize(("name", "users"), [("amazon_beauty", 22_363), ("amazon_sports", 35_598)])
def test_the_real_files(name: str, users: int) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not at hand")
    data = open_data(f"amazon:{SHARED / name}")
    assert len(data.behaviors.user_ids) == users
    assert len(data.split(TEST)) == 2 * round(users * 0.1)
