"""Taobao's UserBehavior log: `user,item,category,behaviour,seconds`, without a header.

The public file has 100 million rows: it is streamed and never held in memory.

Scored the paper's way: a user's last behaviour against a drawn item.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.data.dataset import DataError, DataSet, Items
from model.data.sequences import last_item_impressions
from model.data.spool import MOST_BUCKETS, ROW, Rows, Spool
from model.data.text_tables import Kind, text_blocks

ACTIONS = ("pv", "cart", "fav", "buy")
COLUMNS: dict[str, Kind] = {"user": int, "item": int, "category": int, "behaviour": ACTIONS, "seconds": int}
LAST_SECOND = 2_000_000_000  # 18 May 2033

BLOCK_BYTES = 2 << 20
BUCKET_BYTES = 64 << 20


def open_taobao(
    path: Path,
    *,
    split_seed: int = 0,
    prefixes: bool = False,
    block_bytes: int = BLOCK_BYTES,
    bucket_bytes: int = BUCKET_BYTES,
) -> DataSet:
    """The data set in one CSV file.

    The public file has times before 1970 and as late as 2037: rows outside 0 <= seconds < LAST_SECOND are dropped. So
    is a last line that breaks off, as of a file cut by size. The description counts both.

    Memory: about four times `bucket_bytes`, forty times `block_bytes` (Arrow reads ahead), the users and items, and the
    impressions; with `prefixes` there are nearly as many of these as rows.
    """
    if not path.is_file():
        raise DataError(f"taobao:{path}: {'not a file' if path.exists() else 'no such file'}")
    unfinished = _unfinished_line(path)
    cut: list[str] = []

    def forgive(line: str) -> bool:
        if line != unfinished:
            return False
        cut.append(line)
        return True

    rows = dropped = 0
    with Spool(min(1 + path.stat().st_size // bucket_bytes, MOST_BUCKETS)) as spool:
        blocks = text_blocks(
            path, COLUMNS, names=list(COLUMNS), block_bytes=block_bytes, forgive=forgive if unfinished else None
        )
        for kept, outside in map(_rows, blocks):
            spool.add(kept)
            rows, dropped = rows + len(kept), dropped + outside
        if not rows:
            raise DataError(f"taobao:{path}: no row with 0 <= seconds < {LAST_SECOND}: at least one")
        behaviors, (item_ids, categories) = spool.behaviors(), spool.catalogue()
    return DataSet(
        name=f"taobao:{path}",
        items=Items(item_ids, {"category_id": categories}),
        behaviors=behaviors,
        impressions=last_item_impressions(behaviors, seed=split_seed, prefixes=prefixes),
        actions=ACTIONS,
        default_action="pv",
        sampled_negatives=True,
        description=f"Taobao UserBehavior: {rows} behaviours of {len(behaviors.user_ids)} users; "
        f"dropped: {dropped} rows outside 0 <= seconds < {LAST_SECOND}, {len(cut)} unfinished last line",
    )


def _rows(block: Any) -> tuple[Rows, int]:
    """The rows of a block with a possible time, and how many have another."""
    seconds = block["seconds"].to_numpy()
    possible = (seconds >= 0) & (seconds < LAST_SECOND)
    rows = np.empty(int(possible.sum()), dtype=ROW)
    for name in ("user", "item", "category"):
        rows[name] = block[name].to_numpy()[possible]
    rows["time"] = seconds[possible] * 1000
    rows["action"] = pc.index_in(block["behaviour"], pa.array(ACTIONS)).to_numpy()[possible]
    return rows, len(seconds) - len(rows)


def _unfinished_line(path: Path) -> str | None:
    """The last line, if it has no end of line and too few fields: the file was cut short."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    last = tail.rpartition(b"\n")[2].decode(errors="replace")
    return last if last and last.count(",") < len(COLUMNS) - 1 else None
