"""The life of a request, from the socket to the answer."""

from __future__ import annotations

from svg import BOTH, EDGE, FAINT, PLAIN, USER, Colours, Picture, Point

LANES = (
    (84, "Event loop", "one thread"),
    (248, "Behaviour store", "memory or Redis"),
    (372, "Lanes", "threads that compute"),
)
SIZE = (146, 62)
COLUMNS = (170, 336, 502, 668, 834)  # left edges of the steps


def draw() -> str:
    """The picture, as SVG."""
    picture = Picture(1010, 450, "The life of a request for scores")
    for middle, name, what in LANES:
        picture.words((24, middle - 8), name, size=16, bold=True, anchor="start")
        picture.words((24, middle + 14), what, size=12, colour=FAINT, anchor="start")
    for height in (192, 306):
        picture.line((24, height), (986, height), colour=EDGE, dashes="5 5")
    _arrival(picture)
    _store(picture)
    _compute(picture)
    return str(picture)


def _arrival(picture: Picture) -> None:
    steps = (
        ("1", ("key and id,", "in time"), "401 408", "unknown, too slow"),
        ("2", ("bytes to arrays,", "the model's rules"), "400 404 413 422", "breaks a rule"),
        ("3", ("place in the queue,", "deadline"), "429 504", "full, too late"),
    )
    for left, (number, lines, codes, why) in zip(COLUMNS, steps, strict=False):
        _step(picture, (left, 60), number, lines)
        picture.words((left + 73, 140), codes, why, size=12, colour=FAINT)
    for left in COLUMNS[:2]:
        picture.arrow((left + 146, 91), (left + 166, 91))
    picture.words((COLUMNS[0] + 73, 22), "POST /v1/score", size=14, bold=True)
    picture.arrow((COLUMNS[0] + 73, 34), (COLUMNS[0] + 73, 60))
    _step(picture, (COLUMNS[4], 60), "7", ("scores as asked,", "or the best few"))
    picture.arrow((COLUMNS[4] + 73, 60), (COLUMNS[4] + 73, 34))
    picture.words((COLUMNS[4] + 73, 22), "answer", size=14, bold=True)


def _store(picture: Picture) -> None:
    middle = COLUMNS[3] + 73
    _step(picture, (COLUMNS[3], 218), "4", ("histories of all who", "came in this turn"), USER)
    picture.arrow((COLUMNS[2] + 146, 91), (middle, 91), (middle, 218))
    _aside(picture, 233, "one call, each user once;", "no answer in time: a copy of", "before, or none, and it says so")


def _compute(picture: Picture) -> None:
    middle = COLUMNS[3] + 73
    _step(picture, (COLUMNS[3], 342), "5", ("all that waits,", "joined by user"), BOTH)
    picture.arrow((middle, 280), (middle, 342))
    _step(picture, (COLUMNS[4], 342), "6", ("a user's part once,", "then each candidate"), BOTH)
    picture.arrow((COLUMNS[3] + 146, 373), (COLUMNS[4], 373))
    picture.arrow((COLUMNS[4] + 73, 342), (COLUMNS[4] + 73, 122))
    _aside(picture, 357, "a free lane takes it at once, up to", "a budget of candidates;", "nothing waits for a timer")


def _aside(picture: Picture, height: float, *lines: str) -> None:
    picture.words((COLUMNS[3] - 18, height), *lines, size=12, colour=FAINT, anchor="end")


def _step(picture: Picture, corner: Point, number: str, lines: tuple[str, ...], kind: Colours = PLAIN) -> None:
    picture.box(corner, SIZE, *lines, kind=kind)
    picture.disc(corner, number)
