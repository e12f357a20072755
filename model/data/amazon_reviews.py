"""The public Amazon files: `reviews_*.json.gz` and `meta_*.json.gz`, a JSON object or a Python literal on each line.

Lines are streamed; what stays are three integers a review. Nothing in the files is ever executed.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import warnings
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from model.data.dataset import Behaviors, DataError, IntArray, Items
from model.data.tables import catalogue
from model.data.text_tables import stable_id
from model.data.timeline import grouped

ASIN = re.compile("[0-9A-Z]{10}")


def read_reviews(path: Path) -> tuple[Behaviors, Items]:
    """Behaviours and items of a folder.

    Users are hashes of `reviewerID`, items the `asin` read in base 36, so `np.base_repr(item, 36).zfill(10)` gives it
    back. A user's reviews go by `unixReviewTime`, those of one second by their order in the files; the time of a
    behaviour is its place. An item's category is the hash of the last name in its first list of `categories`.
    """
    users, items, seconds = array("q"), array("q"), array("q")
    for file in sorted(path.glob("reviews_*.json.gz")):
        for number, entry in _entries(file):
            users.append(stable_id(_text(file, number, entry, "reviewerID")))
            items.append(_item_id(file, number, entry))
            seconds.append(_seconds(file, number, entry))
    user_ids, item_ids = np.array(users, dtype=np.int64), np.array(items, dtype=np.int64)
    order = np.lexsort((np.array(seconds, dtype=np.int64), user_ids))
    different, offsets = grouped(user_ids[order])
    places = np.arange(len(order)) - np.repeat(offsets[:-1], np.diff(offsets))
    behaviors = Behaviors(different, offsets, item_ids[order], places)
    return behaviors, _items(path, np.unique(item_ids))


def _items(path: Path, reviewed: IntArray) -> Items:
    wanted = set(reviewed.tolist())
    category_of: dict[int, int] = {}
    for file in sorted(path.glob("meta_*.json.gz")):
        for number, entry in _entries(file):
            item_id = _item_id(file, number, entry)
            categories = entry.get("categories")
            if item_id in wanted and categories:
                if not (isinstance(categories, list) and _is_path(categories[0])):
                    raise _fault(file, number, "categories", categories, "must be a list of lists of names")
                category_of[item_id] = stable_id(categories[0][-1])
    listed = np.array(list(category_of), dtype=np.int64)
    return catalogue(listed, {"category_id": np.array(list(category_of.values()), dtype=np.int64)}, reviewed)


def _is_path(names: object) -> bool:
    return isinstance(names, list) and len(names) > 0 and isinstance(names[-1], str)


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file and their line numbers from 1; blank lines are passed over."""
    number = 0
    try:
        with gzip.open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _entry(path, number, line)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: after line {number}: not a whole gzip file: {error}") from error


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
        try:
            entry = json.loads(text)
        except json.JSONDecodeError:
            with warnings.catch_warnings():
                # Titles hold backslashes, and Python warns of escapes that it does not know.
                warnings.simplefilter("ignore")
                entry = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: line {number}: {line[:80]!r}: must be a JSON object or a Python literal") from error
    if not isinstance(entry, dict):
        raise DataError(f"{path}: line {number}: {line[:80]!r}: must be a JSON object or a Python literal of one")
    return entry


def _text(path: Path, number: int, entry: dict[str, Any], column: str) -> str:
    value = entry.get(column)
    if not isinstance(value, str):
        raise _fault(path, number, column, value, "must be text")
    return value


def _seconds(path: Path, number: int, entry: dict[str, Any]) -> int:
    value = entry.get("unixReviewTime")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise _fault(path, number, "unixReviewTime", value, "must be an integer from 0 to 2**63 - 1")
    return value


def _item_id(path: Path, number: int, entry: dict[str, Any]) -> int:
    asin = _text(path, number, entry, "asin")
    if not ASIN.fullmatch(asin):
        raise _fault(path, number, "asin", asin, "must be 10 characters of 0-9 and A-Z")
    return int(asin, 36)


def _fault(path: Path, number: int, column: str, value: object, rule: str) -> DataError:
    return DataError(f"{path}: line {number}, column {column!r}: {value!r}: {rule}")
