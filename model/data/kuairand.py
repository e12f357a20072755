"""KuaiRand-Pure (Gao et al., CIKM 2022): clicks on a video feed, from the bundled files or the public CSV logs.

A user's behaviours are their last exposures before the window, each with what was done (`long_view` or only `shown`),
and in the window what they clicked. The item file of statistics is never read: it averages over the test days.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.data.dataset import SPLITS, DataError, DataSet, Impressions, IntArray
from model.data.kuairand_logs import LOGS, exposures_before, read_logs, read_videos, window
from model.data.tables import catalogue, folder, read_parquet
from model.data.timeline import Past, past_and_clicks

ACTIONS = ("shown", "click", "long_view")
SHOWN, CLICK, LONG_VIEW = range(3)
ITEM_FIELDS = ("author_id", "tag")
CONTEXT = ("tab", "hour")
HISTORY = 50  # exposures of a user before the window

ItemColumns = tuple[IntArray, dict[str, IntArray]]  # item ids [I], side fields each [I]


def open_kuairand(path: Path) -> DataSet:
    """The data set in a folder of parquet files (the bundled form) or of the public CSV files.

    Splits by day: train 25 to 29 April 2022, dev 30 April, test 1 to 8 May.
    """
    folder(path, "kuairand")
    if (path / "impressions.parquet").exists():
        return _bundled(path)
    if any(path.glob(LOGS)):
        return _of_logs(path)
    raise DataError(f"kuairand:{path}: must hold impressions.parquet or {LOGS}")


def _bundled(path: Path) -> DataSet:
    table = read_parquet(
        path / "impressions.parquet", ["user_id", "item_id", "timestamp_ms", "click", *CONTEXT, "split"]
    )
    impressions = Impressions(
        user_ids=table.integers("user_id"),
        item_ids=table.integers("item_id"),
        timestamps_ms=table.integers("timestamp_ms", minimum=0),
        clicks=table.integers("click", minimum=0, maximum=1).astype(np.int8),
        splits=table.choices("split", SPLITS),
        context={name: table.integers(name) for name in CONTEXT},
    )
    return _assemble(path, _bundled_items(path), _bundled_past(path), impressions)


def _bundled_items(path: Path) -> ItemColumns:
    table = read_parquet(path / "items.parquet", ["item_id", *ITEM_FIELDS])
    item_ids = table.integers("item_id")
    table.distinct("item_id", item_ids)
    return item_ids, {name: table.integers(name) for name in ITEM_FIELDS}


def _bundled_past(path: Path) -> Past:
    """The histories, every exposure at the one time that is known: that of the user's last."""
    table = read_parquet(path / "histories.parquet", ["user_id", "item_ids", "actions", "last_timestamp_ms"])
    user_ids = table.integers("user_id")
    table.distinct("user_id", user_ids)
    lengths, items = table.lists("item_ids")
    table.same_lengths("actions", lengths, "item_ids")
    actions = table.lists("actions")[1].integers("actions", minimum=0, maximum=1)
    return Past(
        np.repeat(user_ids, lengths),
        items.integers("item_ids"),
        np.repeat(table.integers("last_timestamp_ms", minimum=0), lengths),
        np.where(actions == 1, LONG_VIEW, SHOWN).astype(np.int8),
    )


def _of_logs(path: Path) -> DataSet:
    rows = read_logs(path)
    impressions = window(rows)
    early = exposures_before(rows, HISTORY)
    done = np.where(early["long_view"] == 1, LONG_VIEW, SHOWN).astype(np.int8)
    past = Past(early["user_id"], early["video_id"], early["time_ms"], done)
    return _assemble(path, read_videos(path), past, impressions)


def _assemble(path: Path, items: ItemColumns, past: Past, impressions: Impressions) -> DataSet:
    # A click is `click` however long it was watched. The past has every exposure with its outcome, the window clicks
    # alone: told apart, a history that fills with clicks does not read as one of a user who watches all that is shown.
    behaviors = past_and_clicks(past, impressions, np.full(len(impressions), CLICK, dtype=np.int8), shown=SHOWN)
    seen = np.union1d(past.item_ids, impressions.item_ids)
    return DataSet(
        name=f"kuairand:{path}",
        items=catalogue(*items, seen),
        behaviors=behaviors,
        impressions=impressions,
        actions=ACTIONS,
        default_action="click",
        description=f"KuaiRand-Pure: {len(impressions)} impressions of {len(np.unique(impressions.user_ids))} users, "
        f"25 April to 8 May 2022, after {len(past.item_ids)} earlier exposures",
    )
