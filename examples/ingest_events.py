"""Feeds a stream of events to the server, as a consumer of a log would: in batches, from the last committed offset.

    .venv/bin/python examples/ingest_events.py events.jsonl

Each line is an event: {"user_id": "712", "item_id": 1527, "timestamp_ms": 1652000000000, "action": "click"}.

Nothing is lost: an offset is committed only after the server has acknowledged all before it. Nothing counts twice: each
event has an id, its own or its offset in the stream, so that what is sent again after a kill is a duplicate to the
server. An event that is refused goes to the file of dead letters with the reason. A server that is away is waited for.
An unfinished last line is left for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.client import (
    Appended,
    AugurClient,
    AugurError,
    DeadlineExceededError,
    Event,
    InvalidInputError,
    QueueFullError,
    UnavailableError,
    UnreachableError,
)

AWAY = (DeadlineExceededError, QueueFullError, UnavailableError, UnreachableError)
PAUSE_SECONDS = 1.0
FIELDS = ("user_id", "item_id", "timestamp_ms", "action", "event_id")


@dataclass(frozen=True)
class Line:
    """A line of the stream and the offset of its first byte."""

    offset: int
    content: bytes


@dataclass(frozen=True)
class Committed:
    """How far everything is done: bytes of the stream, and of the dead letters that came of them."""

    offset: int = 0
    dead_letters: int = 0

    @classmethod
    def load(cls, path: Path) -> Committed:
        """What a run before this one left, or the beginning."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, path: Path) -> None:
        """Whole or not at all, also if the machine stops within it."""
        beside = path.with_name(path.name + ".new")
        with beside.open("w") as file:
            json.dump(self.__dict__, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


class Consumer:
    """Takes the stream to the server."""

    def __init__(self, client: AugurClient, stream: Path, dead_letters: BinaryIO) -> None:
        self._client, self._name, self._dead_letters = client, stream.stem[:40], dead_letters
        self.stored, self.refused = Appended(0, 0, 0), 0

    def deliver(self, lines: Sequence[Line]) -> None:
        """Returns when each line is stored, or a dead letter on the disk."""
        refused: dict[Line, str] = {}
        events: dict[Line, Event] = {}
        for line in lines:
            try:
                events[line] = self._event(line)
            except (ValueError, RecursionError) as error:
                refused[line] = str(error)
        if events:
            self._send(list(events.items()), refused)
        self._bury(refused)

    def _send(self, events: Sequence[tuple[Line, Event]], refused: dict[Line, str]) -> None:
        """All of them; of a batch that is refused the halves, down to the event that is to blame."""
        try:
            self._count(self._append([event for _, event in events]))
        except InvalidInputError as error:
            if len(events) == 1:
                refused[events[0][0]] = str(error)
                return
            middle = len(events) // 2
            self._send(events[:middle], refused)
            self._send(events[middle:], refused)

    def _append(self, events: Sequence[Event]) -> Appended:
        while True:
            try:
                return self._client.append(events)
            except AWAY as error:
                print(f"waiting: {error}", file=sys.stderr)
                time.sleep(max(PAUSE_SECONDS, error.retry_after or 0))

    def _count(self, more: Appended) -> None:
        ours = self.stored
        self.stored = Appended(
            ours.accepted + more.accepted,
            ours.duplicates + more.duplicates,
            ours.outside_window + more.outside_window,
        )

    def _event(self, line: Line) -> Event:
        """Raises ValueError for a line that is no event; whether its values are right is for the server to say."""
        stated: Any = json.loads(line.content)
        if not isinstance(stated, dict) or not {*FIELDS[:3]} <= set(stated) <= {*FIELDS}:
            raise ValueError(f"an object of {', '.join(FIELDS[:3])} and no more than {', '.join(FIELDS[3:])}")
        named: dict[str, Any] = {"event_id": f"{self._name}:{line.offset}"} | stated
        return Event(**named)

    def _bury(self, refused: dict[Line, str]) -> None:
        for line, reason in sorted(refused.items(), key=lambda pair: pair[0].offset):
            text = line.content.decode("utf-8", "replace").rstrip("\n")
            letter = {"offset": line.offset, "error": reason, "line": text}
            self._dead_letters.write(json.dumps(letter).encode() + b"\n")
        self._dead_letters.flush()
        os.fsync(self._dead_letters.fileno())
        self.refused += len(refused)


def batches(stream: BinaryIO, size: int) -> Iterator[list[Line]]:
    """Whole lines from where the stream stands, `size` at a time."""
    while True:
        lines: list[Line] = []
        while len(lines) < size:
            offset = stream.tell()
            content = stream.readline()
            if not content.endswith(b"\n"):
                stream.seek(offset)
                break
            lines.append(Line(offset, content))
        if not lines:
            return
        yield lines


def ingest(client: AugurClient, asked: argparse.Namespace) -> Consumer:
    """From the committed offset to the end of the stream."""
    committed = Committed.load(asked.commits)
    asked.dead_letters.touch()
    with asked.events.open("rb") as stream, asked.dead_letters.open("r+b") as dead_letters:
        if committed.offset > stream.seek(0, os.SEEK_END):
            raise ValueError(f"{asked.commits}: offset {committed.offset} is beyond the end of {asked.events}")
        stream.seek(committed.offset)
        # Those of a batch that was not committed are about to be written again.
        dead_letters.truncate(committed.dead_letters)
        dead_letters.seek(committed.dead_letters)
        consumer = Consumer(client, asked.events, dead_letters)
        for lines in batches(stream, asked.batch):
            consumer.deliver(lines)
            Committed(stream.tell(), dead_letters.tell()).save(asked.commits)
    return consumer


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 1 where the stream could not be taken to its end."""
    asked = _parser().parse_args(arguments)
    asked.commits = asked.commits or asked.events.with_name(asked.events.name + ".offset")
    asked.dead_letters = asked.dead_letters or asked.events.with_name(asked.events.name + ".dead")
    try:
        with AugurClient(asked.url, api_key=asked.api_key, timeout=asked.timeout, compress=True) as client:
            done = ingest(client, asked)
    except (AugurError, OSError, ValueError) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    stored = done.stored
    print(
        f"accepted {stored.accepted}, duplicates {stored.duplicates}, outside the window {stored.outside_window}, "
        f"dead letters {done.refused}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Feeds a stream of events to the server; see the head of this file.")
    parser.add_argument("events", type=Path, help="a file with a JSON object on each line")
    parser.add_argument("--commits", type=Path, help="where the offset is kept (EVENTS.offset)")
    parser.add_argument("--dead-letters", type=Path, help="where refused events go (EVENTS.dead)")
    parser.add_argument("--batch", type=_batch, default=200, help="events in a request (%(default)s)")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (%(default)s)")
    parser.add_argument("--api-key", help="where the server wants one")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds for a request (%(default)g)")
    return parser


def _batch(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text}: 1 to 1000, as many as the server takes at a time")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
