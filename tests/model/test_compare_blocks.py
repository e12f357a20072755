"""The marked blocks of a page, of made-up results, and the committed page of committed results."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import made_up_data
from test_compare_pictures import made_up_comparison

from model.compare.blocks import PAPER, Blocks
from model.compare.results import Comparison, read_results
from model.compare.statistics import t_quantile
from model.compare.tables import HOW
from model.config import MODELS, ConfigError
from model.pages import filled

DOCS = Path(__file__).parents[2] / "docs"
SEEDS = 3


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    document = dict(made_up_comparison(made_up_data(), SEEDS).document)
    for variant in document["variants"].values():
        variant["parameters"] = 1000
    return Comparison(document, "toy")


def blocks(comparison: Comparison, folder: Path, *, draws: bool = True) -> Blocks:
    return Blocks([comparison], folder, folder / "pictures", draws=draws)


def cells_of(table: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_a_distilled_net_is_compared_with_its_own_booster(comparison: Comparison, tmp_path: Path) -> None:
    table = blocks(comparison, tmp_path)(["table", "toy/distillation"])
    assert table.splitlines()[0].endswith("| booster AUC | above its booster |")
    found = cells_of(table)
    assert found["light net alone"][-2:] == ["-", "-"]
    row = next(row for row in comparison.rows(study_of(comparison, "distillation")) if row.of_boosters())
    light, booster = (list(one.values()) for one in (row.by_seed("auc"), row.of_boosters()))
    gaps = np.subtract(light, booster)
    half = t_quantile(0.95, SEEDS - 1) * gaps.std(ddof=1) / np.sqrt(SEEDS)
    due = [gaps.mean(), gaps.mean() - half, gaps.mean() + half]
    assert [float(part) for part in re.findall(r"[+-]\d*\.\d{4}", found[row.name][-1])] == pytest.approx(due, abs=6e-5)
    assert found[row.name][-2] == f"{np.mean(booster):.4f} ± {np.std(booster, ddof=1):.4f}".replace("0.", ".")
    assert "booster AUC" not in blocks(comparison, tmp_path)(["table", "toy/models"])


def study_of(comparison: Comparison, name: str) -> Any:
    return next(study for study in comparison.studies if study["name"] == name)


def test_a_page_shows_pictures_that_are_there(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    page = "# Models\n\n<!-- begin: pictures toy/hidden cost effect -->\nold\n<!-- end -->\n\nBy hand.\n"
    made = filled(page, blocks(comparison, tmp_path), "page.md")
    files = re.findall(r"!\[.*\]\((.*)\)", made)
    assert files == ["pictures/toy-hidden-cost.png", "pictures/toy-hidden-effect.png"]
    assert sorted(f"pictures/{file.name}" for file in (tmp_path / "pictures").iterdir()) == files
    assert made.startswith("# Models\n\n<!-- begin: pictures toy/hidden cost effect -->\n![")
    assert made.endswith(")\n<!-- end -->\n\nBy hand.\n")
    assert filled(made, blocks(comparison, tmp_path, draws=False), "page.md") == made


def test_models_stand_beside_the_papers(comparison: Comparison, tmp_path: Path) -> None:
    found = cells_of(blocks(comparison, tmp_path)(["paper", "toy"]))
    assert set(found) >= {definition.title for definition in MODELS.values()}
    assert PAPER.keys() == MODELS.keys()
    assert found["DIEN"][2:] == ["-", ".7792 ± .00243", "+.0357", ".8453 ± .00476", "+.0767"]
    assert found["BaseModel"][1] == found["BaseModel"][4] == found["BaseModel"][6] == "-"
    rows = {row.name: row for row in comparison.rows(study_of(comparison, "models"))}
    above = rows["DIEN"].above(rows["BaseModel"])
    assert above is not None
    assert f"{above.mean:+.4f}".replace("0.", ".") in found["DIEN"][1]
    assert found["BaseModel"][2] == found["DIEN"][1]


def test_dien_is_held_to_models_that_have_its_loss_too(comparison: Comparison, tmp_path: Path) -> None:
    found = cells_of(blocks(comparison, tmp_path)(["even", "toy"]))
    assert found.keys() >= {definition.title for name, definition in MODELS.items() if name != "augru"}
    rows = {row.name: row for row in comparison.rows(study_of(comparison, "auxiliary-everywhere"))}
    dien, base = rows["GRU + AUGRU, auxiliary loss"], rows["BaseModel, auxiliary loss"]
    above = dien.above(base)
    assert above is not None
    assert dien.micros is not None
    assert base.micros is not None
    assert f"{above.mean:+.4f}".replace("0.", ".") in found["BaseModel"][1]
    assert found["BaseModel"][3] == f"{dien.micros['median'] / base.micros['median']:.2f}"
    assert (found["DIEN"][1], found["DIEN"][3]) == ("-", "1.00")


def test_what_is_not_there_is_said_or_refused(comparison: Comparison, tmp_path: Path) -> None:
    made = blocks(comparison, tmp_path)
    assert made(["table", "beauty/models"]) == "Not measured yet."
    assert made(["table", "toy/prefixes"]) == "Not measured yet."  # asks of sequences
    assert made(["how"]) == HOW
    for words, rule in [
        ("table toy/moods", "block 'table toy/moods': the studies are models, "),
        ("picture toy/models", "block 'picture toy/models': how, or a name after about, paper, even, table, "),
        ("table toy/models auc", "block 'table toy/models auc': how, or"),
        ("", "block '': how, or"),
        ("pictures toy/models effect", "block pictures toy/models effect: one of auc, curves, cost"),
    ]:
        with pytest.raises(ConfigError, match=f"^{re.escape(rule)}"):
            made(words.split())


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        ("<!-- begin: a -->\n", "page.md: the block 'a' has no end"),
        ("x\n<!-- end -->\n", "page.md:2: <!-- end -->: begin and end must take turns"),
        ("<!-- begin: a -->\n<!-- begin: b -->\n<!-- end -->\n", "page.md:2: <!-- begin: b -->: begin and end"),
    ],
)
def test_marks_that_do_not_pair_are_refused(page: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(rule)}"):
        filled(page, lambda _: "", "page.md")


def test_the_page_of_models_is_what_its_results_make_it() -> None:
    """`python -m model.compare --report docs/results/compared/*.json --page docs/models.md --out docs/models`."""
    page = (DOCS / "models.md").read_text()
    found = Blocks(
        [read_results(file) for file in sorted(DOCS.glob("results/compared/*.json"))],
        DOCS,
        DOCS / "models",
        draws=False,
    )
    assert filled(page, found, "docs/models.md") == page
    assert all(Path(file).exists() for file in found.shown)
