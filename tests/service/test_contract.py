"""The OpenAPI document against a server process, by schemathesis; docs/reliability.md has the long run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from process_parts import running

pytestmark = pytest.mark.usefixtures("unwatched_processes")
CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_the_server_keeps_what_its_document_says(artifact_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    with running(model=str(artifact_folder), seed=f"canonical:{data_folder}") as process:
        assert process.url, process.end()
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
        command += ["run", f"{process.url}/openapi.json", "--max-examples", "8", "--seed", "1", "--no-color"]
        command += ["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--warnings", "off"]
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # It ran, and it found every route.
    selected = re.search(r"(\d+) selected / (\d+) total", ended.stdout)
    assert selected is not None
    assert int(selected[1]) == int(selected[2]) >= 18
    generated = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert generated is not None
    assert int(generated[1]) == int(generated[2]) >= 500
