"""What the figures of a comparison show, against means and deviations worked out by hand."""

import pytest

from dash_core.cost import Cost
from dash_core.diagnostics import DIAGNOSTICS
from dash_core.views.figures import FIGURES, draw
from dash_core.views.figures.panels import NARROW
from dash_core.views.figures.traces import NOT_CONVERGED
from dash_core.views.summary import MethodRuns
from tests.views.figures.samples import CLASSES, MEASURED, TWO_SEEDS, curves, figure, legend, method, record

STUCK = method("cold", [record(1), record(2, converged=False)], [record(1), record(2)])


def test_every_registered_figure_is_drawn_in_order_with_a_title_and_one_sentence():
    assert list(draw([MEASURED], CLASSES)) == list(FIGURES)
    for drawing in FIGURES.values():
        assert drawing.title
        assert drawing.caption.endswith(".")
        assert drawing.caption.count(". ") == 0


def test_a_diagnostic_that_was_not_recorded_has_no_figure():
    assert list(draw([TWO_SEEDS], CLASSES)) == [name for name, one in FIGURES.items() if not one.diagnostic]
    assert {one.diagnostic for one in FIGURES.values()} == {"", *DIAGNOSTICS}


def test_lines_are_means_and_bands_population_deviations_over_seeds():
    drawn = figure("accuracy_and_steps", TWO_SEEDS)
    band, line = curves(drawn, "dash")
    assert line.x == (1, 2)
    assert line.y == pytest.approx((30, 60))  # 20 and 40, 50 and 70
    assert band.x == (1, 2, 2, 1)
    assert band.y == pytest.approx((40, 70, 50, 20))
    band, line = curves(drawn, "dash", panel=2)
    assert line.y == (15, 40)  # 10 and 20, 30 and 50
    assert band.y == (20, 50, 30, 10)


def test_hover_text_says_method_experiment_mean_deviation_and_seeds():
    _, line = curves(figure("accuracy_and_steps", TWO_SEEDS), "dash")
    assert all(part in line.hovertemplate for part in ("dash", "experiment %{x}", "%{y", "±"))
    assert [row[1] for row in line.customdata] == ["n = 2 seeds"] * 2
    assert [row[0] for row in line.customdata] == pytest.approx([10, 10])


def test_one_seed_has_a_line_without_a_band():
    (line,) = curves(figure("accuracy_and_steps", method("warm", [record(1), record(2)])), "warm")
    assert line.customdata[0][1] == "n = 1 seed"


def test_the_trade_off_adds_up_the_steps_of_the_whole_run():
    seeds, mean = curves(figure("accuracy_by_steps", TWO_SEEDS), "dash")
    assert seeds.x == (40, 70)  # 10 + 30, 20 + 50
    assert seeds.y == pytest.approx((50, 70))
    assert (*mean.x, *mean.error_x.array) == (55, 15)
    assert (*mean.y, *mean.error_y.array) == pytest.approx((60, 10))


def test_the_trade_off_adds_up_the_flops_of_all_phases():
    seeds, mean = curves(figure("accuracy_by_flops", TWO_SEEDS), "dash")
    assert seeds.x == (6, 6)  # two experiments of 2 + 1 TFLOPs
    assert (*mean.x, *mean.error_x.array) == (6, 0)


def test_seconds_are_those_of_all_phases():
    (line,) = curves(figure("seconds", TWO_SEEDS), "dash")
    assert line.y == (4, 4)


def test_cost_is_stacked_by_phase_and_idle_phases_are_left_out():
    costly = record(
        cost={"intervene": Cost(), "train": Cost(6.0, 4 * 10**12), "evaluate": Cost(1.0), "diagnose": Cost()}
    )
    cheap = record(cost={"train": Cost(2.0, 2 * 10**12), "evaluate": Cost(1.0)})
    drawn = figure("cost_by_phase", method("dash", [costly], [cheap]))
    assert [(bar.name, bar.xaxis, *bar.x) for bar in drawn.data] == [
        ("train", "x", 4.0),
        ("evaluate", "x", 1.0),
        ("train", "x2", 3.0),
        ("evaluate", "x2", 0.0),
    ]
    assert drawn.layout.barmode == "stack"
    assert legend(drawn) == ["train", "evaluate"]
    assert [row[1] for row in drawn.data[0].customdata] == [2.0]


def test_class_accuracy_is_of_the_last_experiment_and_leaves_out_classes_without_test_images():
    (dots,) = curves(figure("class_accuracy", TWO_SEEDS), "dash")
    assert dots.x == ("cat",)
    assert dots.y == pytest.approx((60,))  # 40 and 80
    assert dots.error_y.array == pytest.approx((20,))
    assert figure("class_accuracy", TWO_SEEDS).layout.yaxis.range == pytest.approx((37.6, 82.4))  # not from 0


