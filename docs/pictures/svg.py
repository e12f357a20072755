"""A pen for the pictures: the same bytes from the same strokes, on any machine.

Every picture lies on a light sheet of its own, so that it reads on light and on dark pages alike. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

INK, FAINT, SHEET, EDGE = "#1f2933", "#5b6770", "#ffffff", "#cbd2d9"
# Fill and edge by what a thing depends on.
ITEM, USER, BOTH, PLAIN = ("#fff0d4", "#b7791f"), ("#dceafe", "#2563ab"), ("#ddf3e4", "#2f855a"), ("#f4f6f8", "#7b8794")
Point = tuple[float, float]
Colours = tuple[str, str]


class Picture:
    """Strokes on a sheet; `str()` of it is the SVG."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.strokes = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{escape(title)}</title>",
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="{SHEET}" stroke="{EDGE}"/>',
        ]

    def __str__(self) -> str:
        return "\n".join([*self.strokes, "</svg>", ""])

    def words(
        self, at: Point, *lines: str, size: int = 13, colour: str = INK, bold: bool = False, anchor: str = "middle"
    ) -> None:
        """Lines of text, the first one's middle at the point."""
        weight = ' font-weight="bold"' if bold else ""
        for number, line in enumerate(lines):
            height = at[1] + size * (0.35 + 1.3 * number)
            self.strokes.append(
                f'<text x="{at[0]:g}" y="{height:g}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
                f"{escape(line)}</text>"
            )

    def box(self, corner: Point, size: Point, *lines: str, kind: Colours = PLAIN, words: int = 13) -> None:
        """A box with lines of text in its middle."""
        (left, top), (width, height) = corner, size
        self.strokes.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{kind[0]}" stroke="{kind[1]}"/>'
        )
        first = top + height / 2 - words * 1.3 * (len(lines) - 1) / 2
        self.words((left + width / 2, first), *lines, size=words)

    def arrow(self, *points: Point, colour: str = FAINT) -> None:
        """A line through the points, with a head at its end; its last piece is level or upright."""
        self.line(*points, colour=colour)
        (before, end) = points[-2:]
        across, down = _sign(end[0] - before[0]), _sign(end[1] - before[1])
        back = (end[0] - 8 * across, end[1] - 8 * down)
        corners: list[Point] = [
            end,
            (back[0] + 4 * down, back[1] + 4 * across),
            (back[0] - 4 * down, back[1] - 4 * across),
        ]
        self.strokes.append(f'<polygon points="{_joined(corners)}" fill="{colour}"/>')

    def diamond(self, at: Point, reach: float, edge: str) -> None:
        """A hollow one."""
        (across, down) = at
        corners = [(across, down - reach), (across + reach, down), (across, down + reach), (across - reach, down)]
        self.strokes.append(f'<polygon points="{_joined(corners)}" fill="{SHEET}" stroke="{edge}" stroke-width="1.5"/>')

    def disc(self, at: Point, words: str) -> None:
        """A small disc with a word in it."""
        self.strokes.append(f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="10" fill="{FAINT}"/>')
        self.words(at, words, size=12, colour=SHEET, bold=True)

    def line(self, *points: Point, colour: str = FAINT, width: float = 1.5, dashes: str = "") -> None:
        """A line through the points."""
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.strokes.append(
            f'<polyline points="{_joined(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'
        )


def _joined(points: Sequence[Point]) -> str:
    return " ".join(f"{across:g},{down:g}" for across, down in points)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
