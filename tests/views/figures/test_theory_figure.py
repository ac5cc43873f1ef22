"""The simulation's three panels."""

import pytest

from dash_core.spread import Spread
from dash_core.theory import TheoryPoint
from dash_core.views.figures import theory_figure
from dash_core.views.figures.look import STYLES
from tests.views.figures.samples import curves, legend

THOUSAND = Spread(1000.0, 100.0)
METHODS = ("random", "warm", "ideal")


def point(experiment: int, method: str, nonzero=THOUSAND) -> TheoryPoint:
    return TheoryPoint(experiment, method, 10, Spread(60.0 + experiment, 2.0), Spread(20.0, 1.0), nonzero, Spread(5, 0))


POINTS = [point(experiment, method) for experiment in (1, 2) for method in METHODS]


def test_three_panels_show_accuracy_features_and_training_time():
    drawn = theory_figure(POINTS)
    assert legend(drawn) == list(METHODS)
    shown = [[curve.y for curve in curves(drawn, "warm", panel)] for panel in (1, 2, 3)]
    assert shown == [
        [(63, 64, 60, 59), (61, 62)],
        [(21, 21, 19, 19), (20, 20)],
        [(1100, 1100, 900, 900), (1000, 1000)],
    ]
    assert drawn.layout.yaxis3.type == "log"


def test_random_and_warm_have_the_colours_of_cold_and_warm():
    drawn = theory_figure(POINTS)
    colors = {t.name: t.marker.color for t in drawn.data if t.name in METHODS and t.marker.color}
    assert (colors["random"], colors["warm"]) == (STYLES["cold"].color, STYLES["warm"].color)


def test_a_band_stays_above_zero_on_the_logarithmic_axis():
    drawn = theory_figure([point(j, "warm", Spread(3.0, 4.0)) for j in (1, 2)])
    band, _ = curves(drawn, "warm", panel=3)
    assert band.y == (7, 7, 0.5, 0.5)


@pytest.mark.parametrize("points", [[], [point(1, "lukewarm")]])
def test_what_is_no_simulation_is_refused(points):
    with pytest.raises(ValueError, match="the simulation's methods are random, warm, ideal"):
        theory_figure(points)