def test_more_than_twenty_classes_are_a_heat_map():
    names = [f"c{number}" for number in range(22)]
    accuracies = [None, *(number / 100 for number in range(21))]
    drawn = figure("class_accuracy", method("dash", [record(classes=accuracies)]), STUCK_MANY, class_names=names)
    (heat,) = drawn.data
    assert heat.type == "heatmap"
    assert heat.y == ("dash", "cold †")
    assert list(heat.x) == names
    assert list(heat.z[0])[:3] == [None, 0, 1]
    twenty = figure("class_accuracy", method("dash", [record(classes=[0.5] * 20)]), class_names=names[:20])
    assert {trace.type for trace in twenty.data} == {"scatter"}


STUCK_MANY = method("cold", [record(classes=[0.5] * 22, converged=False)])


def test_equal_and_long_class_names_stay_apart_and_are_no_markup():
    names = ["<b>crane</b>", "crane", "crane", "x" * 40]
    (dots,) = curves(figure("class_accuracy", method("dash", [record(classes=[0.5] * 4)]), class_names=names), "dash")
    assert dots.x == ("&lt;b&gt;crane&lt;/b&gt;", "crane (1)", "crane (2)", "x" * 23 + "…")


def test_class_names_of_another_data_set_are_refused():
    with pytest.raises(ValueError, match=r"dash has accuracies of 2 classes and 3 class names"):
        draw([TWO_SEEDS], ("a", "b", "c"))


def test_an_experiment_that_did_not_converge_has_an_open_marker_and_the_legend_says_so():
    drawn = figure("accuracy_and_steps", STUCK, TWO_SEEDS)
    line = curves(drawn, "cold")[-1]
    assert line.marker.symbol == ("circle", "circle-open")
    assert legend(drawn) == ["cold", "dash", NOT_CONVERGED]
    seeds, mean = curves(figure("accuracy_by_steps", STUCK), "cold")
    assert seeds.marker.symbol == ("circle-open", "circle")
    assert mean.marker.symbol == ("circle-open",)
    (dots,) = curves(figure("class_accuracy", STUCK), "cold")
    assert dots.marker.symbol == "circle-open"


def test_a_figure_without_flaws_has_no_word_of_them():
    assert legend(figure("seconds", TWO_SEEDS, method("warm"))) == ["dash", "warm"]


def test_markers_are_sparse_and_never_miss_what_did_not_converge():
    (line,) = curves(figure("seconds", method("dash", [record(j, converged=j != 2) for j in range(1, 51)])), "dash")
    shown = [x for x, size in zip(line.x, line.marker.size, strict=True) if size]
    assert shown == sorted([2, *range(1, 51, 5)])


def test_a_method_with_fewer_seeds_is_drawn_from_those_it_has_and_one_without_is_left_out():
    drawn = figure("accuracy_by_steps", TWO_SEEDS, method("warm"), MethodRuns("cold", "cold", {}))
    assert legend(drawn) == ["dash", "warm"]
    assert len(curves(drawn, "warm")[0].x) == 1


@pytest.mark.parametrize("methods", [[], [MethodRuns("cold", "cold", {})]])
def test_nothing_to_draw_is_said(methods):
    with pytest.raises(ValueError, match="no method has a complete run to draw"):
        draw(methods, CLASSES)


def test_panels_stand_side_by_side_and_are_stacked_where_the_page_is_narrow():
    layout = figure("accuracy_and_steps", TWO_SEEDS).layout
    assert layout.meta["narrow_below"] == NARROW
    assert layout.xaxis.domain[1] < layout.xaxis2.domain[0]
    narrow = layout.meta["narrow"]
    assert narrow["yaxis.domain"][0] > narrow["yaxis2.domain"][1]
    assert narrow["xaxis.domain"] == narrow["xaxis2.domain"] == [0, 1]


def test_axes_are_titled_with_their_units():
    titles = {
        name: [drawn.layout[axis].title.text for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2") if axis in drawn.layout]
        for name, drawn in draw([TWO_SEEDS], CLASSES).items()
    }
    assert titles["accuracy_and_steps"] == ["experiment", "test accuracy (%)", "experiment", "steps"]
    assert titles["accuracy_by_flops"][0] == "TFLOPs of the whole run"
    assert [titles["cost_by_phase"][0], titles["cost_by_phase"][2]] == ["seconds", "TFLOPs"]
