"""The paper's figure 3: the discrete feature-learning simulation, in three panels."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dash_core.theory import TheoryPoint
from dash_core.views.figures.lines import experiment_axis
from dash_core.views.figures.look import THEORY_STYLES
from dash_core.views.figures.panels import Panel, arrange
from dash_core.views.figures.traces import Line, Point, line_with_band, method_entries

_PANELS = (  # attribute, axis, unit and number format of the hover text
    ("test_accuracy", {"title": {"text": "test accuracy (%)"}}, "%", ".2f"),
    ("learned_features", {"title": {"text": "learned features"}, "rangemode": "tozero"}, "features", ",.1f"),
    ("nonzero_gradient", {"title": {"text": "training time (points)"}, "type": "log", "dtick": "D2"}, "points", ",.0f"),
)


def theory_figure(points: Sequence[TheoryPoint]) -> go.Figure:
    """Draw (a) test accuracy, (b) learned features and (c) training time of random, warm and ideal by experiment.

    Training time is the number of points with a non-zero gradient as an experiment starts, on a logarithmic axis
    (paper, section 3 and figure 3). Lines are means over seeds, bands ± population std.
    Raises ValueError if there is no point or a method has no style.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    unknown = [method for method in methods if method not in THEORY_STYLES]
    if not methods or unknown:
        given = ", ".join(unknown) or "no point"
        raise ValueError(f"the simulation's methods are {', '.join(THEORY_STYLES)}, got {given}: run the simulation")
    traces = method_entries({method: THEORY_STYLES[method] for method in methods}, all_converged=True)
    for panel, (attribute, _, unit, digits) in enumerate(_PANELS, start=1):
        for method in methods:
            of_method = sorted((p for p in points if p.method == method), key=lambda point: point.experiment)
            drawn = tuple(Point(point.experiment, getattr(point, attribute), point.seeds) for point in of_method)
            line = Line(method, THEORY_STYLES[method], drawn, unit, digits)
            traces += line_with_band(line, panel, positive=attribute == "nonzero_gradient")
    experiments = experiment_axis(max(point.experiment for point in points))
    return arrange(traces, [Panel(experiments, axis) for _, axis, _, _ in _PANELS])
