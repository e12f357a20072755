"""The report: machine, versions, and each part's command, tables and pictures, as Markdown and as a page."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.capacity.stand import BUNDLED
from loadtest.openloop import machine, pages
from loadtest.report.parts import Part
from loadtest.report.running import OUTPUT, Ran, known
from loadtest.report.tables import Table

TITLE = "Augur: every measurement"
HOW = (
    "Client and server share the machine in all of it: ratios and shapes hold, milliseconds are this machine's. "
    "Each part is the command that is named, run by itself; its folder has all that it wrote."
)
LAST_LINES = 15
IMAGE = re.compile(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]+)">')


@dataclass(frozen=True, slots=True)
class Section:
    """A part as the report shows it."""

    part: Part
    ran: Ran
    folder: Path
    tables: list[Table]
    pictures: list[tuple[str, Path]]  # what it shows, and where it is

    @property
    def command(self) -> str:
        """One line for a shell."""
        return shlex.join(self.ran.command)

    @property
    def facts(self) -> str:
        """When, how long, of what, and on how idle a machine."""
        ran = self.ran
        ended = "" if ran.status == 0 else f", FAILED with status {ran.status}"
        return f"{ran.began}, {ran.seconds:.0f} s, commit {ran.commit}, load before {ran.load_before}{ended}"

    @property
    def last_lines(self) -> str:
        """What a part that failed said at the end."""
        return "\n".join((self.folder / OUTPUT).read_text().rstrip().splitlines()[-LAST_LINES:])


def sections(parts: Sequence[Part], out: Path) -> list[Section]:
    """Those parts that were run. One that failed has no figures."""
    found = []
    for part in parts:
        ran, folder = known(part, out), out / part.name
        if ran:
            whole = ran.status == 0
            found.append(
                Section(part, ran, folder, part.tables(folder) if whole else [], pictures(folder) if whole else [])
            )
    return found


def pictures(folder: Path) -> list[tuple[str, Path]]:
    """The pictures that a part left: files, or else those inside its page, which are written beside it."""
    files = [(file.stem, file) for file in sorted(folder.glob("*.png"))]
    if files:
        return files
    for page in sorted(folder.glob("*.html")):
        for number, (name, data) in enumerate(IMAGE.findall(page.read_text())):
            file = folder / f"{page.stem}_{number}.svg"
            file.write_bytes(base64.b64decode(data))
            files.append((html.unescape(name), file))
    return files


def facts() -> list[tuple[str, str]]:
    """Machine and versions."""
    about, model = machine.describe(), json.loads((BUNDLED / "model.json").read_text())
    return [
        ("CPU", f"{about['cpu']}, {about['cores']} cores, governor {about['governor']}"),
        ("memory", f"{about['memory_gib']} GiB"),
        ("system", about["system"]),
        ("Python", about["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in about["packages"].items())),
        ("commit", about["commit"]),
        ("model", f"{model['name']}, digest {model['version']}"),
    ]


def markdown(found: Sequence[Section], missing: Sequence[Part], out: Path) -> str:
    """For people who read text, and for copying tables from."""
    lines = [f"# {TITLE}", "", HOW, "", *_rows(Table(("", ""), facts())), ""]
    for each in found:
        lines += [f"## {each.part.title}", "", f"`{each.command}`", "", each.facts, ""]
        lines += ["```", each.last_lines, "```", ""] if each.ran.status else []
        for table in each.tables:
            lines += [*_rows(table), ""] + ([table.note, ""] if table.note else [])
        lines += [line for name, file in each.pictures for line in (f"![{name}]({file.relative_to(out)})", "")]
    lines += [_not_run(missing), ""] if missing else []
    return "\n".join(lines)


def _rows(table: Table) -> Iterator[str]:
    for row in (table.header, ("---",) * len(table.header), *table.rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def page(found: Sequence[Section], missing: Sequence[Part], out: Path) -> str:
    """One file that needs nothing else, but for the parts' own pages that it points to."""
    body = [pages.paragraph(HOW), pages.table(("", ""), facts())]
    body.append(pages.links((f"#{each.part.name}", each.part.title) for each in found))
    for each in found:
        body += [pages.heading(each.part.title, each.part.name), pages.preformatted(each.command)]
        body.append(pages.paragraph(each.facts))
        body += [pages.preformatted(each.last_lines)] if each.ran.status else []
        for table in each.tables:
            body += [pages.table(table.header, table.rows), pages.paragraph(table.note)]
        body += [pages.image(name, file.read_bytes(), file.suffix) for name, file in each.pictures]
        own = [(str(file.relative_to(out)), file.name) for file in sorted(each.folder.glob("*.html"))]
        body += [pages.links(own), pages.folded("What it printed", (each.folder / OUTPUT).read_text())]
    body += [pages.paragraph(_not_run(missing))] if missing else []
    return pages.whole(TITLE, body)


def _not_run(missing: Sequence[Part]) -> str:
    return "Not run: " + ", ".join(part.name for part in missing) + "."
