"""What the figures of the diagnostics show: two seeds whose values are those of one and half of them."""

import pytest

from dash_core.views.figures import draw
from dash_core.views.summary import MethodRuns
from tests.views.figures.samples import CLASSES, MEASURED, curves, diagnosed, figure, legend, method, record


def points(name: str, panel: int) -> tuple[list, list]:
    line = curves(figure(name, MEASURED), "dash", panel)[-1]
    return list(line.x), list(line.y)


@pytest.mark.parametrize(
    ("name", "panel", "x", "y"),
    [
        ("previous_accuracy", 1, [2], [7.5]),  # 10 and 5 %
        ("previous_accuracy", 2, [0, 1, 2], [7.5, 22.5, 37.5]),
        ("previous_accuracy_batch", 1, [2], [22.5]),
        ("previous_accuracy_batch", 2, [0, 1, 2], [22.5, 37.5, 52.5]),
        ("gradient_norm", 1, [1, 2], [3.75, 4.5]),
        ("gradient_norm", 2, [2], [3.0]),
        ("gradient_norm", 3, [2], [2.25]),
        ("alignment", 1, [2], [0.225]),
        ("alignment", 2, [2], [30.0]),
        ("units", 1, [1, 2], [7.5, 7.5]),
        ("units", 2, [1, 2], [22.5, 22.5]),
        ("units", 3, ["block1", "block2"], [0.0, 15.0]),  # a single call within a block is none
        ("norms", 1, [1, 2], [2.25, 2.25]),
        ("norms", 2, [1, 2], [1.5, 1.5]),
        ("feature_rank", 1, [1, 2], [3.0, 3.0]),
        ("distance", 1, [1, 2], [7.5, 7.5]),
    ],
)
def test_lines_are_means_over_seeds_where_something_was_measured(name, panel, x, y):
    assert points(name, panel) == (x, pytest.approx(y))


def test_the_band_of_the_alignment_is_from_quartile_to_quartile():
    band, _ = curves(figure("alignment", MEASURED), "dash")
    assert band.y == pytest.approx((0.375, 0.15))  # upper: 0.5 and 0.25; lower: 0.2 and 0.1


def test_the_hover_text_says_along_what_the_line_goes():
    _, line = curves(figure("previous_accuracy", MEASURED), "dash", panel=2)
    assert "epoch %{x}" in line.hovertemplate
    _, line = curves(figure("units", MEASURED), "dash", panel=3)
    assert "block %{x}" in line.hovertemplate


def test_methods_without_the_diagnostic_stand_in_the_legend_and_have_no_line():
    drawn = figure("distance", MEASURED, method("warm"))
    assert legend(drawn) == ["dash", "warm"]
    assert [list(curve.y) for curve in curves(drawn, "warm")] == [[]]


def test_a_panel_that_nothing_was_recorded_for_is_left_out():
    first = MethodRuns("dash", "dash", {0: diagnosed(1.0)[:1]})  # one experiment: no previous data, no intervention
    drawn = draw([first], CLASSES)
    assert "previous_accuracy" not in drawn
    assert "alignment" not in drawn
    assert "xaxis2" not in drawn["gradient_norm"].layout


def test_what_an_intervention_records_itself_is_no_figure():
    drawn = draw([method("dash", [record(1, diagnostics={"floor_share": 0.5, "floor_share/fc.weight": 1.0})])], CLASSES)
    assert "distance" not in drawn
