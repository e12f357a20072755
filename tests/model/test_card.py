"""The model card: the committed page is what the bundled artifact and the committed evaluation make of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_models import small_artifact
from written_data import call, complaint

from model.artifact import load_artifact, save_artifact
from model.card import card, read_metrics, run
from model.evaluate import BUNDLED
from model.pages import filled

ROOT = Path(__file__).parents[2]
PAGE, METRICS = ROOT / "docs" / "model-card.md", ROOT / "docs" / "results" / "bundled-evaluation.json"


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(METRICS.read_text())
    return found


def test_the_committed_card_is_what_its_results_make_it(committed: dict[str, Any]) -> None:
    artifact = load_artifact(ROOT / BUNDLED)
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, card(artifact, read_metrics(METRICS, artifact)), PAGE) == page
    # The evaluation is of the served metrics: the same data, the same weights.
    due = {name: artifact.metrics["test"][name] for name in committed["metrics"]}
    assert committed["metrics"] == pytest.approx(due, abs=2e-5)
    assert committed["data"]["name"] == artifact.training["data"]["data"]
    worst = next(one for one in committed["slices"] if "left_out" in one)
    assert f"| {worst['slice']} | {worst['impressions']:,} |" in page


def test_a_model_of_ones_own_gets_a_card(
    committed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = save_artifact(small_artifact(), tmp_path / "mine")
    metrics, page = tmp_path / "metrics.json", tmp_path / "docs" / "card.md"
    words = ("--artifact", tmp_path / "mine", "--metrics", metrics, "--page", page)
    metrics.write_text(METRICS.read_text())
    rule = f"of version {committed['artifact']['version']}, not {version}; run model.evaluate again"
    assert rule in complaint(run, capsys, *words)
    of_mine = committed | {"artifact": {"version": version}, "slices": []}
    metrics.write_text(json.dumps({name: part for name, part in of_mine.items() if name != "slices"}))
    assert "metrics.json: has no 'slices'; model.evaluate writes it" in complaint(run, capsys, *words)
    metrics.write_text("{")
    assert "metrics.json: not JSON: " in complaint(run, capsys, *words)
    metrics.write_text(json.dumps(of_mine))
    assert call(run, *words) == 0
    text = page.read_text()
    assert f"`{version}`" in text
    assert "to be written." in text
    page.write_text(text.replace("## Intended use and limits\n\nTo be written.", "Ours."))
    assert call(run, *words) == 0
    assert page.read_text() == text.replace("## Intended use and limits\n\nTo be written.", "Ours.")  # by hand: kept
    page.write_text("<!-- begin: weather -->\n<!-- end -->\n")
    assert "block 'weather': one of model, data, quality" in complaint(run, capsys, *words)
