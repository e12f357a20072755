"""Blocks of the pages that are marked runnable, and what the pages say that they print.

A fence that begins with ```bash runnable or ```python runnable is run; one that begins with ```json output or
```text output right after it is what it prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w*) ?(?P<mark>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("bash", "python")
FLOATS = 1e-3  # scores differ in their last digits from one instruction set to another


class Block(NamedTuple):
    """A command or a piece of code, and its output where the page has it."""

    where: str  # page and line
    language: str
    code: str
    kind: str  # of the output: json, text, or empty for none stated
    output: str

    def check(self, printed: str) -> None:
        """Holds what it printed to what the page says."""
        if self.kind == "json":
            same = list(documents(printed)) == [near(each) for each in documents(self.output)]
            assert same, f"{self.where} printed\n{printed}"
        elif self.kind == "text":
            pattern = re.escape(self.output).replace(re.escape("..."), ".*")
            assert re.fullmatch(pattern, printed), f"{self.where} printed\n{printed}"


def blocks(page: str, name: str) -> Iterator[Block]:
    """The runnable blocks of a page.

    Raises:
        ValueError: a mark that is no mark, or an output of nothing.
    """
    fences = list(FENCE.finditer(page))
    for before, fence, after in zip([None, *fences], fences, [*fences[1:], None], strict=False):
        where = f"{name}:{page.count(chr(10), 0, fence.start()) + 1}"
        language, mark = fence["language"], fence["mark"]
        if mark == "runnable" and language in LANGUAGES:
            stated = (after["language"], after["text"]) if after and is_output(page, fence, after) else ("", "")
            yield Block(where, language, fence["text"], *stated)
        elif mark and not (before and before["mark"] == "runnable" and is_output(page, before, fence)):
            marks = f"{' or '.join(LANGUAGES)} runnable, or json or text output right after such a block"
            raise ValueError(f"{where}: {language} {mark}: {marks}")


def is_output(page: str, fence: re.Match[str], after: re.Match[str]) -> bool:
    """Whether the second block is what the first one prints."""
    between = page[fence.end() : after.start()]
    return after["mark"] == "output" and after["language"] in ("json", "text") and not between.strip()


def documents(text: str) -> Iterator[Any]:
    """JSON documents, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        found, at = decoder.raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip())
        yield found


def near(expected: Any) -> Any:
    """The same with every float within the tolerance."""
    if isinstance(expected, dict):
        return {name: near(value) for name, value in expected.items()}
    if isinstance(expected, list):
        return [near(value) for value in expected]
    return pytest.approx(expected, abs=FLOATS) if isinstance(expected, float) else expected
