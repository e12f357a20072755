"""What is sent and what counts as a right answer. Nothing here sends."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
        table = pq.read_table(
            folder / "impressions.parquet", columns=["user_id", "item_id", "timestamp_ms", "long_view", *CONTEXT]
        )
        self._columns = {name: table[name].to_numpy() for name in table.column_names}
        self._users, self._items = self._columns["user_id"], self._columns["item_id"]
        # Rows by user, and within a user by time.
        self._by_user = np.argsort(self._users, kind="stable")
        self._random = random.Random(seed)

    def visit(self) -> int:
        """A row of the log: someone opens the feed."""
        return self._random.randrange(len(self._users))

    def below(self, bound: int) -> int:
        """A number from 0 on."""
        return self._random.randrange(bound)

    def stay(self, speed: float, longest: float) -> Iterator[tuple[int, float]]:
        """Rows of one user in the order of time, from any of them on, each with the seconds until the next.

        The gaps are the log's own, `speed` times shorter; 0 between what was shown at once. The last row is the user's
        last one, or stands before a gap of more than `longest`, and has `longest`.
        """
        row = self.visit()
        own = self._of(row)
        own = own[own >= row]
        gaps = np.diff(self._columns["timestamp_ms"][own]) / 1000 / speed
        for place, gap in zip(own.tolist(), [*gaps.tolist(), np.inf], strict=True):
            yield place, min(gap, longest)
            if gap > longest:
                return

    def user(self, row: int) -> int:
        """Whose impression it is."""
        return int(self._users[row])

    def rows_of_users(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """A row each of so many different users, drawn at random; of all users where there are no more."""
        firsts = np.unique(self._users, return_index=True)[1]
        return random.permutation(firsts)[:count].astype(np.int64)

    def pages(self, random: np.random.Generator) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and times in ms from a random place of the log on, round its end; one row of what came at once."""
        stamps = self._columns["timestamp_ms"]
        turned = np.lexsort((self._users, stamps))
        same = (np.diff(stamps[turned]) == 0) & (np.diff(self._users[turned]) == 0)
        rows = turned[np.insert(~same, 0, True)]
        first = int(random.integers(len(rows)))
        times = stamps[rows]
        return np.roll(rows, -first), np.concatenate([times[first:], times[:first] + (times[-1] - times[0])])

    def history(self, row: int, length: int) -> list[int]:
        """So many items, oldest first: what the user was shown until then, before it what others were shown."""
        own = self._of(row)
        mine = self._items[own[own <= row]][-length:] if length else self._items[:0]
        others = self._items.take(range(row - length, row), mode="wrap")
        return [*others[: length - len(mine)].tolist(), *mine.tolist()]

    def score(self, row: int, context: Sequence[str], candidates: int | None = None) -> dict[str, Any]:
        """The body of a score request, with those context fields that the server's model takes.

        Without `candidates` there are 50 to 200. Where the log has not so many different items the list ends early.
        """
        own = self._of(row)
        # Long enough for the most candidates, with the items that come again left out.
        following = self._items.take(range(row, row + 10 * max(MOST, candidates or 0)), mode="wrap")
        items = dict.fromkeys([*self._items[own[own >= row]].tolist(), *following.tolist()])
        return {
            "user_id": str(self.user(row)),
            "item_ids": list(islice(items, candidates or self._random.randint(FEWEST, MOST))),
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

    def _of(self, row: int) -> npt.NDArray[np.int64]:
        """All rows of the user of a row, by time."""
        user = self.user(row)
        return self._by_user[slice(*np.searchsorted(self._users, [user, user + 1], sorter=self._by_user))]


def wrong(status: int, text: str, judge: Callable[[Any], str | None]) -> str | None:
    """What is wrong with an answer; None when nothing is. `judge` says it of the body of a success."""
    if status != 200:
        return f"status {status}"
    try:
        return judge(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"an answer of another shape: {type(error).__name__}"


def wrong_scores(scores: Sequence[float], candidates: int) -> str | None:
    """Each candidate has a score, and each score is a probability."""
    if len(scores) != candidates:
        return "not one score for each candidate"
    return None if all(0 <= score <= 1 for score in scores) else "a score outside 0 to 1"


def wrong_counts(counted: int, events: int) -> str | None:
    """Each event is accounted for."""
    return None if counted == events else "not every event accounted for"
