"""What each model costs as served, HTTP and all, beside its AUC: of docs/results/served.json and docs/models.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from svg import BOTH, EDGE, FAINT, PLAIN, Picture

DOCS = Path(__file__).resolve().parents[1]
RESULTS, PAGE = DOCS / "results" / "served.json", DOCS / "models.md"
BLOCK = re.compile(r"<!-- begin: table kuairand/auxiliary-everywhere -->\n(.*?)<!-- end -->", re.DOTALL)
ROW = re.compile(r"^\| (.+?) \| (\.\d+) ±", re.MULTILINE)
NAMES = {
    **{"base": "BaseModel", "wide_deep": "Wide&Deep", "pnn": "PNN", "din": "DIN", "gru_attention": "GRU + attention"},
    **{"aigru": "GRU + AIGRU", "agru": "GRU + AGRU", "augru": "GRU + AUGRU"},
}
HELPED = ", auxiliary loss"
LEFT, SPAN, FIRST, APART = 170, 560, 92, 40  # of the bars
COLUMNS = (815, 910)


def draw() -> str:
    """The picture, as SVG.

    Raises:
        KeyError: the page has no AUC of a model.
    """
    found = json.loads(RESULTS.read_text())
    models = [one for one in found["models"] if one["name"] in NAMES]
    auc = read(PAGE.read_text())
    bottom = FIRST + APART * len(models)
    picture = Picture(1010, bottom + 36, "Cost of each model as served, and its AUC")
    what = f"Server CPU of a request, ms: {found['candidates']} candidates, histories of {found['history']}"
    picture.words((LEFT, 30), what, size=14, bold=True, anchor="start")
    picture.words(((COLUMNS[0] + COLUMNS[1]) / 2, 30), "AUC, KuaiRand", size=14, bold=True)
    for across, words in zip(COLUMNS, ("plain", "auxiliary loss"), strict=True):
        picture.words((across, 56), words, size=12, colour=FAINT)
    most = max(one["server_cpu_ms"]["median"] for one in models)
    for place, one in enumerate(models):
        height, name = FIRST + APART * place, NAMES[one["name"]]
        last = one is models[-1]
        picture.words((LEFT - 14, height - 8 * last), name, size=13, anchor="end")
        if last:
            picture.words((LEFT - 14, height + 10), "with the loss: DIEN", size=12, bold=True, anchor="end")
        _bar(picture, height, one, SPAN / most)
        picture.words((COLUMNS[0], height), auc[name], size=13)
        picture.words((COLUMNS[1], height), auc[name + HELPED], size=13, bold=last)
    picture.line((LEFT, bottom - 8), (986, bottom - 8), colour=EDGE)
    key = "green: computing, by the clock; grey: the rest, as HTTP and JSON; x: by BaseModel's, round by round"
    picture.words((LEFT, bottom + 12), key, size=12, colour=FAINT, anchor="start")
    return str(picture)


def read(page: str) -> dict[str, str]:
    """AUC by the name of a row."""
    block = BLOCK.search(page)
    return dict(ROW.findall(block[1])) if block else {}


def _bar(picture: Picture, height: float, one: dict[str, Any], scale: float) -> None:
    total, inner = one["server_cpu_ms"]["median"], one["score"]["compute mean"]["median"]
    for part, colours in ((total, PLAIN), (min(inner, total), BOTH)):
        picture.box((LEFT, height - 12), (round(part * scale, 1), 24), kind=colours)
    said = f"{total:.2f}, x {one['by_first']['median']:.2f}"
    inside = total * scale > SPAN - 100
    across = LEFT + total * scale + (-8 if inside else 8)
    picture.words((round(across, 1), height), said, size=12, anchor="end" if inside else "start")
