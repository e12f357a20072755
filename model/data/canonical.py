"""One's own logs, in parquet files: items, and either impressions (with histories at will) or sequences.

- `items.parquet`: item_id, and any integer side fields.
- `impressions.parquet`: user_id, item_id, timestamp_ms, click (0 or 1); at will action (text: what was done, where
  clicked), split (train, dev or test), and any integer context fields. Without split: by time, 80/10/10.
- `histories.parquet`: user_id, item_ids (lists, oldest first); at will actions (lists of texts, as long). All of it
  counts as before the file's first impression. The action `shown` means shown and not chosen.
- `sequences.parquet`: user_id, item_ids (lists, oldest first). Scored the paper's way:
  the last item against a drawn one.

Ids are any 64-bit integers. An item that occurs must be listed in `items.parquet`. A side field has another name than
every context field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from model.data.dataset import SPLITS, ActionArray, DataError, DataSet, Impressions, IntArray, Items
from model.data.sequences import last_item_impressions, read_sequences
from model.data.tables import BoolArray, Table, folder, only_columns, read_parquet
from model.data.timeline import Past, past_and_clicks, split_by_time

CLICK, SHOWN = "click", "shown"
LISTED = "must be listed in items.parquet"
KEYS = ("user_id", "item_id", "timestamp_ms", "click")
MOST_ACTIONS = 127

Named = tuple[tuple[str, ...], IntArray]  # names, and for each row the place of its name


def open_canonical(path: Path, *, split_seed: int = 0, prefixes: bool = False) -> DataSet:
    """The data set in a folder; `split_seed` and `prefixes` are for sequences.

    The list of actions is what occurs, in the order of the alphabet. Where some behaviours have names and others none
    (a file without the column), these are `click`. The default action is `click` if it occurs, else the most frequent.
    """
    folder(path, "canonical")
    items = _items(path / "items.parquet")
    of_sequences = (path / "sequences.parquet").exists()
    others = [file for file in ("impressions.parquet", "histories.parquet") if (path / file).exists()]
    if of_sequences and others:
        raise DataError(f"canonical:{path}: sequences.parquet and {others[0]}: must be one or the other")
    if of_sequences:
        return _of_sequences(path, items, split_seed=split_seed, prefixes=prefixes)
    if "impressions.parquet" not in others:
        raise DataError(f"canonical:{path}: must hold impressions.parquet or sequences.parquet")
    if prefixes:
        raise DataError(f"canonical:{path}: prefixes=True is for sequences; these impressions have splits of their own")
    return _of_impressions(path, items)


def _items(path: Path) -> Items:
    table = read_parquet(path)
    item_ids = table.integers("item_id")
    order = table.distinct("item_id", item_ids)
    return Items(item_ids[order], {name: table.integers(name)[order] for name in table.names if name != "item_id"})


def _of_sequences(path: Path, items: Items, *, split_seed: int, prefixes: bool) -> DataSet:
    table = read_parquet(path / "sequences.parquet")
    only_columns(table, ("user_id", "item_ids"))
    behaviors = read_sequences(path / "sequences.parquet", known=items.item_ids)
    return DataSet(
        name=f"canonical:{path}",
        items=items,
        behaviors=behaviors,
        impressions=last_item_impressions(behaviors, seed=split_seed, prefixes=prefixes),
        sampled_negatives=True,
        description=f"{len(behaviors.item_ids)} behaviours of {len(behaviors.user_ids)} users",
    )


def _of_impressions(path: Path, items: Items) -> DataSet:
    table = read_parquet(path / "impressions.parquet")
    if not len(table):
        raise DataError(f"{table.path}: no rows: at least one")
    impressions = _impressions(table, items)
    clicked = impressions.clicks == 1
    done = _actions(table, clicked) if "action" in table else None
    past, past_done = _past(path / "histories.parquet", items, int(impressions.timestamps_ms.min()) - 1)

    click_codes, past_codes, actions = _one_list(done, past_done, clicked, len(past.user_ids))
    shown = actions.index(SHOWN) if SHOWN in actions else None
    behaviors = past_and_clicks(replace(past, actions=past_codes), impressions, click_codes, shown=shown)
    counts = np.bincount(np.concatenate([past_codes, click_codes[clicked]]), minlength=1)
    default = CLICK if CLICK in actions else actions[int(np.argmax(counts))] if actions else None
    return DataSet(
        name=f"canonical:{path}",
        items=items,
        behaviors=behaviors if actions else replace(behaviors, actions=None),
        impressions=impressions,
        actions=actions,
        default_action=default,
        description=f"{len(impressions)} impressions of {len(np.unique(impressions.user_ids))} users "
        f"after {len(past.user_ids)} earlier behaviours",
    )


def _impressions(table: Table, items: Items) -> Impressions:
    least, most = {"timestamp_ms": 0, "click": 0}, {"click": 1}
    columns = {
        name: table.integers(name, minimum=least.get(name), maximum=most.get(name))
        for name in (*KEYS, *table.names)
        if name not in ("action", "split")
    }
    table.refuse(~np.isin(columns["item_id"], items.item_ids), "item_id", LISTED)
    times = columns["timestamp_ms"]
    return Impressions(
        user_ids=columns["user_id"],
        item_ids=columns["item_id"],
        timestamps_ms=times,
        clicks=columns["click"].astype(np.int8),
        splits=table.choices("split", SPLITS) if "split" in table else split_by_time(times),
        context={name: values for name, values in columns.items() if name not in KEYS},
    )


def _actions(table: Table, clicked: BoolArray) -> Named:
    names, codes = table.strings("action", nulls=True)
    empty = np.array([not name for name in names] or [False])
    table.refuse(empty[codes] & clicked, "action", "must be named where click is 1")
    return names, codes


def _past(path: Path, items: Items, time: int) -> tuple[Past, Named | None]:
    """The histories, all at one time, and what was done in them, if the file says."""
    nothing = np.zeros(0, dtype=np.int64)
    if not path.exists():
        return Past(nothing, nothing, nothing, nothing.astype(np.int8)), None
    table = read_parquet(path)
    only_columns(table, ("user_id", "item_ids", "actions"))
    user_ids = table.integers("user_id")
    table.distinct("user_id", user_ids)
    lengths, values = table.lists("item_ids")
    item_ids = values.integers("item_ids")
    values.refuse(~np.isin(item_ids, items.item_ids), "item_ids", LISTED)
    done = None
    if "actions" in table:
        table.same_lengths("actions", lengths, "item_ids")
        texts = table.lists("actions")[1]
        done = texts.strings("actions")
        texts.refuse(np.array([not name for name in done[0]] or [False])[done[1]], "actions", "must not be empty")
    times = np.full(len(item_ids), time)
    return Past(np.repeat(user_ids, lengths), item_ids, times, np.zeros(len(item_ids), dtype=np.int8)), done


def _one_list(
    done: Named | None, past_done: Named | None, clicked: BoolArray, past_rows: int
) -> tuple[ActionArray, ActionArray, tuple[str, ...]]:
    """The actions of impressions and of histories as places in one list, and the list, empty if nothing is named."""
    if done is None and past_done is None:
        return np.zeros(len(clicked), dtype=np.int8), np.zeros(past_rows, dtype=np.int8), ()
    names, codes = done or ((CLICK,), np.zeros(len(clicked), dtype=np.int64))
    past_names, past_codes = past_done or ((CLICK,), np.zeros(past_rows, dtype=np.int64))
    used = {names[code] for code in np.unique(codes[clicked])} | {past_names[code] for code in np.unique(past_codes)}
    actions = tuple(sorted(used))
    if len(actions) > MOST_ACTIONS:
        raise DataError(f"{len(actions)} different actions ({', '.join(actions[:3])}, ...): at most {MOST_ACTIONS}")
    return _places(names, codes, actions), _places(past_names, past_codes, actions), actions


def _places(names: Sequence[str], codes: IntArray, actions: Sequence[str]) -> ActionArray:
    # A name that no behaviour has stands on impressions without a click alone, where the action is not read.
    place = np.array([actions.index(name) if name in actions else 0 for name in names] or [0], dtype=np.int8)
    return place[codes]
