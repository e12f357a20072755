"""What of the network depends on what, and how often it is computed."""

from __future__ import annotations

from svg import BOTH, EDGE, FAINT, ITEM, USER, Picture, Point

STEPS = [310 + 92 * step for step in range(5)]  # left edges of a user's behaviours, oldest first
BOX, WIDE = (72, 40), (170, 46)
HEAD = 800  # left edge of the head's column


def draw() -> str:
    """The picture, as SVG."""
    picture = Picture(1010, 560, "What of DIEN depends on an item, on a user, or on both")
    _bands(picture)
    _items(picture)
    _user(picture)
    _candidate(picture)
    return str(picture)


def _bands(picture: Picture) -> None:
    bands = (
        (70, "Item alone", ITEM, ("tables over the catalogue:", "once, when a model is loaded")),
        (
            216,
            "User alone",
            USER,
            ("interest states of a GRU, oldest", "behaviour first: once for all", "candidates and waiting requests"),
        ),
        (
            408,
            "User and candidate",
            BOTH,
            ("interest evolution: each step", "moves by its attention weight,", "for each candidate anew"),
        ),
    )
    for middle, name, (_, colour), how in bands:
        picture.words((24, middle), name, size=17, colour=colour, bold=True, anchor="start")
        picture.words((24, middle + 26), *how, size=13, colour=FAINT, anchor="start")
    for height in (148, 320):
        picture.line((24, height), (986, height), colour=EDGE, dashes="5 5")


def _items(picture: Picture) -> None:
    for left, lines in (
        (290, ("input projection", "of each behaviour")),
        (545, ("attention query", "of each candidate")),
        (HEAD, ("item's part of the", "head's first layer")),
    ):
        picture.box((left, 62), WIDE, *lines, kind=ITEM)


def _user(picture: Picture) -> None:
    top = 222
    _bus(picture, (375, 108), 168, [(left + 36, top) for left in STEPS], ITEM[1])
    for number, left in enumerate(STEPS, 1):
        picture.box((left, top), BOX, f"state {number}", kind=USER)
        if number > 1:
            picture.arrow((left - 20, top + 20), (left, top + 20), colour=USER[1])
    picture.box((HEAD, top - 3), WIDE, "user's and context's", "part of that layer", kind=USER)


def _candidate(picture: Picture) -> None:
    weights, cells = 362, 444
    # The query meets every state: around the states, and down upon each weight.
    _bus(picture, (630, 108), 132, [(STEPS[-1] + 92, 342)], ITEM[1], head=False)
    _bus(picture, (STEPS[-1] + 92, 342), 342, [(left + 54, weights) for left in STEPS], ITEM[1])
    for number, left in enumerate(STEPS, 1):
        picture.arrow((left + 24, 262), (left + 24, weights), colour=USER[1])
        picture.box((left, weights), (72, 32), f"weight {number}", kind=BOTH, words=12)
        picture.arrow((left + 36, weights + 32), (left + 36, cells), colour=BOTH[1])
        picture.box((left, cells), BOX, "AUGRU", kind=BOTH)
        if number > 1:
            picture.arrow((left - 20, cells + 20), (left, cells + 20), colour=BOTH[1])
    picture.box((HEAD, cells - 3), WIDE, "rest of the head", kind=BOTH)
    picture.arrow((STEPS[-1] + 72, cells + 20), (HEAD, cells + 20), colour=BOTH[1])
    picture.arrow((HEAD + 60, 265), (HEAD + 60, cells - 3), colour=USER[1])
    picture.line((HEAD + 170, 85), (HEAD + 186, 85), (HEAD + 186, cells - 40), (HEAD + 120, cells - 40), colour=ITEM[1])
    picture.arrow((HEAD + 120, cells - 40), (HEAD + 120, cells - 3), colour=ITEM[1])
    picture.arrow((HEAD + 85, cells + 43), (HEAD + 85, 512), colour=BOTH[1])
    picture.words((HEAD + 85, 528), "click probability", size=15, bold=True)


def _bus(picture: Picture, start: Point, height: float, ends: list[Point], colour: str, head: bool = True) -> None:
    """From a point to a level line, and from there down to every end."""
    picture.line(start, (start[0], height), colour=colour)
    across = [start[0], *(end[0] for end in ends)]
    picture.line((min(across), height), (max(across), height), colour=colour)
    for end in ends:
        (picture.arrow if head else picture.line)((end[0], height), end, colour=colour)
