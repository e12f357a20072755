"""The options of `python -m loadtest.openloop`. A wrong one is refused by its name, its value and the rule."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.openloop.bodies import Content
from loadtest.openloop.run import Load
from loadtest.openloop.sweep import Bound

HIGHEST_ADJACENCY = 0.95  # groups are of 1 / (1 - adjacency) requests


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options as given, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.openloop",
        description="An open-loop load: requests leave when they are due, and latency counts from then.",
    )
    _add_servers(parser)
    _add_load(parser)
    _add_content(parser)
    _add_judgement(parser)
    chosen = parser.parse_args(arguments)
    _check(parser, chosen)
    return chosen


def _add_servers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("servers")
    group.add_argument("--url", type=address, help="of a server that runs already")
    group.add_argument("--serve", type=command, metavar="COMMAND", help=f"start this server. {SERVE_HELP}")
    group.add_argument(
        "--compare", type=address, metavar="URL", help="a second server, measured in turn with the first"
    )
    group.add_argument("--compare-command", type=command, metavar="COMMAND", help="start the second server")
    group.add_argument("--path", default="/v1/score", help="of score requests (/v1/score)")
    group.add_argument("--pid", type=whole(1), help="the server's process with --url, for its CPU time")
    group.add_argument("--server-cpus", type=cores, metavar="N,...", help="cores of the servers that are started")
    group.add_argument("--client-cpus", type=cores, metavar="N,...", help="cores of the client")


SERVE_HELP = (
    "{port} in it becomes a free port; without it the server is given AUGUR_PORT=0 and is to print "
    "'serving http://...'; `python` is this interpreter"
)


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("--rate", type=number(0, above=True), default=100.0, help="requests a second (100)")
    group.add_argument("--duration", type=number(0, above=True), default=10.0, help="seconds that count (10)")
    group.add_argument("--warmup", type=number(0), default=2.0, help="seconds before them that do not (2)")
    group.add_argument("--repeats", type=whole(1), default=3, help="runs (3)")
    group.add_argument("--arrivals", choices=("poisson", "replay"), default="poisson", help=ARRIVALS_HELP)
    group.add_argument("--adjacency", type=number(0, HIGHEST_ADJACENCY), default=0.0, help=ADJACENCY_HELP)
    group.add_argument("--strangers", action="store_true", help="the same arrivals, but followers are other users")
    group.add_argument("--mix", type=number(0, 0.99), default=0.0, help="share of behaviours among requests (0)")
    group.add_argument("--large-rate", type=number(0), default=0.0, help="large requests a second beside (0)")
    group.add_argument("--probe-rate", type=number(0), default=0.0, help="GET /livez a second beside (0)")
    group.add_argument("--timeout", type=number(0, above=True), default=10.0, help="seconds to wait for an answer (10)")
    group.add_argument("--connections", type=whole(1), default=1000, help="open at once, at most (1000)")
    group.add_argument("--workers", type=whole(1, 64), default=1, help="processes of the client (1)")
    group.add_argument("--seed", type=whole(0), default=0, help="of arrivals and of what is asked (0)")


ARRIVALS_HELP = "Poisson's, or those of the bundled log with its gaps compressed to the rate (poisson)"
ADJACENCY_HELP = "share of requests that follow one of the same user within 4 ms (0)"


def _add_content(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests")
    group.add_argument("--candidates", type=candidates, default=None, help="of a request, or `real`: 50 to 200 (real)")
    group.add_argument("--history-length", type=whole(0, 100_000), help="behaviours sent along (none: the stored ones)")
    group.add_argument("--stored-length", type=whole(1, 100_000), help="behaviours told to the server for each user")
    group.add_argument("--users", type=whole(1), default=1000, help="different users (1000)")
    group.add_argument("--large-candidates", type=whole(1, 100_000), default=2048, help="of a large request (2048)")


def _add_judgement(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("judgement and reports")
    group.add_argument("--sweep", action="store_true", help="find the greatest rate within --p99-ms without an error")
    group.add_argument("--p99-ms", type=number(0, above=True), help="most that the p99 may be (with --sweep: 50)")
    group.add_argument("--max-error-rate", type=number(0, 1), help="most requests that may fail (with --sweep: 0)")
    group.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    group.add_argument("--samples", type=Path, metavar="FILE.npz", help="every request: due, sent, done, status, parts")
    group.add_argument("--report", type=Path, metavar="FILE.html", help="a page with pictures")


def _check(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """Rules between options."""
    if bool(chosen.url) == bool(chosen.serve):
        parser.error("--url or --serve: one of the two says what is measured")
    if chosen.compare and chosen.compare_command:
        parser.error("--compare and --compare-command: one second server at most")
    if chosen.pid and not chosen.url:
        parser.error("--pid: only with --url; of a server started here it is known")
    if chosen.history_length is not None and chosen.stored_length is not None:
        parser.error("--history-length and --stored-length: a history is sent along or stored, not both")
    if chosen.arrivals == "replay" and (chosen.adjacency or chosen.mix or chosen.large_rate or chosen.probe_rate):
        parser.error(
            "--arrivals replay: a log has its own arrivals; without --adjacency, --mix, --large-rate, --probe-rate"
        )
    if chosen.strangers and not chosen.adjacency:
        parser.error("--strangers: only with --adjacency")
    if sys.platform != "linux":
        parser.error("needs Linux, for timers of microseconds and for /proc")


def load_of(chosen: argparse.Namespace) -> Load:
    """What is offered."""
    content = Content(
        chosen.candidates,
        chosen.history_length,
        chosen.stored_length,
        chosen.users,
        chosen.large_candidates,
        chosen.strangers,
    )
    return Load(
        rate=chosen.rate,
        seconds=chosen.duration,
        warmup=chosen.warmup,
        adjacency=chosen.adjacency,
        behaviors=chosen.mix,
        large_rate=chosen.large_rate,
        probe_rate=chosen.probe_rate,
        replay=chosen.arrivals == "replay",
        timeout=chosen.timeout,
        connections=chosen.connections,
        content=content,
    )


def bound_of(chosen: argparse.Namespace) -> Bound | None:
    """What the servers have to keep; None when nothing was asked of them."""
    if chosen.p99_ms is None and chosen.max_error_rate is None and not chosen.sweep:
        return None
    p99 = chosen.p99_ms or (Bound().p99_ms if chosen.sweep else math.inf)
    errors = chosen.max_error_rate if chosen.max_error_rate is not None else (0.0 if chosen.sweep else 1.0)
    return Bound(p99, errors)


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: a number from `low` (`above`: more than it) to `high`."""
    rule = f"above {low:g}" if above else f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above else low <= value) or not value <= high or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text}: a number {rule}")
        return value

    return read


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A type for argparse: a whole number."""
    rule = f"at least {low}" if high is None else f"from {low} to {high}"

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text}: a whole number, {rule}")
        return int(text)

    return read


def candidates(text: str) -> int | None:
    """A type for argparse: how many, or `real`."""
    return None if text == "real" else whole(1, 100_000)(text)


def address(text: str) -> str:
    """A type for argparse: http://HOST:PORT."""
    parts = urlsplit(text)
    try:
        fits = parts.scheme == "http" and bool(parts.hostname) and parts.path in ("", "/") and not parts.query
        fits = fits and (parts.port or 80) > 0
    except ValueError:
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{text}: an address as http://127.0.0.1:8000, without TLS and without a path")
    return text.rstrip("/")


def command(text: str) -> list[str]:
    """A type for argparse: words of a command."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    if not words:
        raise argparse.ArgumentTypeError("a command, not nothing")
    return [sys.executable if word == "python" else word for word in words]


def cores(text: str) -> list[int]:
    """A type for argparse: numbers of cores."""
    allowed = os.sched_getaffinity(0)
    words = text.split(",")
    if not all(word.isdecimal() and int(word) in allowed for word in words):
        raise argparse.ArgumentTypeError(f"{text}: numbers of cores among {', '.join(map(str, sorted(allowed)))}")
    return [int(word) for word in words]
