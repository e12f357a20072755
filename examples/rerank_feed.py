"""Re-ranks a feed for a user: the order it came in, and the order by click probability.

    .venv/bin/python examples/rerank_feed.py --user 712 --items 1318 1725 3496 2684 445 5239

asks the server that `make serve` starts, for one of its bundled users. Another user's order is another one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from service.client import AugurClient, AugurError, Scores

FEED = (1318, 1725, 3496, 2684, 445, 5239, 6831, 2555, 1527, 7405, 6026, 4258)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both orders; status 1 where there are no scores."""
    asked = _parser().parse_args(arguments)
    context = dict(asked.context)
    with AugurClient(asked.url, timeout=asked.timeout) as client:
        try:
            scores = client.score(asked.user, asked.items, context=context)
        except AugurError as error:
            print(f"no scores: {error}", file=sys.stderr)
            return 1
    print(table(asked.items, scores))
    return 0


def table(feed: Sequence[int], scores: Scores) -> str:
    """A line for each item, best first, with where it was and where it is now."""
    # A stable sort: what is equally likely stays in the feed's order.
    order = sorted(range(len(feed)), key=lambda place: -scores.scores[place])
    rows = [
        f"{new:>3} {old + 1:>4} {feed[old]:>9} {scores.scores[old]:>8.4f}  {_moved(old + 1 - new)}"
        for new, old in enumerate(order, 1)
    ]
    title = f"{scores.model} {scores.version}, from {scores.history_length} behaviours"
    if scores.degraded:
        title += f", degraded: {scores.degraded}"
    return "\n".join([title, "new  old      item    click", *rows])


def _moved(places: int) -> str:
    return f"{'up' if places > 0 else 'down'} {abs(places)}" if places else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Re-ranks a feed for a user by click probability.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (%(default)s)")
    parser.add_argument("--user", default="712", help="whose feed it is (%(default)s)")
    parser.add_argument("--items", type=int, nargs="+", default=FEED, help="the feed, in the order it came in")
    parser.add_argument(
        "--context", type=_pair, nargs="*", default=[("tab", 1)], metavar="NAME=NUMBER", help="the model's (tab=1)"
    )
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds to wait for the scores (%(default)g)")
    return parser


def _pair(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a name, =, and a whole number") from None


if __name__ == "__main__":
    sys.exit(main())
