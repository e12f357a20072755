"""What happened when: splits by time, and behaviours made of a history and of the clicks that followed it.

Shapes: P past behaviours, M impressions, N = P + clicks behaviours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.data.dataset import DEV, TEST, TRAIN, ActionArray, Behaviors, Impressions, IntArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Past:
    """Behaviours from before the impressions; within a user oldest first."""

    user_ids: IntArray  # [P]
    item_ids: IntArray  # [P]
    timestamps_ms: IntArray  # [P]
    actions: ActionArray  # [P]


def split_by_time(timestamps_ms: IntArray, *, train_share: float = 0.8, dev_share: float = 0.1) -> npt.NDArray[np.int8]:
    """TRAIN, DEV or TEST by time over all rows [M]; rows of one moment stay together, in the later split."""
    splits = np.full(len(timestamps_ms), TRAIN, dtype=np.int8)
    if len(splits):
        ordered = np.sort(timestamps_ms)
        dev_from = ordered[min(round(len(ordered) * train_share), len(ordered) - 1)]
        test_from = ordered[min(round(len(ordered) * (train_share + dev_share)), len(ordered) - 1)]
        splits[timestamps_ms >= dev_from] = DEV
        splits[timestamps_ms >= test_from] = TEST
    return splits


def grouped(user_ids: IntArray) -> tuple[IntArray, IntArray]:
    """The different users [U] of sorted `user_ids` and the offsets [U + 1] of their rows."""
    users, first = np.unique(user_ids, return_index=True)
    return users, np.append(first, len(user_ids)).astype(np.int64)


def past_and_clicks(
    past: Past, impressions: Impressions, click_actions: ActionArray, *, shown: int | None
) -> Behaviors:
    """Each user's past and then the impressions they clicked, with the negatives that were shown beside them.

    Impressions that were not clicked are no behaviours: with them a history would tell how a feed is cut into
    pages, an artefact of the log. They serve as negatives: a click has the user's latest item that was shown and not
    chosen, in the window or the past, at or before its own time; without one, or if that is the very item, itself,
    which stands for none. A past behaviour has none: what was passed over then stands beside it in the past.

    Args:
        past: what came before; of the same time as an impression, it goes first.
        impressions: the window.
        click_actions: what each impression's click stands for [M]; read where clicked.
        shown: the action that says a past item was shown and not chosen, if the data has one.
    """
    clicked = impressions.clicks == 1
    is_past = np.arange(len(past.user_ids) + len(clicked)) < len(past.user_ids)
    users = np.concatenate([past.user_ids, impressions.user_ids])
    times = np.concatenate([past.timestamps_ms, impressions.timestamps_ms])
    items = np.concatenate([past.item_ids, impressions.item_ids])
    actions = np.concatenate([past.actions, click_actions])
    past_shown = np.zeros(len(past.actions), dtype=bool) if shown is None else past.actions == shown
    passed_over = np.concatenate([past_shown, ~clicked])

    # At one moment the past comes first and the clicks last, so that they see what was shown beside them.
    order = np.lexsort((np.where(is_past, 0, 2 - passed_over), times, users))
    users, times, items, actions = users[order], times[order], items[order], actions[order]
    is_past, passed_over = is_past[order], passed_over[order]
    negatives = np.where(is_past, items, _latest_passed_over(users, items, passed_over))
    kept = is_past | ~passed_over
    user_ids, offsets = grouped(users[kept])
    return Behaviors(user_ids, offsets, items[kept], times[kept], actions[kept], negatives[kept])


def _latest_passed_over(users: IntArray, items: IntArray, passed_over: BoolArray) -> IntArray:
    if not len(users):
        return items
    latest = np.maximum.accumulate(np.where(passed_over, np.arange(len(users)), -1))
    return np.where((latest >= 0) & (users[latest] == users), items[latest], items)
