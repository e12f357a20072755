"""What is sent and what counts as a right answer. Nothing here sends."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parents[1] / "data" / "kuairand_pure"
FEWEST, MOST = 50, 200
CONTEXT = ("tab", "hour")


class Traffic:
    """Requests from a log of impressions in the order of time, `impressions.parquet` of a folder.

    A score request is one impression as the feed met it: its user, tab and hour, and for candidates what that user was
    shown from then on, filled up with what others were shown after it.
    """

    def __init__(self, folder: Path = DATA, seed: int = 0) -> None:
        table = pq.read_table(folder / "impressions.parquet", columns=["user_id", "item_id", "long_view", *CONTEXT])
        self._columns = {name: table[name].to_numpy() for name in table.column_names}
        self._users, self._items = self._columns["user_id"], self._columns["item_id"]
        # Rows by user, and within a user by time.
        self._by_user = np.argsort(self._users, kind="stable")
        self._random = random.Random(seed)

    def visit(self) -> int:
        """A row of the log: someone opens the feed."""
        return self._random.randrange(len(self._users))

    def chance(self, probability: float) -> bool:
        """True as often as that."""
        return self._random.random() < probability

    def score(self, row: int, context: Sequence[str]) -> dict[str, Any]:
        """The body of a score request, with those context fields that the server's model takes."""
        user = int(self._users[row])
        first, last = np.searchsorted(self._users, [user, user + 1], sorter=self._by_user)
        own = self._by_user[first:last]
        # Long enough for the most candidates, with the items that come again left out.
        following = self._items.take(range(row, row + 10 * MOST), mode="wrap")
        items = dict.fromkeys([*self._items[own[own >= row]].tolist(), *following.tolist()])
        return {
            "user_id": str(user),
            "item_ids": list(islice(items, self._random.randint(FEWEST, MOST))),
            "context": {name: int(self._columns[name][row]) for name in CONTEXT if name in context},
        }

    def behavior(self, row: int, actions: Sequence[str]) -> dict[str, Any]:
        """The body of a behaviours request: the item of an impression, watched now; its action if the model has it."""
        action = "long_view" if self._columns["long_view"][row] else "click"
        event: dict[str, Any] = {
            "user_id": str(self._users[row]),
            "item_id": int(self._items[row]),
            "timestamp_ms": time.time_ns() // 1_000_000,
        }
        return {"events": [event | ({"action": action} if action in actions else {})]}


def wrong(status: int, text: str, judge: Callable[[Any], str | None]) -> str | None:
    """What is wrong with an answer; None when nothing is. `judge` says it of the body of a success."""
    if status != 200:
        return f"status {status}"
    try:
        return judge(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"an answer of another shape: {type(error).__name__}"


def wrong_scores(answer: Any, candidates: int) -> str | None:
    """Each candidate has a score, and each score is a probability."""
    scores = answer["scores"]
    if len(scores) != candidates:
        return "not one score for each candidate"
    return None if all(0 <= score <= 1 for score in scores) else "a score outside 0 to 1"


def wrong_counts(answer: Any, events: int) -> str | None:
    """Each event is accounted for."""
    counted = answer["accepted"] + answer["duplicates"] + answer.get("outside_window", 0)
    return None if counted == events else "not every event accounted for"
