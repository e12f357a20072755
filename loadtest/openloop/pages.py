"""The page of a measurement: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from loadtest.openloop import pictures
from loadtest.openloop.table import Measured, text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #f4f6f8; padding: 1rem; white-space: pre-wrap; font-size: 12px; } h1, h2 { font-weight: 600; }
img { display: block; max-width: 100%; margin: 1.5rem 0; } li.failed { color: #b42318; font-weight: 600; }
div { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; line-height: 1.4; }
td, th { padding: .25rem .7rem; text-align: right; vertical-align: bottom; } tr { border-bottom: 1px solid #e6eaee; }
td + td { white-space: nowrap; } td:first-child, th:first-child, table.words td { text-align: left; }
"""
CODE = re.compile("`([^`]*)`")
HOW = (
    "Open loop: requests leave when they are due, whatever became of the ones before, and latency counts from then. "
    "Percentiles are of requests answered with 200 and of those that timed out, after that wait; without the warm-up."
)


def page(measured: Sequence[Measured], found: dict[str, Any]) -> str:
    """The page of `python -m loadtest.openloop`."""
    drawn: list[tuple[str, str]] = []
    if any(one.sweeps for one in measured):
        against = pictures.latency_against_rate(measured, found["bound"]["p99_ms"])
        drawn.append(("latency against offered rate", against))
        drawn.append(("work against offered rate", pictures.work_against_rate(measured)))
    curves = [(one.target.name, pictures.of_server(one)) for one in measured]
    drawn.append(("latency by percentile", pictures.percentile_curves(curves)))
    parts = pictures.parts_of_time([(one.target.name, one.counted) for one in measured])
    if parts:
        drawn.append(("parts of the server's time", parts))
    for one in measured:
        for name, histogram in one.counted[-1].batches.items() if one.counted else ():
            if any(histogram.values()):
                what = name.rpartition("_")[2]
                drawn.append((name, pictures.batch_sizes(f"Batches of {one.target.name}, by {what}", what, histogram)))
    notes = [(remark, False) for remark in found["remarks"]] + [(failure, True) for failure in found["failures"]]
    body = [paragraph(HOW), listing(notes), preformatted(text(found, notes=False)), *(image(*one) for one in drawn)]
    return whole("Augur: open-loop load", body)


def whole(title: str, body: Iterable[str]) -> str:
    """A document of parts that are HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n" + "\n".join(body) + "\n</html>\n"
    )


def paragraph(words: str) -> str:
    """Text."""
    return f"<p>{html.escape(words)}</p>"


def heading(words: str, name: str | None = None) -> str:
    """Of a section; `name` is what links point to."""
    anchor = f' id="{html.escape(name)}"' if name else ""
    return f"<h2{anchor}>{html.escape(words)}</h2>"


def preformatted(words: str) -> str:
    """Text as it is."""
    return f"<pre>{html.escape(words)}</pre>"


def folded(title: str, words: str) -> str:
    """Text as it is, which opens when it is wanted."""
    return f"<details><summary>{html.escape(title)}</summary>{preformatted(words)}</details>"


def listing(lines: Iterable[tuple[str, bool]]) -> str:
    """Remarks; True marks a failure."""
    items = "".join(f"<li{' class=failed' if failed else ''}>{html.escape(line)}</li>" for line, failed in lines)
    return f"<ul>{items}</ul>"


def links(named: Iterable[tuple[str, str]]) -> str:
    """Addresses and their words."""
    items = "".join(f'<li><a href="{html.escape(where)}">{html.escape(words)}</a></li>' for where, words in named)
    return f"<ul>{items}</ul>" if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of text; `code` in them is set as such. One without a header is of words, not of numbers."""

    def row(cells: Sequence[str], kind: str) -> str:
        texts = [CODE.sub(r"<code>\1</code>", html.escape(cell)) for cell in cells]
        return "<tr>" + "".join(f"<{kind}>{text}</{kind}>" for text in texts) + "</tr>"

    whole = "".join(row(cells, "td") for cells in rows)
    words = not any(header)
    return f"<div><table{' class=words' if words else ''}>{'' if words else row(header, 'th')}{whole}</table></div>"


def image(name: str, picture: str | bytes, suffix: str = ".svg") -> str:
    """A picture, inside the page."""
    data = base64.b64encode(picture.encode() if isinstance(picture, str) else picture).decode()
    kind = {".svg": "svg+xml", ".png": "png"}[suffix]
    return f'<img alt="{html.escape(name)}" src="data:image/{kind};base64,{data}">'
