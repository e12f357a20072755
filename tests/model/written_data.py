"""Small data sets on disk whose clicks follow a rule, and the command lines over them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.cli import main

# Small tensors gain nothing from threads, and on a busy machine lose much to them.
torch.set_num_threads(1)


USERS, ITEMS, KINDS = 40, 24, 4
SMALL = ("--hidden", "6", "--embedding", "6", "--head", "12", "--max-history", "8", "--threads", "1")
DAYS = {"train": 0.7, "dev": 0.85, "test": 1.0}


def write_impressions(folder: Path, rows: int = 900, *, splits: dict[str, float] | None = None, seed: int = 0) -> str:
    """Users click what is of their kind; histories tell the kind. Returns the data set's name.

    `splits` gives the share of the rows up to which each split reaches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    item_ids = 1000 + np.arange(ITEMS)
    pq.write_table(pa.table({"item_id": item_ids, "kind": item_ids % KINDS}), folder / "items.parquet")
    user_ids = np.arange(USERS)
    liked = [item_ids[item_ids % KINDS == user % KINDS] for user in user_ids]
    lists = [random.choice(liked[user], int(user) % 7).tolist() for user in user_ids]
    done = [["click"] * len(items) for items in lists]
    table = pa.table({"user_id": user_ids, "item_ids": lists, "actions": done})
    pq.write_table(table, folder / "histories.parquet")
    users, items = random.choice(user_ids, rows), random.choice(item_ids, rows)
    click = random.random(rows) < np.where(items % KINDS == users % KINDS, 0.9, 0.1)
    share = np.arange(rows) / rows
    names = np.select([share < end for end in (splits or DAYS).values()], list(splits or DAYS), "train")
    impressions = {
        "user_id": users,
        "item_id": items,
        "timestamp_ms": 1_650_000_000_000 + 60_000 * np.arange(rows),
        "click": click.astype(np.int64),
        "split": names,
        "tab": random.integers(0, 3, rows),
        "action": np.where(random.random(rows) < 0.5, "click", "long_view"),
    }
    pq.write_table(pa.table(impressions), folder / "impressions.parquet")
    return f"canonical:{folder}"


def write_sequences(folder: Path, users: int = 120, seed: int = 0) -> str:
    """Users who keep to items of their kind; no context, no actions, no times."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    item_ids = 1000 + np.arange(ITEMS)
    pq.write_table(pa.table({"item_id": item_ids, "kind": item_ids % KINDS}), folder / "items.parquet")
    lists = [random.choice(item_ids[item_ids % KINDS == user % KINDS], 3 + user % 6).tolist() for user in range(users)]
    pq.write_table(pa.table({"user_id": np.arange(users), "item_ids": lists}), folder / "sequences.parquet")
    return f"canonical:{folder}"


@contextmanager
def command_line(*words: object) -> Iterator[None]:
    """The arguments of this process, as a shell would give them."""
    before = sys.argv
    sys.argv = ["python", *map(str, words)]
    try:
        yield
    finally:
        sys.argv = before


def call(run: Callable[[], None], *words: object) -> int:
    """Run a command line in this process; its exit code."""
    try:
        with command_line(*words):
            main(run)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def complaint(run: Callable[[], None], capsys: Any, *words: object) -> str:
    """What a command line refuses with: one line on stderr, exit code 2."""
    capsys.readouterr()
    assert call(run, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return str(err)
