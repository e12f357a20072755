"""What the site has beside the files of docs/: pages of the checkout's root, the HTTP reference, the console's icon.

mkdocs calls the two functions; `mkdocs.yml` names this file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import http_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
MARK = re.compile(r"^(```\w+) (?:runnable|output)$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is no file of docs/."""
    for source, name in ROOT_PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    document = create_app(Settings()).openapi()
    files.append(File.generated(config, "http.md", content=http_reference.page(document)))
    files.append(File.generated(config, "icon.svg", abs_src_path=str(ROOT / "service" / "console" / "icon.svg")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the checkout as links of the site, and fences without the marks of tests."""
    at_root = page.file.src_uri in ROOT_PAGES.values()
    return LINK.sub(lambda found: _link(found, ROOT if at_root else ROOT / "docs"), MARK.sub(r"\1", markdown))


def _link(found: re.Match[str], folder: Path) -> str:
    """A link to a page stays one; a file that the site does not have is named. What is nowhere is left to mkdocs."""
    image, text, target, part = found.groups()
    path = Path(os.path.normpath(folder / target))
    if not path.exists() or not path.is_relative_to(ROOT):
        return found[0]
    inside = path.relative_to(ROOT).as_posix()
    if page := ROOT_PAGES.get(inside):
        return f"{image}[{text}]({page}{part or ''})"
    if inside.startswith("docs/"):
        return f"{image}[{text}]({inside.removeprefix('docs/')}{part or ''})"
    return f"{text} (`{inside}`)"
