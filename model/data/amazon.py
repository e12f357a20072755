"""Amazon reviews (McAuley et al.): sequences of reviewed items, from parquet files or the public gzip files.

Scored the paper's way: a user's last item against a drawn one. Timestamps are places in the sequence: the public
reviews carry only their day, and a history strictly before the last review would lose all of that day.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.data.amazon_reviews import read_reviews
from model.data.dataset import Behaviors, DataError, DataSet, Items
from model.data.sequences import last_item_impressions, read_sequences
from model.data.tables import catalogue, folder, read_parquet


def open_amazon(path: Path, *, split_seed: int = 0, prefixes: bool = False) -> DataSet:
    """The data set in a folder with `sequences.parquet` and `items.parquet`, or with the public gzip files.

    Side field `category_id`; an item without one has MISSING.
    """
    folder(path, "amazon")
    if (path / "sequences.parquet").exists():
        behaviors, items = _of_parquet(path)
    elif any(path.glob("reviews_*.json.gz")):
        behaviors, items = read_reviews(path)
    else:
        raise DataError(f"amazon:{path}: must hold sequences.parquet or reviews_*.json.gz")
    return DataSet(
        name=f"amazon:{path}",
        items=items,
        behaviors=behaviors,
        impressions=last_item_impressions(behaviors, seed=split_seed, prefixes=prefixes),
        sampled_negatives=True,
        description=f"Amazon: {len(behaviors.item_ids)} reviews by {len(behaviors.user_ids)} users",
    )


def _of_parquet(path: Path) -> tuple[Behaviors, Items]:
    behaviors = read_sequences(path / "sequences.parquet")
    table = read_parquet(path / "items.parquet", ["item_id", "category_id"])
    item_ids = table.integers("item_id")
    table.distinct("item_id", item_ids)
    fields = {"category_id": table.integers("category_id")}
    return behaviors, catalogue(item_ids, fields, np.unique(behaviors.item_ids))
