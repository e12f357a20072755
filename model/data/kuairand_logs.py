"""The public CSV files of KuaiRand-Pure: `log_standard_*_pure.csv` and `video_features_basic_pure.csv`.

Not read: `log_random_*` (videos shown at random, not what a feed serves) and the statistics of videos (they average
over the test days).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.data.dataset import DEV, TEST, TRAIN, Impressions, IntArray
from model.data.tables import MISSING, Table
from model.data.text_tables import Kind, is_int64, read_text

LOGS = "log_standard_*_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
FIRST_DAY, DEV_DAY, FIRST_TEST_DAY, LAST_DAY = 20220425, 20220430, 20220501, 20220508  # of the window
LAST_HOURMIN = 2359
INTEGERS = ("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "long_view", "tab")


def read_logs(path: Path) -> dict[str, IntArray]:
    """All exposures [R] by time, one of those that repeat user, video and time."""
    kinds: dict[str, Kind] = dict.fromkeys(INTEGERS, int)
    parts = [_checked(read_text(file, kinds)) for file in sorted(path.glob(LOGS))]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in INTEGERS}
    order = np.lexsort((rows["video_id"], rows["user_id"], rows["time_ms"]))
    keys = np.stack([rows[name][order] for name in ("time_ms", "user_id", "video_id")])
    order = order[np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))] if len(order) else order
    return {name: values[order] for name, values in rows.items()}


def _checked(table: Table) -> dict[str, IntArray]:
    most = {"is_click": 1, "long_view": 1, "hourmin": LAST_HOURMIN, "date": LAST_DAY}
    least = dict.fromkeys(("is_click", "long_view", "hourmin", "date", "time_ms"), 0)
    return {name: table.integers(name, minimum=least.get(name), maximum=most.get(name)) for name in INTEGERS}


def window(rows: dict[str, IntArray]) -> Impressions:
    """The exposures from FIRST_DAY on as impressions [M]."""
    inside = {name: values[rows["date"] >= FIRST_DAY] for name, values in rows.items()}
    date = inside["date"]
    splits = np.where(date >= FIRST_TEST_DAY, TEST, np.where(date >= DEV_DAY, DEV, TRAIN)).astype(np.int8)
    return Impressions(
        user_ids=inside["user_id"],
        item_ids=inside["video_id"],
        timestamps_ms=inside["time_ms"],
        clicks=inside["is_click"].astype(np.int8),
        splits=splits,
        context={"tab": inside["tab"], "hour": inside["hourmin"] // 100},
    )


def exposures_before(rows: dict[str, IntArray], last: int) -> dict[str, IntArray]:
    """Each user's `last` exposures before FIRST_DAY [P], by user and time."""
    early = {name: values[rows["date"] < FIRST_DAY] for name, values in rows.items()}
    order = np.argsort(early["user_id"], kind="stable")
    users = early["user_id"][order]
    ends = np.searchsorted(users, users, side="right")
    order = order[ends - np.arange(len(order)) <= last]
    return {name: values[order] for name, values in early.items()}


def read_videos(path: Path) -> tuple[IntArray, dict[str, IntArray]]:
    """Videos [I] with author and first tag; MISSING where a video has no tag."""
    table = read_text(path / VIDEOS, {"video_id": int, "author_id": int, "tag": str})
    item_ids = table.integers("video_id")
    table.distinct("video_id", item_ids)
    names, codes = table.strings("tag")
    first = [name.partition(",")[0] for name in names]
    bad = np.array([bool(tag) and not is_int64(tag) for tag in first] or [False])
    table.refuse(bad[codes], "tag", "must be integers with commas between, or nothing")
    tags = np.array([int(tag) if tag else MISSING for tag in first] or [MISSING], dtype=np.int64)
    return item_ids, {"author_id": table.integers("author_id"), "tag": tags[codes]}
