"""Data sets by adapter and path, all in one shape: `open_data("kuairand:data/kuairand_pure")`."""

from __future__ import annotations

from pathlib import Path

from model.data.amazon import open_amazon
from model.data.behaviors import ALL, BEHAVIORS, of_behaviors
from model.data.canonical import open_canonical
from model.data.dataset import DEV, SPLITS, TEST, TRAIN, Behaviors, DataError, DataSet, Impressions, Items
from model.data.kuairand import open_kuairand
from model.data.movielens import open_movielens
from model.data.taobao import open_taobao

__all__ = [
    "BEHAVIORS",
    "DEV",
    "SPLITS",
    "TEST",
    "TRAIN",
    "Behaviors",
    "DataError",
    "DataSet",
    "Impressions",
    "Items",
    "open_data",
]

OF_IMPRESSIONS = {"kuairand": open_kuairand, "movielens": open_movielens}
OF_SEQUENCES = {"amazon": open_amazon, "taobao": open_taobao, "canonical": open_canonical}


def open_data(name: str, *, split_seed: int = 0, prefixes: bool = False, behaviors: str = ALL) -> DataSet:
    """The data set `ADAPTER:PATH`.

    Args:
        name: adapter and path, as in `kuairand:data/kuairand_pure`.
        split_seed: which users are for dev and test, where the data has no impressions and so no splits of its own.
        prefixes: train on every behaviour after a user's first, not on the last alone; for the same data only.
        behaviors: which count, of BEHAVIORS: all, those that were chosen alone, or all without what was done.

    Raises:
        DataError: the name, a file, a row or a column breaks a rule; the message says which.
    """
    return of_behaviors(_open(name, split_seed, prefixes), behaviors)


def _open(name: str, split_seed: int, prefixes: bool) -> DataSet:
    adapter, colon, location = name.partition(":")
    choices = ", ".join([*OF_IMPRESSIONS, *OF_SEQUENCES])
    if not colon or not location:
        raise DataError(f"data {name!r}: must be ADAPTER:PATH, with ADAPTER one of {choices}")
    path = Path(location)
    if adapter in OF_SEQUENCES:
        return OF_SEQUENCES[adapter](path, split_seed=split_seed, prefixes=prefixes)
    if adapter not in OF_IMPRESSIONS:
        raise DataError(f"data {name!r}: adapter {adapter!r} must be one of {choices}")
    if prefixes:
        raise DataError(f"data {name!r}: prefixes=True is for sequences; these impressions have splits of their own")
    return OF_IMPRESSIONS[adapter](path)
