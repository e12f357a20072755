"""Every block of README and docs that is marked runnable is run against a server, and prints what the page says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runnable import PAGES, ROOT, Block, blocks

from loadtest.servers import own_server

FOUND = {page.relative_to(ROOT).as_posix(): list(blocks(page.read_text(), page.name)) for page in PAGES}
TREE = ("data", "docker", "docs", "examples", "kernels", "loadtest", "model", "service")
SERVER = "http://127.0.0.1:8000"  # of the pages
SECONDS = 60.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AUGUR_")]:
            patch.delenv(name)
        with own_server(tmp_path_factory.mktemp("server") / "log") as server:
            yield server.url


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the blocks run: a folder with the checkout's by links, and for what they write, such as `artifacts`."""
    folder = tmp_path_factory.mktemp("tree")
    for name in TREE:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.parametrize("page", [page for page, found in FOUND.items() if found])
def test_the_blocks_of_a_page_print_what_it_says(page: str, url: str, tree: Path) -> None:
    if shutil.which("curl") is None and not os.environ.get("CI"):
        pytest.skip("needs curl")
    for block in FOUND[page]:
        block.check(run(block, url, tree))


def run(block: Block, url: str, tree: Path) -> str:
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    code = block.code.replace(SERVER, url)
    done = subprocess.run([*program, code], cwd=tree, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{block.where}: exit status {done.returncode}\n{done.stderr}"
    return done.stdout


def test_the_pages_that_newcomers_meet_are_among_them() -> None:
    assert all(FOUND[page] for page in ("README.md", "docs/quickstart.md", "docs/api.md"))


@pytest.mark.parametrize(
    "page", ["```bash runable\nx\n```\n", "```json output\n{}\n```\n", "```sql runnable\nx\n```\n"]
)
def test_a_mark_that_would_run_nothing_is_an_error(page: str) -> None:
    with pytest.raises(
        ValueError, match=r"page\.md:1: .*: bash or python runnable, or json or text output right after"
    ):
        list(blocks(page, "page.md"))


@pytest.mark.parametrize(
    ("kind", "stated", "printed"),
    [("json", "{}", '{"a": 1}'), ("json", "[0.5]", "[0.502]"), ("json", "{}", "{}\n{}"), ("text", "a ...\n", "b c\n")],
)
def test_an_output_that_differs_is_found(kind: str, stated: str, printed: str) -> None:
    (block,) = blocks(f"```bash runnable\nx\n```\n\n```{kind} output\n{stated}\n```\n", "page.md")
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        block.check(printed)


def test_scores_of_another_processor_and_random_parts_are_taken() -> None:
    page = (
        '```bash runnable\nx\n```\n```json output\n{"a": [0.5,\n 2]}\n```\n'
        "```python runnable\ny\n```\n\n```text output\na ... c\n```\n"
    )
    scores, key = blocks(page, "page.md")
    scores.check('{"a":[0.5003,2]}')
    key.check("a 17 c\n")
    assert (key.where, key.language, key.code) == ("page.md:8", "python", "y\n")
