"""The public clients of the Open Inference Protocol, unmodified, against a server process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from process_parts import ROOT, running

pytestmark = pytest.mark.usefixtures("unwatched_processes")
FOLDER = Path(__file__).parent / "clients"
PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
ITEMS = [100, 101, 7, 103]
OWN = {"history": [102, 104, 100], "history_actions": ["click", "buy", "click"]}


def test_public_clients_get_the_scores_of_the_first_api(artifact_folder: Path, data_folder: Path) -> None:
    if not PYTHON.exists():
        message = f"no {PYTHON.relative_to(ROOT)}: make .venv/clients.stamp installs the clients"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with running(model=str(artifact_folder), seed=f"canonical:{data_folder}") as process:
        assert process.url, process.end()
        first = httpx.post(f"{process.url}/v1/score", json={"user_id": "3", "item_ids": ITEMS}).json()
        command = [str(PYTHON), str(FOLDER / "ask.py"), process.url, "tiny", first["version"]]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        found = json.loads(ended.stdout)

        def scores(**more: Any) -> Any:
            body = {"user_id": "3", "item_ids": ITEMS, "context": {"tab": 2}} | more
            return pytest.approx(httpx.post(f"{process.url}/v1/score", json=body).json()["scores"], abs=1e-6)

        stored, own, empty = scores(), scores(**OWN), scores(history=[])
    assert stored != own
    pinned = (FOLDER / "requirements.txt").read_text()
    for name, version in found["versions"].items():
        assert f"\n{name}=={version}\n" in pinned
    for client, answers in (("triton", 10), ("kserve", 5)):
        heard = found[client]
        assert heard["live"] is True
        assert heard["ready"] is True
        assert len(heard["own=False"]) == len(heard["own=True"]) == answers
        assert all(each == stored for each in heard["own=False"])
        assert all(each == own for each in heard["own=True"])
        assert all(each == empty for each in heard["empty"])
    assert all(each == own for each in found["triton_aio"])
    triton, kserve = found["triton"], found["kserve"]
    assert triton["model ready"] == [True, True]
    assert triton["other ready"] == [False, False]
    assert (kserve["model ready"], kserve["other ready"]) == (True, False)
    assert triton["server"]["extensions"] == ["binary_tensor_data"]
    assert [each["name"] for each in triton["model"]["inputs"]][:2] == ["user_id", "item_id"]
    assert triton["id"] == "x-1"
    assert [status for status, _ in triton["error"]] == ["400", "400"]
    assert "item_id: required" in triton["error"][0][1]
    assert '"nothing": not known' in triton["error"][1][1]
    assert kserve["error"][0] == 400
    assert "item_id: required" in kserve["error"][1]
