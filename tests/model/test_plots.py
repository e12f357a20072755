from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import made_up_data
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from small_models import small_artifact

from model.metrics import reliability
from model.plots import plot_interest_evolution, plot_reliability, plot_slices
from model.scorer import ScoreInput, Scorer

IDS = made_up_data().items.item_ids


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *parts: Any, **named: Any) -> None:
        save(self, *parts, **named)
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(small_artifact(max_history=50), device="cpu")


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def inside(figure: Figure) -> bool:
    """Whether all that is drawn, every label too, lies within the figure."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    return bool(drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height)


def test_the_reliability_plot_shows_the_bins(tmp_path: Path, drawn: list[Figure]) -> None:
    random = np.random.default_rng(0)
    scores = random.beta(2, 3, 3000)
    clicks = random.random(3000) < scores**1.5
    plot_reliability(clicks, scores, tmp_path / "reliability.png")
    above, below = drawn[0].axes
    bins = reliability(clicks, scores)
    line = {line.get_label(): line for line in above.get_lines()}["model"]
    np.testing.assert_array_equal(np.asarray(line.get_xydata()), np.stack([bins.predicted, bins.observed], axis=1))
    assert f"{bins.error():.4f}" in above.get_title()
    assert sum(bar.get_height() for bar in below.patches) == 3000  # type: ignore[attr-defined]
    assert inside(drawn[0])
    assert (tmp_path / "reliability.png").stat().st_size > 10_000
    assert plt.get_fignums() == []


def test_the_plot_of_slices_shows_what_was_measured(tmp_path: Path, drawn: list[Figure]) -> None:
    counts = {"impressions": 1_234_567, "click_rate": 0.25, "mean_prediction": 0.5}
    measured = {"metrics": {"auc": 0.75}, "intervals": {"auc": [0.7, 0.8]}}
    slices = [{"by": "context a_long_name", "slice": f"{n} rarer values", **counts, **measured} for n in range(40)]
    slices.append({"by": "day", "slice": "1", **counts, "left_out": "fewer than 200 impressions"})
    plot_slices(slices, {"auc": 0.74}, tmp_path / "slices.png")
    left, right = drawn[0].axes
    assert texts(left.get_yticklabels())[0] == "context a_long_name: 0 rarer values   1,234,567"
    dots = [line for line in left.lines if line.get_marker() == "D"]
    assert [np.asarray(dot.get_xydata()).tolist() for dot in dots] == [[[0.75, n]] for n in range(40)]
    lines = {str(line.get_label()): np.asarray(line.get_xdata()).tolist() for line in right.lines}
    assert (lines["click rate"], lines["mean prediction"]) == ([0.25] * 41, [0.5] * 41)
    assert inside(drawn[0])


@pytest.mark.parametrize("steps", [1, 3, 50, 70])
@pytest.mark.parametrize("candidates", [1, 6])
def test_interest_evolution_shows_the_attention(
    scorer: Scorer, tmp_path: Path, drawn: list[Figure], steps: int, candidates: int
) -> None:
    random = np.random.default_rng(0)
    history, actions = random.choice(IDS, steps), random.integers(-1, 3, steps)
    one = ScoreInput(IDS[:candidates], history, actions, {"tab": 1}, 7)
    plot_interest_evolution(scorer, one, tmp_path / "interest.png")
    above, below, _ = drawn[0].axes
    attention, scores = scorer.attention(one), scorer.score([one])[0]
    order = np.argsort(-scores)
    np.testing.assert_array_equal(np.asarray(above.images[0].get_array()), attention[order])
    assert texts(above.get_yticklabels()) == [f"item {IDS[n]}   p = {scores[n]:.3f}" for n in order]
    assert texts(below.get_xticklabels()) == [str(item) for item in history[-50:]]
    names = ["shown", "click", "long_view", "unknown"]
    (legend,) = drawn[0].legends
    assert texts(legend.get_texts()) == sorted({names[action] for action in actions[-50:]})
    strip = np.asarray(below.images[0].get_array())[0]
    assert [sorted({names[action] for action in actions[-50:]})[n] for n in strip] == [
        names[action] for action in actions[-50:]
    ]
    assert above.get_title() == "Attention over the history of user 7"
    assert inside(drawn[0])


def test_actions_by_name_and_by_default(scorer: Scorer, tmp_path: Path, drawn: list[Figure]) -> None:
    plot_interest_evolution(scorer, ScoreInput([100], [103, 106], ["shown", "click"]), tmp_path / "a.png")
    plot_interest_evolution(scorer, ScoreInput([100], [103, 106]), tmp_path / "b.png")
    assert [texts(figure.legends[0].get_texts()) for figure in drawn] == [["click", "shown"], ["click"]]
    assert drawn[0].axes[0].get_title() == "Attention over the history"


def test_without_a_history_and_without_actions(scorer: Scorer, tmp_path: Path, drawn: list[Figure]) -> None:
    plot_interest_evolution(scorer, ScoreInput([100, 103]), tmp_path / "a.png")
    bare = Scorer(small_artifact(made_up_data(actions=False)), device="cpu")
    plot_interest_evolution(bare, ScoreInput([100, 103], [106, 109]), tmp_path / "b.png")
    assert drawn[0].axes[0].get_xlabel() == "no behaviours"
    assert np.all(np.asarray(drawn[0].axes[0].images[0].get_array()) == 0)
    assert drawn[0].axes[0].images[0].get_clim() == (0, 1)
    assert drawn[1].axes[0].images[0].get_array() is not None
    assert [len(figure.legends) for figure in drawn] == [0, 0]
    assert all(inside(figure) for figure in drawn)
