"""Pictures of a whole grid, of made-up figures: nothing cut off, and what is drawn is what the rows hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import made_up_data
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.compare.cells import cells_of
from model.compare.grid import chosen_studies
from model.compare.pictures import draw_auc, draw_cost, draw_curves, draw_effect
from model.compare.results import Comparison, document_of
from model.data import DataSet

WORDS = ("--data", "canonical:made-up")


def made_up_comparison(data: DataSet, seeds: int) -> Comparison:
    """Every study that fits the data, with numbers of a generator for results."""
    random = np.random.default_rng(0)
    studies = chosen_studies(["all"], ["all"], data, WORDS)
    cells, keys = cells_of(studies, seeds, WORDS, Path("nowhere"))
    about: dict[str, Any] = {"data": {"name": WORDS[1], "test": 1}, "seeds": seeds}
    document = document_of(about, studies, keys, cells, {}, {})
    for variant in document["variants"].values():
        variant["serving"] = {"us_per_candidate": {"median": float(random.uniform(0.3, 9)), "least": 0.2}}
        for seed in range(seeds):
            metrics = {"auc": float(random.normal(0.74, 0.002))}
            curve = [{"step": 10 * n, "auc": float(random.normal(0.7, 0.01))} for n in range(1, 5 - seed % 2)]
            every: dict[str, Any] = {"dev": metrics, "test": metrics}
            if variant["module"] == "model.distill":
                every["booster"] = {"auc": metrics["auc"] + float(random.normal(0.001, 0.0005))}
            training = {"curve": curve, "seconds": 9.0, "cpu_seconds": float(random.uniform(5, 90))}
            variant["cells"].append({"seed": seed, "metrics": every, "training": training})
    return Comparison(document)


@pytest.fixture(scope="module", params=[1, 3])
def comparison(request: pytest.FixtureRequest) -> Comparison:
    return made_up_comparison(made_up_data(), request.param)


def inside(figure: Figure) -> bool:
    """Whether all that is drawn, every label too, lies within the figure."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    return bool(drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height)


def points(line: Any) -> Any:
    return np.asarray(line.get_xydata())


@pytest.mark.parametrize("name", ["auxiliary-everywhere", "distillation"])
def test_nothing_is_cut_off(comparison: Comparison, name: str) -> None:
    study = next(study for study in comparison.studies if study["name"] == name)
    rows = comparison.rows(study)
    assert len(rows) == len(study["rows"])
    assert all(inside(draw(rows, study)) for draw in (draw_auc, draw_cost, draw_curves))


@pytest.mark.parametrize(("name", "panels"), [("hidden", 3), ("history", 3), ("alpha", 2)])
def test_an_effect_is_drawn_over_its_setting(comparison: Comparison, name: str, panels: int) -> None:
    study = next(study for study in comparison.studies if study["name"] == name)
    rows = comparison.rows(study)
    figure = draw_effect(rows, study)
    assert inside(figure)
    assert len(figure.axes) == panels
    values = sorted(row.variant["settings"][study["axis"]] for row in rows)
    means = {row.variant["settings"][study["axis"]]: np.mean(list(row.by_seed("auc").values())) for row in rows}
    drawn = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == len(values))  # type: ignore[arg-type]
    np.testing.assert_allclose(points(drawn), [(value, means[value]) for value in values])
    # The recipe's own value is what the others are compared with.
    (reference,) = {row.reference for row in rows}
    assert reference in ("hidden 32", "history 50", "α 0.25")
    if panels == 3:
        assert points(figure.axes[2].lines[0])[0, 1] == next(
            row.micros["median"] for row in rows if row.micros and row.variant["settings"][study["axis"]] == values[0]
        )


def test_curves_end_where_the_first_seed_did(comparison: Comparison) -> None:
    study = comparison.studies[0]
    rows = comparison.rows(study)
    line = draw_curves(rows, study).axes[0].lines[0]
    curves = [cell["training"]["curve"] for cell in rows[0].cells]
    shortest = min(curves, key=len)
    means = [np.mean([curve[place]["auc"] for curve in curves]) for place in range(len(shortest))]
    np.testing.assert_allclose(points(line), [(one["step"], mean) for one, mean in zip(shortest, means, strict=True)])
