"""Pages with marked blocks that are made of result files; what stands between them is by hand.

<!-- begin: table kuairand/models -->
what is made stands here, and is replaced
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from model.config import ConfigError

MARK = re.compile(r"^<!-- (begin: (?P<words>.*)|end) -->$", re.MULTILINE)
Maker = Callable[[Sequence[str]], str]  # the text of a block from the words that name it


def filled(text: str, maker: Maker, name: str | Path) -> str:
    """The page with every block made anew. Raises ConfigError for marks that do not pair; `name` is for messages."""
    parts, place, words = [], 0, None
    for mark in MARK.finditer(text):
        if (words is None) == (mark["words"] is None):
            line = text.count("\n", 0, mark.start()) + 1
            raise ConfigError(f"{name}:{line}: {mark[0]}: begin and end must take turns")
        parts.append(text[place : mark.start()] if words is None else f"\n{maker(words.split()).strip()}\n")
        parts.append(mark[0])
        place, words = mark.end(), mark["words"]
    if words is not None:
        raise ConfigError(f"{name}: the block {words!r} has no end")
    return "".join([*parts, text[place:]])


def fill(file: Path, maker: Maker) -> None:
    """Make every block of a page anew."""
    try:
        before = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8: {error}") from None
    file.write_text(filled(before, maker, file), encoding="utf-8")
